"""Asking a frozen graph: its .pb and the JSON beside it are all that is needed."""
import argparse
import json
import os
import sys

import numpy as np
from tqdm import tqdm

from dataset import EXTENSIONS, normalization_table, preprocess, read_ahead, read_fitting
from src.errors import InputError
from src.settings import RULES
from src.tf1 import open_session, tf

BATCH = 100  # images in one session.run


class Predictor(object):
    """Classifies images with a frozen graph. Owns its graph and its session.

    Args:
        graph_def: the frozen graph.
        description: what its JSON says, as a dict.
        source: its name in errors.

    Raises:
        InputError: not a graph, or not the one described.
    """

    def __init__(self, graph_def, description, source):
        self.source = source
        self.description = description
        self.classes = description["classes"]
        self.img_size = description["input"]["shape"][1]
        self._table = normalization_table(description["image_normalize_mean"], description["image_normalize_std"])
        with tf.Graph().as_default() as graph:
            try:
                tf.import_graph_def(graph_def, name="")
            except Exception as error:  # TensorFlow raises all kinds of errors on a damaged graph
                raise InputError("graph %s: cannot be built (%s)" % (source, str(error).splitlines()[0]))
            self._input, self._output = (tensor_in(graph, description[role], source) for role in ("input", "output"))
            self._session = open_session("gpu")
        self._check_answer()

    def _check_answer(self):
        """Raise InputError unless there is a row of logits for an image: a graph from elsewhere may want other things."""
        try:
            answer = self.logits(np.zeros([1, self.img_size, self.img_size, 3], np.float32))
        except Exception as error:  # TensorFlow raises all kinds of errors
            raise InputError("graph %s: does not answer when fed one float32 image (%s)"
                             % (self.source, str(error).splitlines()[0]))
        if answer.shape != (1, len(self.classes)):
            raise InputError("graph %s: found an answer of shape %s to one image, expected [1, %d]"
                             % (self.source, list(answer.shape), len(self.classes)))

    def logits(self, images):
        """float32 [n, img_size, img_size, 3] as preprocess makes them -> float32 [n, classes]."""
        return self._session.run(self._output, {self._input: images})

    def classify(self, paths):
        """For each image file, in order: (path, probabilities: float64 [classes]); an InputError for a broken one."""
        for images, readable in read_ahead(self._read, (paths[i:i + BATCH] for i in range(0, len(paths), BATCH))):
            found = iter(softmax(self.logits(images)) if len(images) else [])
            for path, error in readable:
                yield path, error or next(found)

    def _read(self, paths):
        """(the images that can be read, normalized; [(path, None or what is wrong with it)])."""
        images, readable = [], []
        for path in paths:
            try:
                images.append(read_fitting(path, self.img_size))
                readable.append((path, None))
            except InputError as error:
                readable.append((path, error))
        if images:
            images = preprocess(images, self.img_size, self.description["channel_order"], self._table)
        return images, readable


