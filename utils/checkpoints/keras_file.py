"""Files with the weights of Keras' MobileNetV2, by their names; without TensorFlow."""

import os
import re

from src.errors import InputError

PUBLISHED_AT = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
# Width and image size in the name of a published file.
PUBLISHED_NAME = re.compile(r"_(0\.35|0\.5|0\.75|1\.0|1\.3|1\.4)_(96|128|160|192|224)(_no_top)?\.h5$")


def is_keras_file(path):
    """Whether the path is a Keras file by its name, so that a corrupt one is reported as such."""
    return path.lower().endswith((".h5", ".hdf5", ".keras"))


def check_exists(what, path):
    """Raise InputError, naming `what`, if the path is a Keras file by its name, but there is no such file."""
    if path is not None and is_keras_file(path) and not os.path.isfile(path):
        published = PUBLISHED_AT + (os.path.basename(path) if PUBLISHED_NAME.search(path) else "")
        hint = f"Keras publishes them at {published}"
        raise InputError(what, f"no file {path}", "weights of a MobileNetV2 from Keras", hint)
