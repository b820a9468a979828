"""Weights of a MobileNetV2 in the HDF5 files of Keras, by the names of our variables.

Two layouts: that of the files which Keras Applications publishes and of `save_weights` in Keras 2, where the
attributes `layer_names` and `weight_names` say what is where; and that of Keras 3 (`.weights.h5`), which numbers the
layers of each kind in the order in which they were made.

HDF5 files can lead to other files, by links and by numbers that are kept elsewhere. Those of Keras do not, so none is
followed: it could be to any file, and to a pipe, which never ends.
"""

import os
import re

import h5py
import numpy as np

from models.mobilenetv2 import BOTTLENECKS, HEAD
from src.errors import InputError, first_line

# Width and image size in the name of a published file.
PUBLISHED = re.compile(r"_(0\.35|0\.5|0\.75|1\.0|1\.3|1\.4)_(96|128|160|192|224)(_no_top)?\.h5$")
LARGEST = 2**26  # numbers in an array
VARIABLES = ("gamma", "beta", "moving_mean", "moving_variance")  # of a batch norm, in Keras' order


def is_keras_file(path):
    """Whether it is to be read as one: by its name, as a damaged file is one, too."""
    return path.endswith((".h5", ".hdf5", ".keras"))


def expected_settings(path):
    """The settings of the images that these weights were learned from: colours as RGB, each x / 127.5 - 1.

    The names of published files also tell width and image size.
    """
    half = [0.5, 0.5, 0.5]
    found = {"image_normalize_mean": half, "image_normalize_std": half, "channel_order": "rgb"}
    published = PUBLISHED.search(path)
    if published:
        found.update(width=float(published.group(1)), img_size=int(published.group(2)))
    return found


def read_keras_weights(what, path):
    """{variable name: array} of a file. Raises InputError, naming `what`, if it has no weights of a MobileNetV2."""
    if not os.path.isfile(path):
        raise InputError(f"{what}: found no file {path}, expected weights of a MobileNetV2 of Keras")
    try:
        with h5py.File(path, "r") as file:
            layers, group = member(file, "layers"), member(file, "model_weights")
            weights = dict(by_name(group or file) if layers is None else by_number(layers))
    except Exception as error:  # h5py raises all kinds of errors on damaged files
        expected = f"expected an HDF5 file of Keras that can be read ({first_line(error)})"
        raise InputError(f"{what}: found {path}, {expected}") from error
    if not weights:
        raise InputError(f"{what}: found {path}, expected an HDF5 file with the weights of a MobileNetV2 of Keras")
    return weights


def by_name(group):
    """Pairs (variable name, array) where attributes name layers and their weights, each once."""
    seen = set()
    for layer in names(group, "layer_names"):
        scope = our_scope(layer)
        for name in names(found(group, layer), "weight_names") if scope else []:
            variable = name.split("/")[-1].split(":")[0].replace("depthwise_kernel", "kernel")
            if (scope, variable) in seen:  # thousands of times, perhaps
                raise ValueError(f"{layer}/{name} is named twice")
            seen.add((scope, variable))
            yield f"{scope}/{variable}", numbers(found(group, f"{layer}/{name}"))


def member(group, name):
    """What a group has under a name, None if nothing. Raises ValueError if it is a link to elsewhere."""
    links, key = group.id.links, name.encode("utf-8")
    if not links.exists(key):
        return None
    if links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{group.name}: {name} is a link, to this or another file")
    return group[name]


def found(group, path):
    """What is in a group, or in one below. Raises KeyError if it is not there, ValueError if it is elsewhere."""
    for name in filter(None, path.split("/")):
        group = member(group, name)
        if group is None:
            raise KeyError(f"there is no {path}")
    return group


def numbers(dataset):
    """The array in a dataset. Raises ValueError if it is none, or larger than any of a MobileNetV2."""
    if not np.issubdtype(dataset.dtype, np.floating) or dataset.size > LARGEST:
        raise ValueError(f"{dataset.name}: {dataset.dtype}, {dataset.size} numbers")
    layout = dataset.id.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise ValueError(f"{dataset.name}: its numbers are in another file")
    return np.array(dataset, np.float32)


def names(group, attribute):
    """A list of names in an attribute, or, if it is long, in several: layer_names0, layer_names1 and so on."""
    numbered = [key for key in group.attrs if re.fullmatch(attribute + r"\d+", key)]
    numbered.sort(key=lambda key: int(key[len(attribute) :]))
    parts = [attribute] if attribute in group.attrs else numbered
    found = [name for part in parts for name in group.attrs[part]]
    return [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in found]


def our_scope(layer):
    """The scope of our variables that corresponds to a layer of Keras, None if there is none."""
    layer = re.sub("^bn_|_(BN|bn)$", "", layer)
    fixed = {"Conv1": "first", "Conv_1": "last", "Logits": HEAD, "predictions": HEAD}
    block = re.fullmatch(r"(?:block_(\d+)|expanded_conv)_(expand|depthwise|project)", layer)
    return f"block{int(block.group(1) or 0) + 1}/{block.group(2)}" if block else fixed.get(layer)


def by_number(layers):
    """The same pairs where layers are numbered: conv2d, conv2d_1, depthwise_conv2d, and so on."""
    blocks = range(1, 1 + sum(n for _, _, n in BOTTLENECKS))
    parts = [f"block{block}/{part}" for block in blocks for part in ("expand", "depthwise", "project")]
    scopes = ["first"] + [part for part in parts if part != "block1/expand"] + ["last"]
    depthwise = [scope for scope in scopes if scope.endswith("depthwise")]
    for kind, ours, variables in (
        ("conv2d", [scope for scope in scopes if scope not in depthwise], ["kernel"]),
        ("depthwise_conv2d", depthwise, ["kernel"]),
        ("batch_normalization", scopes, VARIABLES),
        ("dense", [HEAD], ["kernel", "bias"]),
    ):
        numbered = sorted((name for name in layers if re.fullmatch(kind + r"(_\d+)?", name)), key=number)
        for scope, layer in zip(ours, numbered):
            for position, variable in enumerate(variables):
                yield f"{scope}/{variable}", numbers(found(layers, f"{layer}/vars/{position}"))


def number(layer):
    """That at the end of a name, 0 if there is none."""
    return int(re.search(r"(?:_(\d+))?$", layer.replace("conv2d", "")).group(1) or 0)
