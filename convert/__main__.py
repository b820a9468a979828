"""Convert a frozen graph to everything there is, and prove that all of it gives the same answers.

It does what convert.pb2tflite, convert.pb2savedmodel and convert.pb2onnx do, and asks OpenCV about the graph itself.
All files are written beside the graph.
"""
import sys
from functools import partial

from convert.command import command
from convert.pb2onnx import pb2onnx
from convert.pb2savedmodel import pb2savedmodel
from convert.pb2tflite import QUANTIZE, pb2tflite
from src.errors import InputError


def conversions(original):
    """All of them, as functions that return a Parity each."""
    from src.tf1 import IS_1_14
    if IS_1_14:
        print("float16 is left out: TensorFlow 1.14 cannot write it")
    lite = [partial(pb2tflite, original, quantize) for quantize in QUANTIZE if not (IS_1_14 and quantize == "float16")]
    return [partial(in_opencv, original)] + lite + [partial(pb2savedmodel, original), partial(pb2onnx, original)]


def in_opencv(original):
    """The Parity of the graph itself, as OpenCV reads it."""
    import cv2
    from convert.parity import compare
    from src.tf1 import quiet
    try:
        with quiet():
            net = cv2.dnn.readNetFromTensorflow(original.path)
            return compare(original, partial(ask_opencv, net), original.path, "OpenCV dnn " + cv2.__version__)
    except cv2.error as error:
        raise InputError("graph %s: OpenCV cannot read it (%s)" % (original.path, " ".join(str(error).split())))


def ask_opencv(net, images):
    net.setInput(images.transpose(0, 3, 1, 2))  # to [n, channels, height, width]
    return net.forward()


if __name__ == "__main__":
    sys.exit(command("convert", __doc__, conversions))
