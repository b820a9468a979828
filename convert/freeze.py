"""From trained weights to a graph that needs no checkpoint: its variables become constants."""

from collections import OrderedDict

import numpy as np

from models import build
from src.errors import InputError
from src.tf1 import tf
from utils.checkpoints import assign


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
    """Raise InputError unless there is a weight of the right shape for every variable, and all are finite numbers."""
    for variable in variables:
        name, expected = variable.op.name, variable.shape.as_list()
        found = list(weights[name].shape) if name in weights else "none"
        if found != expected:
            raise InputError(
                f"weights: found {found} for {name}, expected shape {expected}, as in a {config.model_arch} of "
                f"{config.img_size} px and {config.total_class} classes"
            )
        if not np.isfinite(weights[name]).all():
            raise InputError(f"weights: found some in {name} that are no finite numbers, expected learned weights")
