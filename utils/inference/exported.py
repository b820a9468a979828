"""The format of an exported graph: <model_arch>.pb, and beside it <model_arch>.json, which says how to use it."""

import hashlib
import json
import os
from collections import namedtuple

from src.errors import InputError
from src.rules import shortened
from src.settings import SETTINGS, check_recorded
from utils.files import is_plain, read_json
from utils.images.preprocess import EARLIER, Preprocess
from utils.inference.graph_def import read_graph

# The settings that say which images belong to a graph: those of the run that made it, unless others are given.
ImageSource = namedtuple("ImageSource", "train_path test_path bad_images classes")


def graph_path(config):
    """Where a network is exported to."""
    return os.path.join(config.weight_dir, f"{config.model_arch}.pb")


def metadata_path(path):
    """The JSON file beside a .pb file."""
    return f"{os.path.splitext(path)[0]}.json"


def make_metadata(config, origin):
    """What one must know to use the graph, and where it comes from.

    Args:
        origin: {"val_acc": accuracy of its weights in validation, "run_folder": that of the run's pictures and logs,
            "checkpoint": its prefix}, each None if there is none.
    """
    preprocessing = Preprocess.of(config).to_json()
    size = preprocessing.pop("img_size")
    return {
        "model_arch": config.model_arch,
        "input": {"name": "Image", "shape": [None, size, size, config.numchannels]},
        "output": {"name": "output", "shape": [None, config.total_class]},
        **preprocessing,
        "classes": list(config.classes),
        "val_acc": origin["val_acc"],
        "run": {
            "train_path": config.train_path,
            "test_path": config.test_path,
            "bad_images": config.bad_images,
            "run_folder": origin["run_folder"],
            "checkpoint": origin["checkpoint"],
        },
    }


def exported_files(path, graph_def, metadata):
    """The contents of both files, {path: content}, for a graph that is to be at `path`."""
    graph = graph_def.SerializeToString(deterministic=True)  # the same weights give the same bytes
    metadata = dict(metadata, graph_sha256=hashlib.sha256(graph).hexdigest())
    return {metadata_path(path): json.dumps(metadata, indent=1) + "\n", path: graph}


def read_exported(path, trusted=False):
    """(GraphDef, metadata) of a .pb file with its JSON beside it.

    Args:
        trusted: take it even if it has operations that could do more than calculate.

    Raises:
        InputError: one of them is missing, damaged, or does not fit the other.
    """
    graph_def, checksum = read_graph(path, trusted)
    metadata = read_metadata(metadata_path(path))
    check_pair(path, checksum, metadata)
    return graph_def, metadata


def check_pair(path, checksum, metadata):
    """Raise InputError if a graph is not the one that its metadata, if of this version, describe."""
    if metadata.get("graph_sha256", checksum) != checksum:
        found = "found a graph that is not the one its JSON describes, or is damaged"
        raise InputError(f"graph {path}: {found}; python run.py export writes both again")


def read_metadata(path):
    """The JSON beside a frozen graph. Raises InputError unless it says all that is needed."""
    what = f"metadata {path}"
    metadata = read_json("metadata", path, ", expected the JSON file that export writes beside the graph")
    metadata = dict(EARLIER, **metadata) if isinstance(metadata, dict) else {}
    classes = len(check_recorded(what, "classes", metadata.get("classes")))
    check_shape(what, metadata, "input", "[null, size, size, 3]", _is_image_shape)
    check_shape(what, metadata, "output", f"[null, {classes}], the number of classes", lambda rest: rest == [classes])
    preprocess_of(metadata, what)
    run = metadata.get("run") if isinstance(metadata.get("run"), dict) else {}
    metadata["run"] = {name: text for name, text in run.items() if isinstance(text, str) and is_plain(text)}
    return metadata


def preprocess_of(metadata, what):
    """The Preprocess that metadata describe. Raises InputError, naming `what`, if they do not."""
    return Preprocess.from_json(dict(metadata, img_size=metadata["input"]["shape"][1]), what)


def _is_image_shape(rest):
    """Of a shape without its first number, that of the batch."""
    return SETTINGS["img_size"].is_valid(rest[0]) and rest == [rest[0], rest[0], 3]


def check_shape(what, metadata, role, expected, ok):
    """Raise InputError unless metadata[role] has a name and a shape that is ok without its first number."""
    tensor = metadata.get(role) if isinstance(metadata.get(role), dict) else {}
    shape = tensor.get("shape")
    are_integers = isinstance(shape, list) and len(shape) > 1 and all(type(size) is int for size in shape[1:])
    if not (isinstance(tensor.get("name"), str) and are_integers and ok(shape[1:])):
        found = f"found {shortened(metadata.get(role))} for {role}"
        raise InputError(f"{what}: {found}, expected a name and the shape {expected}")


def image_source(metadata, given, otherwise):
    """The ImageSource of a graph: paths and bad_images as given, else of its run, else as in `otherwise`, settings."""
    names = ("train_path", "test_path", "bad_images")
    values = [given.get(name, metadata["run"].get(name, getattr(otherwise, name, None))) for name in names]
    return ImageSource(*values, metadata["classes"])
