"""Weight files of MobileNetV2 as Keras writes them, and what Keras itself answers with those weights.

    python keras_pretrained.py IMAGES.npz FOLDER SIZE WIDTH ...

IMAGES holds `images`, uint8 [n, SIZE, SIZE, 3], red, green, blue. FOLDER receives files as Keras Applications publishes
them, with and without the classifier, and one of its own kind; and answer.npz with `logarithms`, those of the
probabilities of 10 classes; for each WIDTH in a folder of that name. It runs in a process of its own for the same
reason as keras_mobilenetv2.py.
"""

import os
import sys

import h5py
import numpy as np
import tensorflow as tf

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from keras_mobilenetv2 import LEGACY, get_weights, random_weights, set_weights  # noqa: E402


def publish(model, path, top):
    """Write the layout of the published files: names are bytes, of variables with :0, as Keras 2.1 gave them."""
    values = iter(get_weights(model))
    with h5py.File(path, "w") as file:
        layers = [layer for layer in model.layers if top or layer is not model.layers[-1]]
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [weight.name.split(":")[0].split("/")[-1] for weight in layer.weights]
            if isinstance(layer, tf.keras.layers.DepthwiseConv2D):
                names = ["depthwise_kernel"]
            names = [f"{layer.name}/{name}:0" for name in names]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name in names:
                group.create_dataset(name, data=next(values))


def write(source, folder, size, width):
    tf.keras.backend.clear_session()  # or names would be those of a second network
    os.mkdir(folder)
    images = np.load(source)["images"] / np.float32(127.5) - 1
    model = tf.keras.applications.MobileNetV2(
        input_shape=(int(size), int(size), 3), alpha=float(width), weights=None, classes=10
    )
    set_weights(model, random_weights(model, images[:10]))
    name = os.path.join(folder, f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{width}_{size}")
    publish(model, f"{name}.h5", top=True)
    publish(model, f"{name}_no_top.h5", top=False)
    model.save_weights(os.path.join(folder, "keras.h5" if LEGACY else "keras.weights.h5"))
    probabilities = model.predict(images).astype(np.float64)
    np.savez(os.path.join(folder, "answer.npz"), logarithms=np.log(probabilities))


if __name__ == "__main__":
    for width in sys.argv[4:]:
        write(sys.argv[1], os.path.join(sys.argv[2], width), sys.argv[3], width)
