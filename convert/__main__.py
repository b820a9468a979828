"""Convert a frozen graph to all formats, and prove that each gives the same logits.

It does what convert.pb2tflite, convert.pb2savedmodel and convert.pb2onnx do, and runs the graph itself in OpenCV.
All files are written beside the graph.
"""

from functools import partial

from utils.start import guarded_imports

with guarded_imports(__name__):
    from convert.command import command, end_process
    from convert.pb2onnx import pb2onnx
    from convert.pb2savedmodel import pb2savedmodel
    from convert.pb2tflite import QUANTIZE, pb2tflite
    from src.console import quiet, say
    from src.errors import InputError


def conversions(reference):
    """All of them, as functions that return a Comparison each."""
    from src.tf1 import IS_1_14

    if IS_1_14:
        say("float16 is left out: TensorFlow 1.14 cannot write it")
    lite = [partial(pb2tflite, reference, quantize) for quantize in QUANTIZE if not (IS_1_14 and quantize == "float16")]
    return (
        [partial(compare_opencv, reference)] + lite + [partial(pb2savedmodel, reference), partial(pb2onnx, reference)]
    )


def compare_opencv(reference):
    """The Comparison of the graph itself, as OpenCV reads it."""
    import cv2

    from convert.compare import compare

    try:
        with quiet():
            net = cv2.dnn.readNetFromTensorflow(reference.path)
            return compare(reference, partial(run_opencv, net), reference.path, f"OpenCV dnn {cv2.__version__}")
    except cv2.error as error:
        reason = " ".join(str(error).split())
        raise InputError(f"graph {reference.path}: OpenCV cannot read it ({reason})") from error


def run_opencv(net, images):
    net.setInput(images.transpose(0, 3, 1, 2))  # to [n, channels, height, width]
    return net.forward()


if __name__ == "__main__":
    end_process(command("convert", __doc__, conversions))