def softmax(logits):
    """Probabilities, float64, of logits [n, classes]."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def load(path):
    """The Predictor of a .pb file with its JSON beside it.

    Raises:
        InputError: one of them is missing, damaged, or does not fit the other.
    """
    return Predictor(read_graph(path), read_description(description_path(path)), path)


def description_path(path):
    """The JSON file beside a .pb file."""
    return os.path.splitext(path)[0] + ".json"


def read_graph(path):
    """The GraphDef in a .pb file. Raises InputError if there is none."""
    graph_def = tf.GraphDef()
    try:
        with open(path, "rb") as file:
            graph_def.ParseFromString(file.read())
    except OSError as error:
        raise InputError("graph %s: cannot be read (%s); training and python run.py export write one"
                         % (path, error.strerror))
    except Exception:  # protobuf's DecodeError is another class in each of its versions
        raise InputError("graph %s: found a file that is damaged, cut short or no graph, expected one that export wrote"
                         % path)
    return graph_def


def read_description(path):
    """What the JSON beside a frozen graph says. Raises InputError unless it says all that is needed."""
    try:
        with open(path, encoding="utf-8") as file:
            description = json.load(file)
    except OSError as error:
        raise InputError("description %s: cannot be read (%s), expected the JSON file that export writes beside the "
                         "graph" % (path, error.strerror))
    except (ValueError, RecursionError):
        raise InputError("description %s: found a file that is not JSON, expected what export writes beside the graph"
                         % path)
    for name in ("classes", "channel_order", "image_normalize_mean", "image_normalize_std"):
        value = description.get(name) if isinstance(description, dict) else None
        if not RULES[name].ok(value):
            raise InputError("description %s: found %r for %s, expected %s" % (path, value, name, RULES[name].expected))
    for role, right, expected in (
            ("input", lambda shape: RULES["img_size"].ok(shape[1]) and shape[1:] == [shape[1], shape[1], 3],
             "[null, size, size, 3]"),
            ("output", lambda shape: shape[1:] == [len(description["classes"])],
             "[null, %d], the number of classes" % len(description["classes"]))):
        found = description.get(role)
        if not (isinstance(found, dict) and isinstance(found.get("shape"), list) and len(found["shape"]) > 1
                and isinstance(found.get("name"), str) and right(found["shape"])):
            raise InputError("description %s: found %r for %s, expected a name and the shape %s"
                             % (path, found, role, expected))
    run = description.get("run")
    description["run"] = {name: value for name, value in run.items() if isinstance(value, str) and "\0" not in value
                          } if isinstance(run, dict) else {}
    return description


def image_settings(description, given, otherwise):
    """The settings that say where the images for a described graph are, and how they are preprocessed.

    train_path and test_path are those given, else those of the run that made the graph, else those in `otherwise`.
    """
    paths = {name: given.get(name, description["run"].get(name, getattr(otherwise, name)))
             for name in ("train_path", "test_path")}
    names = ("classes", "image_normalize_mean", "image_normalize_std", "channel_order")
    return argparse.Namespace(img_size=description["input"]["shape"][1], seed=0, **dict(
        paths, **{name: description[name] for name in names}))


def tensor_in(graph, described, source):
    """The tensor of that name. Raises InputError if the graph has none, or one of another shape or type."""
    try:
        tensor = graph.get_tensor_by_name("%s:0" % described["name"])
    except (KeyError, ValueError, TypeError):
        operations = graph.get_operations()
        placeholders = " ".join(operation.name for operation in operations if operation.type == "Placeholder")
        raise InputError("graph %s: found no operation %r in it; its placeholders are: %s; its last operation: %s" % (
            source, described["name"], placeholders, operations[-1].name if operations else ""))
    if tensor.dtype != tf.float32:
        raise InputError("graph %s: found %s for %s, expected float32" % (source, tensor.dtype.name, described["name"]))
    if not tensor.shape.is_compatible_with([None] + described["shape"][1:]):
        raise InputError("graph %s: found shape %s for %s, expected %s as in its description"
                         % (source, tensor.shape, described["name"], described["shape"]))
    return tensor


def printable(text):
    """Without what would break the line or upset the terminal, such as in names of files."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def show(predictor, paths, top, as_json):
    """Print what is in each image: a table, or a line of JSON each. Returns how many could not be read.

    Args:
        top: so many classes for each image, the most probable first.
    """
    top = min(top, len(predictor.classes))
    name_width = max(map(len, predictor.classes))
    path_width = max(len(printable(path)) for path in paths)
    broken = 0
    with tqdm(total=len(paths), unit="images", disable=None, leave=False, dynamic_ncols=True) as bar:
        for path, found in predictor.classify(paths):
            if isinstance(found, InputError):
                broken += 1
                tqdm.write("error: " + printable(str(found)), file=sys.stderr)
            else:
                best = [(predictor.classes[index], found[index]) for index in found.argsort()[::-1][:top]]
                tqdm.write(json.dumps({"image": path, "predictions": [
                    {"class": name, "probability": round(share, 6)} for name, share in best]}) if as_json else
                    printable(path).ljust(path_width) + "".join("  %s %5.1f %%" % (name.ljust(name_width), 100 * share)
                                                     for name, share in best))
            bar.update()
    return broken


def images_in(path):
    """Image files: [path] itself, or all below a folder, sorted. Raises InputError if there is none."""
    if not os.path.isdir(path):
        return [path]
    files = [os.path.join(folder, name) for folder, _, names in sorted(os.walk(path)) for name in sorted(names)
             if name.lower().endswith(EXTENSIONS) and not name.startswith(".")]
    if not files:
        raise InputError("folder %s: found no images, expected some ending in %s" % (path, " ".join(EXTENSIONS)))
    return files
