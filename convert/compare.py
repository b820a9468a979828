"""Proof that a converted model gives the same logits as the frozen graph it was made from."""

import glob
import itertools
import os
import time
from collections import namedtuple

import numpy as np

from convert import SETTINGS
from dataset import read_sample
from src.console import escape_control_characters, print_error, print_note, quiet, say
from src.errors import ExitCode, InputError, first_line
from src.settings import settings, settings_for
from src.tf1 import tf
from utils.files import partial_folder, remove_leftovers
from utils.inference.exported import check_pair, graph_path, image_source, make_metadata, metadata_path, read_metadata
from utils.inference.graph_def import read_graph
from utils.inference.predictor import Predictor

IMAGES = 1000  # test images that both models classify
TURN = 50  # images that one classifies before it is the other's turn: so a busy moment of the machine slows both

# What is converted: its path, its GraphDef, its Predictor, the device that runs it, the ImageSource, and the DataSet of
# test images on which logits are compared.
ReferenceModel = namedtuple("ReferenceModel", "path graph_def predictor device source data")

# How much a converted model may differ; None: any amount.
#   difference: of two logits, as a part of the largest logit there is. Within it, the class can differ only where the
#       graph's two best logits are closer than twice that.
#   same_class: part of the images that must get the same class, if the graph is GOOD.
#   accuracy_lost: part of the images, how many fewer may be classified correctly.
Tolerance = namedtuple("Tolerance", "difference same_class accuracy_lost")
FLOAT32 = Tolerance(difference=1e-3, same_class=None, accuracy_lost=None)
FLOAT16 = Tolerance(difference=1e-2, same_class=None, accuracy_lost=None)
INT8 = Tolerance(difference=None, same_class=0.95, accuracy_lost=0.015)
GOOD = 0.60  # accuracy above which same_class is required: a poor network wavers at every touch

# One line of the table. Of accuracy, sizes and seconds there are two: the converted model's and the frozen graph's.
Comparison = namedtuple("Comparison", "path runtime images difference same_class accuracy sizes seconds failure")
ROW = "%-30s  %-19s %6s %10s %8s  %-15s  %-11s  %-13s %s"


def open_reference(graph=None, input=None, output=None, trust_graph=False, **given):
    """The ReferenceModel in a .pb file.

    Args:
        graph: its path; None: where training writes it.
        input, output: names in the graph. Given both, it needs no JSON beside it: src/config.py then says the rest.
        trust_graph: take it whatever operations it has, and whatever it takes of the machine.
        given: settings, among them train_path, test_path and bad_images where not those of the run that made the graph.

    Raises:
        InputError: graph or metadata missing, damaged, or not in agreement; no test images.
    """
    if graph is not None and "weight_dir" in given:
        raise InputError(f"--weight_dir: found {given['weight_dir']} beside {graph}, expected one of them")
    now = settings_for(SETTINGS, given)
    path = graph_path(now) if graph is None else graph
    remove_leftovers(os.path.dirname(path) or ".")
    graph_def, checksum = read_graph(path, trust_graph)
    metadata = find_metadata(path, given, input, output)
    check_pair(path, checksum, metadata)
    predictor = Predictor(graph_def, metadata, path, now.device, trust_graph)
    source = image_source(metadata, given, now)
    data = read_sample("test_path", source, predictor.preprocess, IMAGES)
    return ReferenceModel(path, graph_def, predictor, now.device, source, data)


def find_metadata(graph, given, input, output):
    """The metadata in the JSON file beside a graph, but for names that are given; without one, as the settings say."""
    path = metadata_path(graph)
    if os.path.exists(path):
        metadata = read_metadata(path)
    elif not (input and output):
        expected = "expected the JSON file that export writes beside the graph, or names by --input and --output"
        raise InputError(f"metadata {path}: found none, {expected}")
    else:
        config = settings(**given)
        if not config.classes:
            expected = "expected those of the graph's classes, as it has no JSON that names them"
            raise InputError(f"setting train_path: found no class folders in {config.train_path}, {expected}")
        metadata = make_metadata(config, {"val_acc": None, "run_folder": None, "checkpoint": None})
    for role, name in (("input", input), ("output", output)):
        metadata[role]["name"] = name or metadata[role]["name"]
    return metadata


def convert_and_verify(reference, path, convert, open_model, runtime, tolerance=FLOAT32, count=IMAGES):
    """Convert, compare, and only then give the result its name: `path`, or one with "-failed" in it.

    Args:
        reference: the ReferenceModel.
        path: of the file or folder to write.
        convert: convert(where) writes it there.
        open_model: open_model(where) gives a function: [1, img_size, img_size, 3] -> logits [1, classes].
        runtime: its name.
        tolerance: how much may differ.
        count: of test images to compare on; all if there are fewer.

    Returns:
        The Comparison.

    Raises:
        InputError: it cannot be converted. Nothing is then written.
    """
    folder, name = os.path.split(path)
    beside = os.path.dirname(reference.path) or "."
    if os.path.islink(folder) and folder != beside:  # what is there may be somebody else's
        raise InputError(f"folder {folder}: found a symbolic link, expected a folder or none")
    with partial_folder(beside) as scratch:
        partial = os.path.join(scratch, name)
        try:
            with quiet():  # converters are talkative
                convert(partial)
                model = open_model(partial)
            comparison = compare(reference, model, partial, runtime, tolerance, count)
        except (InputError, OSError):
            raise
        except Exception as error:  # converters raise all kinds of errors
            raise InputError(f"graph {reference.path}: cannot be converted to {path} ({first_line(error)})") from error
        return comparison._replace(path=take_name(partial, path, comparison.failure))


