"""The layers in a file that Keras wrote, with their weights, and the configuration of its network if the file has it.

Networks can be nested in networks. There are two layouts of their weights, both in HDF5:

By name: the files that Keras Applications publishes, `save_weights` of Keras 2, and `save("x.h5")` of Keras 2 and 3.
The attributes `layer_names` and `weight_names` name the layers and weights; those of a nested network are in one list.

By number: `.weights.h5`, also within a `.keras` archive. Layers are numbered by their class, in the order of the
network: conv2d, conv2d_1, and so on, and weights 0, 1, and so on. Later Keras 3 adds the names of the layers; without
them, the configuration gives them, which a `.keras` archive contains.

A file may be crafted. HDF5 files can link to other files and keep arrays in them. Keras' do not, so such links are
refused: they could lead to any file, or to a pipe that never ends. Of an archive two members are read, into memory.
"""

import contextlib
import io
import json
import re
import zipfile
from collections import namedtuple

import h5py
import numpy as np

from src.errors import InputError, first_line

MAX_BYTES = 2**30  # of weights; width 1.4 with 1,000 classes and the state of Adam takes 75 MB
MAX_CONFIG_BYTES = 2**24  # a MobileNetV2's takes 0.2 MB
VARIABLES = {"batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance")}  # by number; in Keras' order

# networks: the names of those that the layer is in, from the outermost, without the network that the file is of.
# weights: {name: h5py.Dataset}, without prefixes and suffixes, such as "kernel"; empty for many layers.
Layer = namedtuple("Layer", "networks name weights")


@contextlib.contextmanager
def keras_layers(what, path):
    """Context manager: ([Layer, ...] of a file, its configuration or None); the weights can be read within the block.

    Raises:
        InputError: naming `what`, if the file cannot be read, also if that appears within the block.
    """
    try:
        with contextlib.ExitStack() as stack:
            config = None
            if zipfile.is_zipfile(path):
                archive = stack.enter_context(zipfile.ZipFile(path))
                config = json.loads(read_member(archive, "config.json", MAX_CONFIG_BYTES).decode("utf-8"))
                file = h5py.File(io.BytesIO(read_member(archive, "model.weights.h5", MAX_BYTES)), "r")
            else:
                file = h5py.File(path, "r")
            stack.enter_context(file)
            if "model_config" in file.attrs:
                config = json.loads(as_text(file.attrs["model_config"]))
            numbered, named = child(file, "layers"), child(file, "model_weights")
            if numbered is None:
                layers = layers_by_name(named or file)
            else:
                layers = layers_by_number(numbered, config or {}, set())
            yield list(layers), config
    except InputError:
        raise
    except Exception as error:  # h5py and zipfile raise all kinds of errors on corrupt files
        raise InputError(what, path, f"a readable file from Keras ({first_line(error)})") from error


def read_member(archive, name, limit):
    """The bytes of an archive's member. Raises ValueError if it is missing, too large, or compressed in a rare way."""
    if name not in archive.namelist():
        raise ValueError(f"there is no {name} in it")
    info = archive.getinfo(name)
    if info.file_size > limit:
        raise ValueError(f"{name}: {info.file_size} bytes, the most is {limit}")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others expand before they are cut off
        raise ValueError(f"{name}: compressed by method {info.compress_type}")
    with archive.open(info) as member:
        return member.read(info.file_size)  # no more, whatever the member expands to


def layers_by_name(group):
    """The layers where attributes name them and their weights."""
    for outer in read_names(group, "layer_names"):
        found = {}
        for name in read_names(descendant(group, outer), "weight_names"):
            *scopes, variable = name.split(":")[0].split("/")
            weights = found.setdefault(scopes[-1] if scopes else outer, {})
            variable = variable.replace("depthwise_kernel", "kernel")
            if variable in weights:  # a crafted file could name it thousands of times
                raise ValueError(f"{outer}/{name} is named twice")
            weights[variable] = descendant(group, f"{outer}/{name}")
        if len(found) < 2:
            yield Layer((), outer, next(iter(found.values()), {}))
        else:
            yield from (Layer((outer,), name, weights) for name, weights in found.items())


def layers_by_number(group, config, seen, networks=()):
    """The layers where they are numbered.

    Args:
        config: of their network; {}: unknown.
        seen: addresses of the groups that were visited: in a crafted file, a group could contain itself.
    """
    configs = numbered_configs(config)
    for key in sorted(group, key=layer_number):
        layer = child(group, key)
        address = h5py.h5o.get_info(layer.id).addr
        if address in seen:
            raise ValueError(f"{layer.name} is there twice")
        seen.add(address)
        nested, variables = child(layer, "layers"), child(layer, "vars")
        known = configs.get(key, {})
        name = known.get("config", {}).get("name") or (variables is not None and variables.attrs.get("name")) or key
        if nested is not None:
            yield from layers_by_number(nested, known, seen, (*networks, as_text(name)))
        elif variables is not None:
            kind = re.sub(r"_\d+$", "", key)
            names = VARIABLES.get(kind, ("kernel", "bias"))
            numbers = range(min(len(variables), len(names)))
            yield Layer(networks, as_text(name), {names[i]: child(variables, str(i)) for i in numbers})


def numbered_configs(config):
    """{key: configuration} of a network's layers, with the keys that Keras numbers them by: conv2d, conv2d_1."""
    found, counts = {}, {}
    for layer in config.get("config", {}).get("layers", []):
        kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", layer["class_name"])
        kind = re.sub("([a-z])([A-Z])", r"\1_\2", kind).lower()
        count = counts[kind] = counts.get(kind, -1) + 1
        found[f"{kind}_{count}" if count else kind] = layer
    return found


def layer_number(key):
    """The number at the end of a layer's key, 0 if there is none."""
    return int(re.search(r"(?:_(\d+))?$", key).group(1) or 0)


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


def read_arrays(datasets):
    """{name: array} of {name: dataset}, as float32. Raises ValueError if they are too large, or in another file."""
    size = sum(dataset.size for dataset in datasets.values())
    if 4 * size > MAX_BYTES:  # compressed, they can be in a small file
        raise ValueError(f"{size} numbers, the most is {MAX_BYTES // 4}")
    for dataset in datasets.values():
        layout = dataset.id.get_create_plist()
        if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
            raise ValueError(f"{dataset.name}: its numbers are in another file")
    return {name: np.array(dataset, np.float32) for name, dataset in datasets.items()}


def read_names(group, attribute):
    """The names in an attribute; Keras splits long lists into layer_names0, layer_names1 and so on."""
    numbered = [key for key in group.attrs if re.fullmatch(attribute + r"\d+", key)]
    numbered.sort(key=lambda key: int(key[len(attribute) :]))
    parts = [attribute] if attribute in group.attrs else numbered
    return [as_text(name) for part in parts for name in group.attrs[part]]


def as_text(name):
    """An attribute's string, which h5py returns as str or bytes."""
    return name.decode("utf-8") if isinstance(name, bytes) else str(name)
