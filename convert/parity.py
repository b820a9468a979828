"""Proof that a converted model answers as the frozen graph it was made from."""
import glob
import itertools
import os
import sys
import tempfile
import time
from collections import namedtuple

import numpy as np

from convert.freeze import description, graph_path
from dataset import read_sample
from src.errors import InputError
from src.settings import settings
from src.tf1 import quiet, tf
from utils.commands import print_error
from utils.predictor import Predictor, description_path, image_settings, printable, read_description, read_graph

IMAGES = 1000  # test images that both models are asked about
TURN = 50  # images that one answers before it is the other's turn: so a busy moment of the machine slows both

# What is converted: its path, its Predictor, the settings that say where images are and how they are preprocessed, and
# the DataSet of test images on which answers are compared.
Original = namedtuple("Original", "path predictor config data")

# How much a converted model may differ: see `fault_in`.
Limits = namedtuple("Limits", "difference same_class accuracy_lost")
FLOAT32 = Limits(difference=1e-3, same_class=None, accuracy_lost=None)
FLOAT16 = Limits(difference=1e-2, same_class=None, accuracy_lost=None)
INT8 = Limits(difference=None, same_class=.95, accuracy_lost=.015)
GOOD = .60  # accuracy that a network must exceed for same_class to be asked of it: a poor one wavers at every touch

# One line of the table. Of accuracy, sizes and seconds there are two: the converted model's and the frozen graph's.
Parity = namedtuple("Parity", "path runtime images difference same_class accuracy sizes seconds fault")
ROW = "%-30s  %-19s %6s %10s %8s  %-15s  %-11s  %-13s %s"


def open_original(graph=None, input=None, output=None, **given):
    """The Original in a .pb file.

    Args:
        graph: its path; None: where training writes it.
        input, output: names in the graph. Given both, it needs no JSON beside it: src/config.py then says the rest.
        given: settings, among them train_path and test_path where not those of the run that made the graph.

    Raises:
        InputError: graph or description missing, damaged, or not in agreement; no test images.
    """
    if graph and "weight_dir" in given:
        raise InputError("--weight_dir: found %s beside %s, expected one of them" % (given["weight_dir"], graph))
    now = settings(**given)
    path = graph or graph_path(now)
    graph_def = read_graph(path)
    described = described_by(description_path(path), now, input, output)
    predictor = Predictor(graph_def, described, path)
    config = image_settings(described, given, now)
    return Original(path, predictor, config, read_sample("test_path", config, IMAGES))


def described_by(path, config, input, output):
    """What the JSON file beside a graph says, but for names that are given; without one, what `config` says."""
    if os.path.exists(path):
        described = read_description(path)
    elif not (input and output):
        raise InputError("description %s: found none, expected the JSON file that export writes beside the graph, or "
                         "the names of the graph's placeholder and logits by --input and --output" % path)
    elif not config.classes:
        raise InputError("setting train_path: found no class folders in %s, expected those of the classes that the "
                         "graph was trained for, as it has no JSON that names them" % config.train_path)
    else:
        described = description(config, {"val_acc": None, "run_folder": None, "checkpoint": None})
    for role, name in (("input", input), ("output", output)):
        described[role]["name"] = name or described[role]["name"]
    return described


def proven(original, path, convert, open_model, runtime, limits=FLOAT32, count=IMAGES):
    """Convert, compare, and only then give the result its name: `path`, or one with "-failed" in it.

    Args:
        original: the Original.
        path: of the file or folder to write.
        convert: convert(where) writes it there.
        open_model: open_model(where) gives a function that answers: [1, img_size, img_size, 3] -> logits [1, classes].
        runtime: what answers, in words.
        limits: how much may differ.
        count: that many test images are asked about, all if there are fewer.

    Returns:
        The Parity.

    Raises:
        InputError: it cannot be converted. Nothing is then written.
    """
    folder, name = os.path.split(path)
    with tempfile.TemporaryDirectory(prefix="partial-", dir=os.path.dirname(original.path) or ".") as scratch:
        partial = os.path.join(scratch, name)
        try:
            with quiet():  # converters are talkative
                convert(partial)
                model = open_model(partial)
            parity = compare(original, model, partial, runtime, limits, count)
        except (InputError, OSError):
            raise
        except Exception as error:  # converters raise all kinds of errors
            raise InputError("graph %s: cannot be converted to %s (%s)" % (original.path, path, first_line(error)))
        kept, failed = path, "-failed".join(os.path.splitext(path))
        os.makedirs(folder or ".", exist_ok=True)
        if parity.fault:
            kept = failed
        else:
            set_aside(failed, scratch)
        if os.path.isdir(kept):
            set_aside(kept, scratch)
        os.replace(partial, kept)
    return parity._replace(path=kept)


