"""From trained weights to a frozen graph: one .pb file that needs neither this program nor a checkpoint."""

import json
import os
from collections import OrderedDict
from typing import Dict

import numpy as np

from models import build
from src.errors import InputError
from src.settings import settings
from src.tf1 import tf
from utils.checkpoints import Checkpoints, assign
from utils.files import make_writable, write_atomically
from utils.predictor import metadata_path


def freeze(config, weights: Dict[str, np.ndarray], origin: dict) -> str:
    """Write <model_arch>.pb, labels.txt and <model_arch>.json to config.weight_dir.

    Args:
        config: the settings of the run that learned the weights.
        weights: {variable name: array}, for every variable of the model; others are passed over.
        origin: {"val_acc": accuracy of these weights in validation, "run_folder": that of the run's pictures and logs,
            "checkpoint": its prefix}, each None if there is none.

    Returns:
        The path of the .pb file.

    Raises:
        InputError: the weights are not those of the model that config describes; unwritable folder.
    """
    make_writable("weight_dir", config.weight_dir)
    graph_def = frozen_graph(config, weights)
    path = graph_path(config)
    contents = {
        os.path.join(config.weight_dir, "labels.txt"): "".join(f"{name}\n" for name in config.classes),
        metadata_path(path): json.dumps(make_metadata(config, origin), indent=1) + "\n",
        path: graph_def.SerializeToString(deterministic=True),  # the same weights give the same bytes
    }
    write_atomically(contents)
    return path


def graph_path(config):
    """Where the frozen graph is written."""
    return os.path.join(config.weight_dir, f"{config.model_arch}.pb")


def frozen_graph(config, weights):
    """GraphDef of the network for inference, its weights as constants.

    It is built afresh, so it holds only what leads from `Image` to `output`.
    """
    with tf.Graph().as_default(), tf.Session(config=tf.ConfigProto(device_count={"GPU": 0})) as session:
        model = build(config, is4Train=False)
        variables = tf.global_variables()
        check_weights(variables, weights, config)
        assign(session, variables, weights)
        frozen = fold_constants(session, model.getInput(), model.getOutput())
    # Without attributes left at their defaults, older TensorFlows read it too: they know fewer attributes.
    return tf.train.export_meta_graph(graph_def=frozen, strip_default_attrs=True).graph_def


def make_metadata(config, origin):
    """What one must know to use the frozen graph, and where it comes from."""
    return {
        "model_arch": config.model_arch,
        "input": {"name": "Image", "shape": [None, config.img_size, config.img_size, config.numchannels]},
        "output": {"name": "output", "shape": [None, config.total_class]},
        "image_normalize_mean": list(config.image_normalize_mean),
        "image_normalize_std": list(config.image_normalize_std),
        "channel_order": config.channel_order,
        "classes": list(config.classes),
        "val_acc": origin["val_acc"],
        "run": {
            "train_path": config.train_path,
            "test_path": config.test_path,
            "run_folder": origin["run_folder"],
            "checkpoint": origin["checkpoint"],
        },
    }


def fold_constants(session, image, output):
    """The graph from `image` to `output` with a constant for everything that does not depend on `image`.

    So a variable becomes its value, and a kernel times the scale of its batch norm becomes one kernel.
    """
    dependent = OrderedDict([(image.op, None)])
    for operation in session.graph.get_operations():  # in the order they were made: inputs first
        if any(tensor.op in dependent for tensor in operation.inputs):
            dependent[operation] = None
    inputs = [tensor for operation in dependent for tensor in operation.inputs]
    constants = OrderedDict((tensor.op.name, tensor) for tensor in inputs if tensor.op not in dependent)
    nodes = [constant_node(name, value) for name, value in session.run(constants).items()]
    nodes += [operation.node_def for operation in dependent]
    graph_def = tf.GraphDef(node=nodes, versions=session.graph.as_graph_def().versions)
    return tf.graph_util.extract_sub_graph(graph_def, [output.op.name])


def constant_node(name, value):
    value = tf.make_tensor_proto(value)
    attributes = {"dtype": tf.AttrValue(type=value.dtype), "value": tf.AttrValue(tensor=value)}
    return tf.NodeDef(name=name, op="Const", attr=attributes)


def check_weights(variables, weights, config):
    """Raise InputError unless there is a weight of the right shape for every variable."""
    for variable in variables:
        name, expected = variable.op.name, variable.shape.as_list()
        found = list(weights[name].shape) if name in weights else "none"
        if found != expected:
            raise InputError(
                f"weights: found {found} for {name}, expected shape {expected}, as in a {config.model_arch} of "
                f"{config.img_size} px and {config.total_class} classes"
            )


def export_checkpoint(last: bool = False, **given):
    """Freeze a checkpoint of the newest run in checkpoint_dir, with the settings it was trained with.

    Args:
        last: the newest; if False, the one that was best in validation.
        given: model_arch, checkpoint_dir and weight_dir, where they differ from src/config.py.

    Returns:
        (path of the .pb file, origin of its weights as freeze takes it).

    Raises:
        InputError: no checkpoint there, or one that this program did not write; unwritable weight_dir.
    """
    now = settings(**given)
    checkpoints = Checkpoints(now.checkpoint_dir)
    prefix = checkpoints.newest()
    if not last:
        prefix = checkpoints.best(checkpoints.entry(prefix)["run_folder"]) or prefix
    config, weights, origin = checkpoints.load(prefix, weight_dir=now.weight_dir)
    return freeze(config, weights, origin), origin
