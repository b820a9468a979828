"""Convert a frozen graph to all formats, and verify that each gives the same logits.

Does what convert.pb2tflite, convert.pb2savedmodel and convert.pb2onnx do, and runs the graph itself in OpenCV.
All files are written beside the graph.
"""

from functools import partial

from utils.start import guarded_imports

with guarded_imports(__name__):
    from convert.command import command, end_process, run
    from convert.pb2onnx import pb2onnx
    from convert.pb2savedmodel import pb2savedmodel
    from convert.pb2tflite import QUANTIZE, pb2tflite, pb2tflite_with_note
    from src.console import quiet, say
    from src.errors import InputError


def conversions(reference):
    """All conversions, as functions that each return a Comparison."""
    from src.tf1 import WRITES_FLOAT16

    if not WRITES_FLOAT16:
        say("skipping float16: TensorFlow 1.14 cannot write it")
    others = [quantize for quantize in QUANTIZE[1:] if quantize != "float16" or WRITES_FLOAT16]
    return [
        partial(compare_opencv, reference),
        partial(pb2tflite_with_note, reference),  # once is enough
        *(partial(pb2tflite, reference, quantize) for quantize in others),
        partial(pb2savedmodel, reference),
        partial(pb2onnx, reference),
    ]


def compare_opencv(reference):
    """The Comparison of the graph itself in OpenCV."""
    import cv2

    from convert.compare import compare

    try:
        with quiet():
            net = cv2.dnn.readNetFromTensorflow(reference.path)
            return compare(reference, partial(run_opencv, net), reference.path, f"OpenCV dnn {cv2.__version__}")
    except cv2.error as error:
        found = f"an error in OpenCV ({' '.join(str(error).split())})"
        raise InputError(f"graph {reference.path}", found, "a graph that OpenCV's dnn module can run") from error


def run_opencv(net, images):
    net.setInput(images.transpose(0, 3, 1, 2))  # to [n, channels, height, width]
    return net.forward()


def main(words):
    """python run.py convert, with these words as arguments."""
    return run(words, "convert", __doc__, conversions)


if __name__ == "__main__":
    end_process(command("convert", __doc__, conversions))
