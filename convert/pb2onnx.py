"""Convert a frozen graph to an ONNX file beside it, for other runtimes, and verify that it gives the same logits.

Input and output are 32-bit floats, [n, img_size, img_size, 3] and [n, classes], named as in the graph. It needs
convert/requirements.txt, which `make convert` installs.
"""

import os
import sys

from utils.start import guarded_imports

with guarded_imports(__name__):
    from convert.command import command, end_process
    from src.errors import InputError

OPSET = 11  # supported by the ONNX Runtime of either Python, and by nearly all other runtimes


def pb2onnx(reference):
    """Write <graph>.onnx beside the graph; returns the Comparison.

    Raises:
        InputError: tf2onnx or ONNX Runtime is not installed; it cannot be converted; no test images.
    """
    from convert.compare import convert_and_verify

    try:
        import onnxruntime
        import tf2onnx  # noqa: F401
    except ImportError as error:
        found, hint = f"an error ({error})", "make convert installs them, or pip install -r convert/requirements.txt"
        raise InputError("ONNX", found, f"tf2onnx and onnxruntime in {sys.executable}", hint) from error
    path, name = f"{os.path.splitext(reference.path)[0]}.onnx", f"ONNX Runtime {onnxruntime.__version__}"
    return convert_and_verify(reference, path, lambda path: convert(reference, path), open_model, name)


def convert(reference, path):
    import tf2onnx

    from src.tf1 import open_session, tf

    names = [reference.predictor.metadata[role]["name"] for role in ("input", "output")]
    with tf.Graph().as_default() as graph, open_session(reference.device):
        tf.import_graph_def(reference.graph_def, name="")
        converted = tf2onnx.tfonnx.process_tf_graph(
            graph, opset=OPSET, input_names=[f"{names[0]}:0"], output_names=[f"{names[1]}:0"]
        )
    model = tf2onnx.optimizer.optimize_graph(converted).make_model(f"made from {os.path.basename(reference.path)}")
    for name in names:
        rename(model.graph, f"{name}:0", name)
    for tensor in list(model.graph.input) + list(model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "n"
    with open(path, "wb") as file:
        file.write(model.SerializeToString())


def rename(graph, old, new):
    """Rename a tensor of an ONNX graph."""
    for tensor in list(graph.input) + list(graph.output):
        if tensor.name == old:
            tensor.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


def open_model(path):
    """An ONNX file as a function: float32 [n, img_size, img_size, 3] -> logits [n, classes]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    image = session.get_inputs()[0].name
    return lambda images: session.run(None, {image: images})[0]


if __name__ == "__main__":
    end_process(command("convert.pb2onnx", __doc__, lambda reference: [lambda: pb2onnx(reference)]))
