"""Convert a frozen graph to a SavedModel beside it, for servers, and verify that it gives the same logits.

TensorFlow 1.14 and 2.x can read it, and TensorFlow Serving with the folder <graph>-savedmodel as model_base_path. Its
signature serving_default has the input Image and the outputs output, the logits, and probabilities; the classes are
in assets/labels.txt.
"""

import os
import tempfile
from functools import partial

from utils.start import guarded_imports

with guarded_imports(__name__):
    from convert.command import command, end_process

VERSION = "1"  # TensorFlow Serving expects a numbered folder in the model's folder


def pb2savedmodel(reference):
    """Write the folder <graph>-savedmodel/1 beside the graph; returns the Comparison.

    Raises:
        InputError: no test images.
    """
    from convert.compare import convert_and_verify

    path = os.path.join(f"{os.path.splitext(reference.path)[0]}-savedmodel", VERSION)
    opener = partial(open_model, device=reference.device)
    return convert_and_verify(reference, path, partial(convert, reference), opener, "TensorFlow")


def convert(reference, folder):
    from src.tf1 import open_session, tf

    metadata = reference.predictor.metadata
    with tempfile.TemporaryDirectory() as scratch, tf.Graph().as_default():
        session = open_session(reference.device)
        names = [f"{metadata[role]['name']}:0" for role in ("input", "output")]
        image, output = tf.import_graph_def(reference.graph_def, name="", return_elements=names)
        probabilities = tf.nn.softmax(output, name="probabilities")
        labels = os.path.join(scratch, "labels.txt")
        with open(labels, "w", encoding="utf-8") as file:
            file.writelines(f"{name}\n" for name in metadata["classes"])
        builder = tf.saved_model.Builder(folder)
        outputs = {"output": output, "probabilities": probabilities}
        builder.add_meta_graph_and_variables(
            session,
            [tf.saved_model.tag_constants.SERVING],
            {"serving_default": tf.saved_model.predict_signature_def({"Image": image}, outputs)},
            assets_collection=[tf.constant(labels, name="labels")],
            strip_default_attrs=True,  # so that older TensorFlows can read it
        )
        builder.save()
        session.close()


def open_model(folder, device):
    """A SavedModel as a function, by its signature: float32 [n, img_size, img_size, 3] -> logits [n, classes]."""
    from src.tf1 import open_session, tf

    with tf.Graph().as_default():
        session = open_session(device)
        signature = tf.saved_model.load(session, ["serve"], folder).signature_def["serving_default"]
    image, output = signature.inputs["Image"].name, signature.outputs["output"].name
    return lambda images: session.run(output, {image: images})


if __name__ == "__main__":
    end_process(command("convert.pb2savedmodel", __doc__, lambda reference: [lambda: pb2savedmodel(reference)]))