def take_name(partial, path, failure):
    """Give what was converted its name, `path`, or one with "-failed" in it; returns that. What it replaces goes."""
    failed = "-failed".join(os.path.splitext(path))
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    kept = failed if failure else path
    if kept == path:
        set_aside(failed, os.path.dirname(partial))
    if os.path.isdir(kept):
        set_aside(kept, os.path.dirname(partial))
    os.replace(partial, kept)
    return kept


def set_aside(path, folder):
    """Move what has that name, if anything, into a folder."""
    if os.path.exists(path):
        os.rename(path, os.path.join(folder, f"previous-{os.path.basename(path)}"))


def compare(reference, model, path, runtime, tolerance=FLOAT32, count=IMAGES):
    """The Comparison of a model, which is in a file or folder, with the graph. Both get one image at a time."""
    logits, seconds = ([], []), ([], [])
    for batch in itertools.islice(reference.data.batches(TURN), count // TURN):
        for run, results, taken in zip((model, reference.predictor.logits), logits, seconds):
            for image in batch.images:
                start = time.perf_counter()
                results.append(run(image[np.newaxis]))
                taken.append(time.perf_counter() - start)
    found, expected = map(np.concatenate, logits)
    labels = reference.data.labels[:count]
    largest = np.abs(expected).max() or 1.0  # all zero: then any difference is large
    comparison = Comparison(
        path,
        runtime,
        len(labels),
        np.abs(found - expected).max() / largest,
        np.mean(found.argmax(axis=1) == expected.argmax(axis=1)),
        [np.mean(rows.argmax(axis=1) == labels) for rows in (found, expected)],
        [size_of(path), size_of(reference.path)],
        [np.median(taken) for taken in seconds],
        None,
    )
    return comparison._replace(failure=exceeded_tolerance(comparison, tolerance))


def exceeded_tolerance(comparison, tolerance):
    """What exceeds the tolerance, in words, or None."""
    accuracy, reference_accuracy = comparison.accuracy
    if not np.isfinite(comparison.difference):
        return "logits are not all finite numbers"
    if tolerance.difference is not None and comparison.difference > tolerance.difference:
        return f"logits differ by {comparison.difference:.2g} of the largest, allowed are {tolerance.difference:g}"
    if tolerance.same_class is not None and reference_accuracy > GOOD and comparison.same_class < tolerance.same_class:
        same, expected = 100 * comparison.same_class, 100 * tolerance.same_class
        return f"{same:.1f} % of the images get the same class, expected {expected:g} %"
    if tolerance.accuracy_lost is not None and reference_accuracy - accuracy > tolerance.accuracy_lost + 1e-9:
        allowed = 100 * tolerance.accuracy_lost
        return f"accuracy falls from {reference_accuracy:.4f} to {accuracy:.4f}, allowed are {allowed:g} points"
    return None


def size_of(path):
    """Bytes of a file, or of all files in a folder."""
    files = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names] or [path]
    return sum(map(os.path.getsize, files))


def report(reference, conversions):
    """Do the conversions, functions that return a Comparison each, and print the table of them.

    Returns:
        The ExitCode: PROBLEMS_FOUND if one does not agree with the graph, BAD_INPUT if one could not be done; the
        others are done all the same.
    """
    code = ExitCode.OK
    folder = os.path.dirname(reference.path) or "."
    heading = [
        f"Compared with {reference.path} in TensorFlow {tf.__version__} (in brackets) on images of "
        + reference.source.test_path,
        ROW % (f"in {folder}", "runs in", "images", "difference", "same", "accuracy", "MB", "ms", "verdict"),
    ]
    for conversion in conversions:
        try:
            comparison = conversion()
        except InputError as error:
            print_error(error)
            code = ExitCode.BAD_INPUT
            continue
        for line in heading + [row(comparison, folder)]:
            say(escape_control_characters(line))
        heading = []
        if comparison.failure:
            print_error(f"{comparison.path} in {comparison.runtime}: {comparison.failure}")
            code = max(code, ExitCode.PROBLEMS_FOUND)
    for path in outdated(reference):
        print_note(f"{path} is older than the graph, so it was made from another")
    return code


def outdated(reference):
    """Conversions beside the graph that are older than it."""
    stem = glob.escape(os.path.splitext(reference.path)[0])
    made = [
        path
        for end in (".tflite", "-*.tflite", ".onnx", "-*.onnx", "-savedmodel/*")
        for path in sorted(glob.glob(stem + end))
    ]
    return [path for path in made if os.path.getmtime(path) < os.path.getmtime(reference.path)]


def row(comparison, folder):
    return ROW % (
        os.path.relpath(comparison.path, folder),
        comparison.runtime,
        comparison.images,
        f"{comparison.difference:.1e}",
        f"{100 * comparison.same_class:.1f} %",
        "{:.4f} ({:.4f})".format(*comparison.accuracy),
        "{:.2f} ({:.2f})".format(*(size / 1e6 for size in comparison.sizes)),
        "{:.2f} ({:.2f})".format(*(1e3 * seconds for seconds in comparison.seconds)),
        "FAILED" if comparison.failure else "ok",
    )
