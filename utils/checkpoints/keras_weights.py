"""Reads the weights of a MobileNetV2 from Keras' HDF5 files, under the names of our variables.

There are two layouts. In the files that Keras Applications publishes and that `save_weights` of Keras 2 writes, the
attributes `layer_names` and `weight_names` name the layers and weights. Keras 3 (`.weights.h5`) numbers the layers of
each type in the order of their creation.

HDF5 files can link to other files and keep arrays in them. Keras' do not, so such links are refused: they could lead to
any file, or to a pipe that never ends.
"""

import re

import h5py
import numpy as np

from models.mobilenetv2 import BOTTLENECKS, HEAD
from src.errors import InputError, first_line
from utils.checkpoints.keras_file import check_exists

MAX_ARRAY_SIZE = 2**26
BATCH_NORM_VARIABLES = ("gamma", "beta", "moving_mean", "moving_variance")  # in Keras' order


def read_keras_weights(what, path):
    """{variable name: array} of a file. Raises InputError, naming `what`, if it has no weights of a MobileNetV2."""
    check_exists(what, path)
    try:
        with h5py.File(path, "r") as file:
            layers, group = child(file, "layers"), child(file, "model_weights")
            weights = dict(weights_by_name(group or file) if layers is None else weights_by_number(layers))
    except Exception as error:  # h5py raises all kinds of errors on corrupt files
        raise InputError(what, path, f"a readable HDF5 file from Keras ({first_line(error)})") from error
    if not weights:
        raise InputError(what, path, "an HDF5 file with weights of a MobileNetV2 from Keras")
    return weights


def weights_by_name(group):
    """Pairs (variable name, array) where attributes name the layers and their weights, each once."""
    seen = set()
    for layer in read_names(group, "layer_names"):
        scope = scope_of(layer)
        for name in read_names(descendant(group, layer), "weight_names") if scope else []:
            variable = name.split("/")[-1].split(":")[0].replace("depthwise_kernel", "kernel")
            if (scope, variable) in seen:  # a crafted file could name it thousands of times
                raise ValueError(f"{layer}/{name} is named twice")
            seen.add((scope, variable))
            yield f"{scope}/{variable}", read_array(descendant(group, f"{layer}/{name}"))


def child(group, name):
    """The member of a group with that name, None if there is none. Raises ValueError if it is a link."""
    links, key = group.id.links, name.encode("utf-8")
    if not links.exists(key):
        return None
    if links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{group.name}: {name} is a link, to this or another file")
    return group[name]


def descendant(group, path):
    """The member of a group at a path. Raises KeyError if there is none, ValueError if a link is on the way."""
    for name in filter(None, path.split("/")):
        group = child(group, name)
        if group is None:
            raise KeyError(f"there is no {path}")
    return group


def read_array(dataset):
    """A dataset as float32. Raises ValueError if it is no float array, too large, or stored in another file."""
    if not np.issubdtype(dataset.dtype, np.floating) or dataset.size > MAX_ARRAY_SIZE:
        raise ValueError(f"{dataset.name}: {dataset.dtype}, {dataset.size} numbers")
    layout = dataset.id.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise ValueError(f"{dataset.name}: its numbers are in another file")
    return np.array(dataset, np.float32)


def read_names(group, attribute):
    """The names in an attribute; Keras splits long lists into layer_names0, layer_names1 and so on."""
    numbered = [key for key in group.attrs if re.fullmatch(attribute + r"\d+", key)]
    numbered.sort(key=lambda key: int(key[len(attribute) :]))
    parts = [attribute] if attribute in group.attrs else numbered
    found = [name for part in parts for name in group.attrs[part]]
    return [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in found]


def scope_of(layer):
    """The scope of our variables for a layer of Keras, None if there is none."""
    layer = re.sub("^bn_|_(BN|bn)$", "", layer)
    fixed = {"Conv1": "first", "Conv_1": "last", "Logits": HEAD, "predictions": HEAD}
    block = re.fullmatch(r"(?:block_(\d+)|expanded_conv)_(expand|depthwise|project)", layer)
    return f"block{int(block.group(1) or 0) + 1}/{block.group(2)}" if block else fixed.get(layer)


def weights_by_number(layers):
    """The same pairs where layers are numbered: conv2d, conv2d_1, depthwise_conv2d, and so on."""
    blocks = range(1, 1 + sum(n for _, _, n in BOTTLENECKS))
    parts = [f"block{block}/{part}" for block in blocks for part in ("expand", "depthwise", "project")]
    scopes = ["first"] + [part for part in parts if part != "block1/expand"] + ["last"]
    depthwise = [scope for scope in scopes if scope.endswith("depthwise")]
    for kind, ours, variables in (
        ("conv2d", [scope for scope in scopes if scope not in depthwise], ["kernel"]),
        ("depthwise_conv2d", depthwise, ["kernel"]),
        ("batch_normalization", scopes, BATCH_NORM_VARIABLES),
        ("dense", [HEAD], ["kernel", "bias"]),
    ):
        numbered = sorted((name for name in layers if re.fullmatch(kind + r"(_\d+)?", name)), key=layer_number)
        for scope, layer in zip(ours, numbered):
            for position, variable in enumerate(variables):
                yield f"{scope}/{variable}", read_array(descendant(layers, f"{layer}/vars/{position}"))


def layer_number(layer):
    """The number at the end of a layer's name, 0 if there is none."""
    return int(re.search(r"(?:_(\d+))?$", layer.replace("conv2d", "")).group(1) or 0)
