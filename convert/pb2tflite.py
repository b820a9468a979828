"""Convert a frozen graph to TensorFlow Lite, for phones, and verify that it gives the same logits.

  none     32-bit floats, as in the graph: lenet5.tflite
  float16  weights as 16-bit floats, half the size: lenet5-float16.tflite (not with TensorFlow 1.14)
  int8     weights and activations as 8-bit integers, less than a third of the size: lenet5-int8.tflite; the ranges of
           the activations are measured on training images (calibration)

The file is written beside the graph. Input and output are always 32-bit floats, [1, img_size, img_size, 3] and
[1, classes], named as in the graph. It contains TensorFlow Lite metadata: normalization and class names.

MediaPipe and ML Kit feed red, green, blue, and MediaPipe can only normalize all channels alike. For them, --rgb puts
channel order and normalization into the model, which then takes RGB levels from 0 to 255: lenet5-rgb.tflite,
lenet5-rgb-int8.tflite.
"""

import os
import sys
import warnings
from functools import partial

from utils.start import guarded_imports

with guarded_imports(__name__):
    from convert.command import SWITCH, command, end_process
    from src.console import print_note
    from src.errors import InputError

QUANTIZE = ("none", "float16", "int8")
CHOICES = {"quantize": QUANTIZE, "rgb": SWITCH}  # the options
CALIBRATION_IMAGES = 500  # activations outside the range that these give are clipped
SLOW_NUM_IMAGES = 200  # test images where one takes a second: int8 on TensorFlow 1.14


def pb2tflite_with_note(reference, quantize="none", rgb=False):
    """As pb2tflite, and print a note if phones need --rgb."""
    comparison, preprocess = pb2tflite(reference, quantize, rgb), reference.predictor.preprocess
    if not rgb and not is_for_phones(preprocess):
        takes = "grey" if preprocess.numchannels == 1 else f"{preprocess.channel_order.upper()}, normalized per channel"
        print_note(f"{comparison.path} takes {takes}; MediaPipe and ML Kit need python -m convert.pb2tflite --rgb")
    return comparison


def is_rgb(preprocess):
    return preprocess.numchannels == 3 and preprocess.channel_order == "rgb"


def is_for_phones(preprocess):
    """Whether MediaPipe and ML Kit can prepare an image as the network needs it."""
    per_channel = preprocess.image_normalize_mean, preprocess.image_normalize_std
    return is_rgb(preprocess) and all(len(set(values)) == 1 for values in per_channel)


def pb2tflite(reference, quantize="none", rgb=False):
    """Write <graph>.tflite beside the graph, with -rgb, -float16 and -int8 in its name; returns the Comparison.

    Args:
        reference: the ReferenceModel.
        quantize: one of QUANTIZE.
        rgb: whether the model takes RGB levels from 0 to 255, instead of what the graph takes.

    Raises:
        InputError: TensorFlow cannot convert it; no test images; no training images to calibrate int8 with.
    """
    from convert.compare import FLOAT16, FLOAT32, INT8, NUM_IMAGES, convert_and_verify
    from src.tf1 import RUNS_INT8_FAST, WRITES_FLOAT16

    if quantize == "float16" and not WRITES_FLOAT16:
        raise InputError("--quantize", "float16, which TensorFlow 1.14 cannot write", "none or int8, or TensorFlow 2")
    opener = partial(open_rgb_model, reference.predictor.preprocess) if rgb else open_model
    return convert_and_verify(
        reference,
        os.path.splitext(reference.path)[0] + "-rgb" * rgb + ("" if quantize == "none" else f"-{quantize}") + ".tflite",
        lambda path: convert(reference, quantize, rgb, path),
        opener,
        "TensorFlow Lite",
        {"none": FLOAT32, "float16": FLOAT16, "int8": INT8}[quantize],
        SLOW_NUM_IMAGES if quantize == "int8" and not RUNS_INT8_FAST else NUM_IMAGES,
    )


def convert(reference, quantize, rgb, path):
    from convert.rgb_input import mean_and_std, taking_rgb
    from convert.tflite_metadata import add_metadata
    from src.tf1 import tf

    # TensorFlow 1.14 runs a program from the folder of Python, which is on PATH only in an active environment.
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
    metadata, preprocess = reference.predictor.metadata, reference.predictor.preprocess
    image, output = metadata["input"]["name"], metadata["output"]["name"]
    graph = reference.path
    if rgb:
        graph = f"{path}.pb"
        with open(graph, "wb") as file:
            file.write(taking_rgb(reference.graph_def, image, preprocess).SerializeToString())
    _, size, _, channels = metadata["input"]["shape"]
    shape = [1, size, size, 3 if rgb else channels]
    converter = tf.lite.TFLiteConverter.from_frozen_graph(graph, [image], [output], {image: shape})
    if quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        converter.representative_dataset = tf.lite.RepresentativeDataset(calibration_images(reference, rgb))
    with open(path, "wb") as file:
        file.write(converter.convert())
    mean, std = ([0, 0, 0], [1, 1, 1]) if rgb else mean_and_std(preprocess)
    add_metadata(path, metadata, mean, std, is_rgb=rgb or is_rgb(preprocess))


def calibration_images(reference, rgb):
    """A function that yields training images as the model takes them, each in a list: its inputs."""
    from convert.rgb_input import to_levels
    from dataset import read_sample

    preprocess = reference.predictor.preprocess
    samples, _ = read_sample("train_path", reference.source, preprocess, CALIBRATION_IMAGES)
    return lambda: ([to_levels(preprocess, batch[0]) if rgb else batch[0]] for batch in samples.batches(1))


def open_rgb_model(preprocess, path):
    """As open_model, for a file that takes RGB levels: also a function of what the graph takes."""
    from convert.rgb_input import to_levels

    logits = open_model(path)
    return lambda images: logits(to_levels(preprocess, images))


def open_model(path):
    """A TFLite file as a function: float32 [1, img_size, img_size, 3] -> logits [1, classes]."""
    from src.tf1 import lite_interpreter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow 2.21 announces that the interpreter will move to another package
        model = lite_interpreter(path)
        model.allocate_tensors()
    image, output = model.get_input_details()[0]["index"], model.get_output_details()[0]["index"]

    def logits(images):
        model.set_tensor(image, images)
        model.invoke()
        return model.get_tensor(output)

    return logits


if __name__ == "__main__":
    end_process(
        command(
            "convert.pb2tflite",
            __doc__,
            lambda reference, **chosen: [partial(pb2tflite_with_note, reference, **chosen)],
            **CHOICES,
        )
    )