def set_aside(path, folder):
    """Move what has that name, if anything, into a folder."""
    if os.path.exists(path):
        os.rename(path, os.path.join(folder, "previous-" + os.path.basename(path)))


def compare(original, model, path, runtime, limits=FLOAT32, count=IMAGES):
    """The Parity of a model, which is in a file or folder, with the graph. Both are asked about one image at a time."""
    answers, seconds = ([], []), ([], [])
    for images, _, _, _ in itertools.islice(original.data.batches(TURN), count // TURN):
        for ask, answered, taken in zip((model, original.predictor.logits), answers, seconds):
            for image in images:
                start = time.perf_counter()
                answered.append(ask(image[np.newaxis]))
                taken.append(time.perf_counter() - start)
    found, expected = map(np.concatenate, answers)
    labels = original.data.labels[:count]
    largest = np.abs(expected).max() or 1.0  # all zero: then any difference is large
    parity = Parity(path, runtime, len(labels), np.abs(found - expected).max() / largest,
                    np.mean(found.argmax(axis=1) == expected.argmax(axis=1)),
                    [np.mean(logits.argmax(axis=1) == labels) for logits in (found, expected)],
                    [size_of(path), size_of(original.path)], [np.median(taken) for taken in seconds], None)
    return parity._replace(fault=fault_in(parity, limits))


def fault_in(parity, limits):
    """What exceeds the limits, in words, or None.

    limits.difference: of two logits, as a part of the largest logit there is. Within it, the class can differ only
        where the graph's two best logits are closer than twice that.
    limits.same_class: part of the images that must be given the same class, if the graph is GOOD.
    limits.accuracy_lost: part of the images, so many fewer may be given the right class.
    """
    accuracy, original_accuracy = parity.accuracy
    if not np.isfinite(parity.difference):
        return "logits are not all finite numbers"
    if limits.difference is not None and parity.difference > limits.difference:
        return "logits differ by %.2g of the largest, allowed are %g" % (parity.difference, limits.difference)
    if limits.same_class is not None and original_accuracy > GOOD and parity.same_class < limits.same_class:
        return "%.1f %% of the images get the same class, expected %g %%" % (100 * parity.same_class,
                                                                           100 * limits.same_class)
    if limits.accuracy_lost is not None and original_accuracy - accuracy > limits.accuracy_lost + 1e-9:
        return "accuracy falls from %.4f to %.4f, allowed are %g points" % (original_accuracy, accuracy,
                                                                          100 * limits.accuracy_lost)
    return None


def size_of(path):
    """Bytes of a file, or of all files in a folder."""
    files = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names] or [path]
    return sum(map(os.path.getsize, files))


def first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def report(original, conversions):
    """Do the conversions, functions that return a Parity each, and print the table of them.

    Returns:
        The exit code: 0 if all answer as the graph does, 1 if one does not, 2 if one could not be done; those that
        follow are done all the same.
    """
    code = 0
    folder = os.path.dirname(original.path) or "."
    heading = ["Compared with %s in TensorFlow %s (in brackets) on images of %s" % (
        original.path, tf.__version__, original.config.test_path),
        ROW % ("in " + folder, "runs in", "images", "difference", "same", "accuracy", "MB", "ms", "verdict")]
    for conversion in conversions:
        try:
            parity = conversion()
        except InputError as error:
            print_error(error)
            code = 2
            continue
        for line in heading + [row(parity, folder)]:
            print(printable(line), flush=True)
        heading = []
        if parity.fault:
            print_error("%s in %s: %s" % (parity.path, parity.runtime, parity.fault))
            code = max(code, 1)
    for path in outdated(original):
        print("note: %s is older than the graph, and so made of another" % printable(path), file=sys.stderr)
    return code


def outdated(original):
    """Conversions beside the graph that are older than it."""
    stem = glob.escape(os.path.splitext(original.path)[0])
    made = [path for end in (".tflite", "-*.tflite", ".onnx", "-*.onnx", "-savedmodel/*")
            for path in sorted(glob.glob(stem + end))]
    return [path for path in made if os.path.getmtime(path) < os.path.getmtime(original.path)]


def row(parity, folder):
    return ROW % (os.path.relpath(parity.path, folder), parity.runtime, parity.images,
                  "%.1e" % parity.difference, "%.1f %%" % (100 * parity.same_class),
                  "%.4f (%.4f)" % tuple(parity.accuracy),
                  "%.2f (%.2f)" % tuple(size / 1e6 for size in parity.sizes),
                  "%.2f (%.2f)" % tuple(1e3 * seconds for seconds in parity.seconds),
                  "FAILED" if parity.fault else "ok")
