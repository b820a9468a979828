"""Freezes a network: builds its inference graph with the trained weights as constants."""

from collections import OrderedDict

import numpy as np

from models import build
from src.errors import InputError
from src.tf1 import tf
from utils.checkpoints.manager import assign
from utils.inference.exported import make_metadata
from utils.inference.predictor import Predictor


def frozen_graph(config, weights):
    """GraphDef of the network for inference, from `Image` to `output`, with its weights as constants."""
    with tf.Graph().as_default(), tf.Session(config=tf.ConfigProto(device_count={"GPU": 0})) as session:
        model = build(config, is4Train=False)
        variables = tf.global_variables()
        check_weights(variables, weights, config)
        assign(session, variables, weights)
        frozen = fold_constants(session, model.getInput(), model.getOutput())
    # Without attributes at their default values, older TensorFlows, which know fewer attributes, can read it.
    return tf.train.export_meta_graph(graph_def=frozen, strip_default_attrs=True).graph_def


def predictor_of(config, weights, origin, source):
    """The Predictor of a network that is not exported.

    Args:
        config, weights, origin: as for convert.export.freeze.
        source: its name in errors.
    """
    graph_def, metadata = frozen_graph(config, weights), make_metadata(config, origin)
    return Predictor(graph_def, metadata, source, config.device, trusted=True)


def fold_constants(session, image, output):
    """The graph from `image` to `output` with a constant for everything that does not depend on `image`.

    So a variable becomes its value, and the scale of a batch norm is multiplied into its kernel.
    """
    dependent = OrderedDict([(image.op, None)])
    for operation in session.graph.get_operations():  # in the order of creation: inputs first
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
    """Raise InputError unless every variable has a weight of its shape, without NaN or Inf."""
    for variable in variables:
        name, expected = variable.op.name, variable.shape.as_list()
        found = list(weights[name].shape) if name in weights else "none"
        if found != expected:
            network = f"a {config.model_arch} of {config.img_size} px and {config.total_class} classes"
            raise InputError("weights", f"{found} for {name}", f"shape {expected}, as in {network}")
        if not np.isfinite(weights[name]).all():
            raise InputError("weights", f"NaN or Inf in {name}", "trained weights")
