"""Make a SavedModel of a frozen graph, for servers, beside it, and prove that it gives the same answers.

TensorFlow 1.14 and 2.x read it, and TensorFlow Serving, given the folder <graph>-savedmodel as model_base_path. Its
signature serving_default takes Image and gives output, the logits, and probabilities; the classes are in
assets/labels.txt.
"""
import os
import sys
import tempfile

from convert.command import command

VERSION = "1"  # TensorFlow Serving wants a folder with a number in the model's folder


def pb2savedmodel(original):
    """Write the folder <graph>-savedmodel/1 beside the graph; returns the Parity.

    Raises:
        InputError: no test images.
    """
    from convert.parity import proven
    return proven(original, os.path.join(os.path.splitext(original.path)[0] + "-savedmodel", VERSION),
                  lambda folder: convert(original, folder), session, "TensorFlow")


def convert(original, folder):
    from src.tf1 import tf
    from utils.predictor import read_graph
    description = original.predictor.description
    with tempfile.TemporaryDirectory() as scratch, tf.Graph().as_default(), tf.Session() as session:
        image, output = tf.import_graph_def(read_graph(original.path), name="", return_elements=[
            description[role]["name"] + ":0" for role in ("input", "output")])
        probabilities = tf.nn.softmax(output, name="probabilities")
        labels = os.path.join(scratch, "labels.txt")
        with open(labels, "w", encoding="utf-8") as file:
            file.writelines(name + "\n" for name in description["classes"])
        builder = tf.saved_model.Builder(folder)
        builder.add_meta_graph_and_variables(
            session, [tf.saved_model.tag_constants.SERVING],
            {"serving_default": tf.saved_model.predict_signature_def(
                {"Image": image}, {"output": output, "probabilities": probabilities})},
            assets_collection=[tf.constant(labels, name="labels")],
            strip_default_attrs=True)  # so that older TensorFlows read it too
        builder.save()


def session(folder):
    """A SavedModel as a function, by its signature: float32 [n, img_size, img_size, 3] -> logits [n, classes]."""
    from src.tf1 import open_session, tf
    with tf.Graph().as_default():
        result = open_session("gpu")
        signature = tf.saved_model.load(result, ["serve"], folder).signature_def["serving_default"]
    image, output = signature.inputs["Image"].name, signature.outputs["output"].name
    return lambda images: result.run(output, {image: images})


if __name__ == "__main__":
    sys.exit(command("convert.pb2savedmodel", __doc__, lambda original: [lambda: pb2savedmodel(original)]))
