"""Convert a frozen graph to TensorFlow Lite, for phones, and verify that it gives the same logits.

  none     32-bit floats, as in the graph: lenet5.tflite
  float16  weights as 16-bit floats, half the size: lenet5-float16.tflite (not with TensorFlow 1.14)
  int8     weights and activations as 8-bit integers, less than a third of the size: lenet5-int8.tflite; the ranges of
           the activations are measured on training images (calibration)

The file is written beside the graph. Input and output are always 32-bit floats, [1, img_size, img_size, 3] and
[1, classes], named as in the graph.
"""

import os
import sys
import warnings

from utils.start import guarded_imports

with guarded_imports(__name__):
    from convert.command import command, end_process
    from src.errors import InputError

QUANTIZE = ("none", "float16", "int8")
CALIBRATION_IMAGES = 500  # activations outside the range that these give are clipped
SLOW_NUM_IMAGES = 200  # test images where one takes a second: int8 on TensorFlow 1.14


def pb2tflite(reference, quantize="none"):
    """Write <graph>.tflite, <graph>-float16.tflite or <graph>-int8.tflite beside the graph; returns the Comparison.

    Raises:
        InputError: TensorFlow cannot convert it; no test images; no training images to calibrate int8 with.
    """
    from convert.compare import FLOAT16, FLOAT32, INT8, NUM_IMAGES, convert_and_verify
    from src.tf1 import RUNS_INT8_FAST, WRITES_FLOAT16

    if quantize == "float16" and not WRITES_FLOAT16:
        raise InputError("--quantize", "float16, which TensorFlow 1.14 cannot write", "none or int8, or TensorFlow 2")
    return convert_and_verify(
        reference,
        os.path.splitext(reference.path)[0] + ("" if quantize == "none" else f"-{quantize}") + ".tflite",
        lambda path: convert(reference, quantize, path),
        open_model,
        "TensorFlow Lite",
        {"none": FLOAT32, "float16": FLOAT16, "int8": INT8}[quantize],
        SLOW_NUM_IMAGES if quantize == "int8" and not RUNS_INT8_FAST else NUM_IMAGES,
    )


def convert(reference, quantize, path):
    from dataset import read_sample
    from src.tf1 import tf

    # TensorFlow 1.14 runs a program from the folder of Python, which is on PATH only in an active environment.
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
    metadata = reference.predictor.metadata
    image, output = metadata["input"]["name"], metadata["output"]["name"]
    converter = tf.lite.TFLiteConverter.from_frozen_graph(
        reference.path, [image], [output], {image: [1] + metadata["input"]["shape"][1:]}
    )
    if quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        samples, _ = read_sample("train_path", reference.source, reference.predictor.preprocess, CALIBRATION_IMAGES)
        converter.representative_dataset = tf.lite.RepresentativeDataset(
            lambda: ([batch[0]] for batch in samples.batches(1))
        )
    with open(path, "wb") as file:
        file.write(converter.convert())


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
            lambda reference, quantize: [lambda: pb2tflite(reference, quantize)],
            quantize=QUANTIZE,
        )
    )
