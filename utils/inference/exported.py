"""The format of an exported graph: <model_arch>.pb, and its metadata, <model_arch>.json, beside it."""

import hashlib
import json
import os
import time
from collections import namedtuple

from src.errors import InputError
from src.rules import shortened
from src.settings import SETTINGS, check_recorded
from utils.files import is_plain, read_json
from utils.images.preprocess import EARLIER, Preprocess
from utils.inference.graph_def import read_graph

NEAR_CHANCE = 1.2  # times 1 / classes: an accuracy below it is hardly better than guessing

# Settings of the run that made a graph, which select the images to evaluate it on.
IMAGE_SETTINGS = ("train_path", "test_path", "bad_images", "valid_path", "validation_size", "seed")
# These settings, or others that were given instead; the classes; the fingerprint of the run's training and validation
# images; and whether test_path was given. What an earlier version did not record is None.
ImageSource = namedtuple("ImageSource", (*IMAGE_SETTINGS, "classes", "fingerprint", "is_test_path_given"))


def graph_path(config):
    """The path that a network is exported to."""
    return os.path.join(config.weight_dir, f"{config.model_arch}.pb")


def graph_file(path):
    """The path itself, or if it is a folder with one .pb file, that of the file."""
    found = [name for name in os.listdir(path) if name.endswith(".pb")] if os.path.isdir(path) else []
    return os.path.join(path, found[0]) if len(found) == 1 else path


def metadata_path(path):
    """The JSON file beside a .pb file."""
    return f"{os.path.splitext(path)[0]}.json"


def make_metadata(config, origin):
    """The metadata of an exported graph: how to use it, and its origin.

    Args:
        origin: {"val_acc": its validation accuracy, "run_folder": the folder of the run's figures and logs,
            "checkpoint": its prefix, "fingerprint": that of the run's images}; values may be None.
    """
    preprocess = Preprocess.of(config)
    preprocessing = preprocess.to_json()
    size, channels = preprocessing.pop("img_size"), preprocessing.pop("numchannels")
    return {
        "model_arch": config.model_arch,
        "input": {"name": "Image", "shape": [None, size, size, channels]},
        "output": {"name": "output", "shape": [None, config.total_class]},
        **preprocessing,
        "preprocessing": preprocess.describe(),
        "classes": list(config.classes),
        "val_acc": origin["val_acc"],
        "run": {
            **{name: getattr(config, name) for name in IMAGE_SETTINGS},
            **{name: origin[name] for name in ("run_folder", "checkpoint", "fingerprint")},
        },
    }


def exported_files(path, graph_def, metadata):
    """Both files, {path: content}, of a graph that is exported to `path`."""
    graph = graph_def.SerializeToString(deterministic=True)  # the same weights give the same bytes
    metadata = dict(metadata, graph_sha256=hashlib.sha256(graph).hexdigest())
    return {metadata_path(path): json.dumps(metadata, indent=1) + "\n", path: graph}


def describe_origin(path, metadata):
    """One line: which run's graph it is, when it was written, and its validation accuracy."""
    run = os.path.basename(metadata["run"].get("run_folder") or "") or "an unknown run"
    line = f"{path}: {metadata.get('model_arch', 'a graph')} of {run}"
    file = path if os.path.exists(path) else f"{path}.index"  # of a checkpoint
    if os.path.exists(file):
        line += time.strftime(", written %Y-%m-%d %H:%M", time.localtime(os.path.getmtime(file)))
    accuracy, classes = metadata.get("val_acc"), len(metadata["classes"])
    if not isinstance(accuracy, float) or not 0 <= accuracy <= 1:
        return line
    line += f", validation accuracy {accuracy:.4f}"
    if accuracy < NEAR_CHANCE / classes:
        line += f", hardly better than guessing one of {classes} classes; python run.py runs lists other runs"
    return line


def read_exported(path, trusted=False):
    """(GraphDef, metadata) of a .pb file with its JSON beside it.

    Args:
        trusted: allow operations outside SAFE_OPS.

    Raises:
        InputError: one of them is missing, corrupt, or does not match the other.
    """
    graph_def, checksum = read_graph(path, trusted)
    metadata = read_metadata(metadata_path(path))
    check_pair(path, checksum, metadata)
    return graph_def, metadata


def check_pair(path, checksum, metadata):
    """Raise InputError if a graph has not the checksum in its metadata, which older versions did not write."""
    if metadata.get("graph_sha256", checksum) != checksum:
        found = "a graph that does not match its JSON, or is corrupt"
        raise InputError(f"graph {path}", found, hint="python run.py export writes both again")


def read_metadata(path):
    """The validated JSON beside a frozen graph. Raises InputError if it is incomplete or invalid."""
    what = f"metadata {path}"
    metadata = read_json("metadata", path, "python run.py export writes it beside the graph")
    metadata = dict(EARLIER, **metadata) if isinstance(metadata, dict) else {}
    if not isinstance(metadata.get("model_arch", ""), str) or not is_plain(metadata.get("model_arch", "")):
        raise InputError(what, f"{shortened(metadata['model_arch'])} for model_arch", "the name of a network")
    classes = len(check_recorded(what, "classes", metadata.get("classes")))
    check_shape(what, metadata, "input", "[null, size, size, 3 or 1]", _is_image_shape)
    check_shape(what, metadata, "output", f"[null, {classes}], the number of classes", lambda rest: rest == [classes])
    preprocess_of(metadata, what)
    run = metadata.get("run") if isinstance(metadata.get("run"), dict) else {}
    metadata["run"] = {name: value for name, value in run.items() if is_valid_in_run(name, value)}
    return metadata


def is_valid_in_run(name, value):
    """Whether a field of the metadata's "run" can be used; others are ignored."""
    if isinstance(value, str) and not is_plain(value):
        return False
    return SETTINGS[name].is_valid(value) if name in IMAGE_SETTINGS else isinstance(value, str)


def preprocess_of(metadata, what):
    """The Preprocess in the metadata. Raises InputError, naming `what`, if it is invalid."""
    _, size, _, channels = metadata["input"]["shape"]
    return Preprocess.from_json(dict(metadata, img_size=size, numchannels=channels), what)


def _is_image_shape(rest):
    """Whether it is the rest of a shape, after the batch size, of square images in colour or grey."""
    return SETTINGS["img_size"].is_valid(rest[0]) and rest in ([rest[0], rest[0], 3], [rest[0], rest[0], 1])


def check_shape(what, metadata, role, expected, is_valid):
    """Raise InputError unless metadata[role] has a name, and a shape that is_valid after the batch size."""
    tensor = metadata.get(role) if isinstance(metadata.get(role), dict) else {}
    shape = tensor.get("shape")
    are_integers = isinstance(shape, list) and len(shape) > 1 and all(type(size) is int for size in shape[1:])
    if not (isinstance(tensor.get("name"), str) and are_integers and is_valid(shape[1:])):
        raise InputError(what, f"{shortened(metadata.get(role))} for {role}", f"a name and the shape {expected}")


def image_source(metadata, overrides, config):
    """The ImageSource of a graph: each setting from `overrides`, else from its run, else from `config`."""
    run = metadata["run"]
    values = {name: run.get(name) for name in (*IMAGE_SETTINGS, "fingerprint")}
    for name in ("train_path", "test_path", "bad_images"):
        values[name] = overrides.get(name, run.get(name, getattr(config, name, None)))
    return ImageSource(classes=metadata["classes"], is_test_path_given="test_path" in overrides, **values)
