"""From trained weights to a frozen graph: one .pb file that needs neither this program nor a checkpoint."""
import json
import os
from collections import OrderedDict

from models import build
from src.errors import InputError
from src.settings import settings
from src.tf1 import tf
from utils.checkpoints import assign, best, described, newest, read_weights
from utils.files import make_writable, write_whole
from utils.predictor import description_path


def freeze(config, weights, origin):
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
    write_whole(OrderedDict([
        (os.path.join(config.weight_dir, "labels.txt"), "".join(name + "\n" for name in config.classes)),
        (description_path(path), json.dumps(description(config, origin), indent=1) + "\n"),
        (path, graph_def.SerializeToString())]))
    return path


def graph_path(config):
    """Where the frozen graph is written."""
    return os.path.join(config.weight_dir, config.model_arch + ".pb")


def frozen_graph(config, weights):
    """GraphDef of the network that predicts, its weights as constants.

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


def description(config, origin):
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
        "run": {"train_path": config.train_path, "test_path": config.test_path, "run_folder": origin["run_folder"],
                "checkpoint": origin["checkpoint"]},
    }


def fold_constants(session, image, output):
    """The graph from `image` to `output` with a constant for everything that does not depend on `image`.

    So a variable becomes its value, and a kernel times the scale of its batch norm becomes one kernel.
    """
    dependent = OrderedDict([(image.op, None)])
    for operation in session.graph.get_operations():  # in the order they were made: inputs first
        if any(tensor.op in dependent for tensor in operation.inputs):
            dependent[operation] = None
    constant = OrderedDict((tensor.op.name, tensor) for operation in dependent for tensor in operation.inputs
                           if tensor.op not in dependent)
    nodes = [constant_node(name, value) for name, value in session.run(constant).items()]
    nodes += [operation.node_def for operation in dependent]
    graph_def = tf.GraphDef(node=nodes, versions=session.graph.as_graph_def().versions)
    return tf.graph_util.extract_sub_graph(graph_def, [output.op.name])


def constant_node(name, value):
    value = tf.make_tensor_proto(value)
    return tf.NodeDef(name=name, op="Const", attr={"dtype": tf.AttrValue(type=value.dtype),
                                                   "value": tf.AttrValue(tensor=value)})


def check_weights(variables, weights, config):
    """Raise InputError unless there is a weight of the right shape for every variable."""
    for variable in variables:
        name, expected = variable.op.name, variable.shape.as_list()
        found = list(weights[name].shape) if name in weights else "none"
        if found != expected:
            raise InputError("weights: found %s for %s, expected shape %s, as in a %s of %d px and %d classes"
                             % (found, name, expected, config.model_arch, config.img_size, config.total_class))


def export_checkpoint(last=False, **given):
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
    prefix = newest(now.checkpoint_dir)
    if not last:
        prefix = best(now.checkpoint_dir, described(prefix)["run_folder"]) or prefix
    config, weights, origin = contents(prefix, weight_dir=now.weight_dir)
    return freeze(config, weights, origin), origin


def contents(prefix, **changed):
    """(settings, but for what is `changed`; weights; origin, as freeze takes it) of a checkpoint that training wrote.

    Raises:
        InputError: there is none, or it cannot be read, or its folder's record does not describe it.
    """
    weights = read_weights("checkpoint", prefix)
    entry = described(prefix)
    if entry is None:
        raise InputError("checkpoint %s: found no description of it in run.json, expected one that training wrote there"
                         % prefix)
    return settings(**dict(entry["settings"], **changed)), weights, dict(entry, checkpoint=prefix)
