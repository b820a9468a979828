"""Verifies that a converted model gives the same logits as the frozen graph it was made from."""

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
from src.system import replace
from src.tf1 import tf
from utils.files import partial_folder, remove_leftovers
from utils.inference.exported import (
    check_pair,
    describe_origin,
    graph_path,
    image_source,
    make_metadata,
    metadata_path,
    read_metadata,
)
from utils.inference.graph_def import read_graph
from utils.inference.predictor import Predictor

NUM_IMAGES = 1000  # test images that both models classify
INTERLEAVE = 50  # images that the models classify in turn, so that a busy moment of the machine slows both

# What is converted: its path, its GraphDef, its Predictor, the device that runs it, the ImageSource, the DataSet of
# test images on which logits are compared, and where these are.
ReferenceModel = namedtuple("ReferenceModel", "path graph_def predictor device source data where")

# How much a converted model may differ; None: by any amount.
#   difference: of two logits, relative to the largest logit of all. Within it, the class can differ only where the
#       graph's two best logits are closer than twice that.
#   same_class: fraction of the images that must get the same class, from MIN_ACCURACY_FOR_SAME_CLASS on.
#   accuracy_lost: how much lower the accuracy may be.
Tolerance = namedtuple("Tolerance", "difference same_class accuracy_lost")
FLOAT32 = Tolerance(difference=1e-3, same_class=None, accuracy_lost=None)
FLOAT16 = Tolerance(difference=1e-2, same_class=None, accuracy_lost=None)
INT8 = Tolerance(difference=None, same_class=0.95, accuracy_lost=0.015)
MIN_ACCURACY_FOR_SAME_CLASS = 0.60  # below it, many images are so close to a boundary that any change flips their class

# One line of the table. Of accuracy, sizes and seconds there are two: the converted model's and the frozen graph's.
Comparison = namedtuple("Comparison", "path runtime images difference same_class accuracy sizes seconds failure")
TABLE_ROW = "%-30s  %-19s %6s %10s %8s  %-15s  %-11s  %-13s %s"


def open_reference(graph=None, input=None, output=None, trust_graph=False, **overrides):
    """The ReferenceModel in a .pb file.

    Args:
        graph: its path; None: where training writes it.
        input, output: names in the graph. With both, no JSON is needed: the metadata then comes from src/config.py.
        trust_graph: accept any operations and sizes in the graph.
        overrides: settings; train_path, test_path and bad_images default to those of the run that made the graph.

    Raises:
        InputError: graph or metadata missing, corrupt, or not matching each other; no test images.
    """
    if graph is not None and "weight_dir" in overrides:
        raise InputError("--weight_dir", f"{overrides['weight_dir']} beside {graph}", "one of them")
    now = settings_for(SETTINGS, overrides)
    path = graph_path(now) if graph is None else graph
    remove_leftovers(os.path.dirname(path) or ".")
    graph_def, checksum = read_graph(path, trust_graph)
    metadata = find_metadata(path, overrides, input, output)
    check_pair(path, checksum, metadata)
    predictor = Predictor(graph_def, metadata, path, now.device, trust_graph)
    source = image_source(metadata, overrides, now)
    sample = read_sample("test_path", source, predictor.preprocess, NUM_IMAGES)
    return ReferenceModel(path, graph_def, predictor, now.device, source, *sample)


def find_metadata(graph, overrides, input, output):
    """The metadata in the JSON beside a graph, or of the settings if there is none; with these names, if not None."""
    path = metadata_path(graph)
    if os.path.exists(path):
        metadata = read_metadata(path)
    elif not (input and output):
        expected = "the JSON file that export writes beside the graph, or names by --input and --output"
        raise InputError(f"metadata {path}", "none", expected)
    else:
        config = settings(**overrides)
        if not config.classes:
            expected = "those of the graph's classes, as it has no JSON that names them"
            raise InputError("setting train_path", f"no class folders in {config.train_path}", expected)
        metadata = make_metadata(config, dict.fromkeys(("val_acc", "run_folder", "checkpoint", "fingerprint")))
    for role, name in (("input", input), ("output", output)):
        metadata[role]["name"] = name or metadata[role]["name"]
    return metadata


def convert_and_verify(reference, path, convert, open_model, runtime, tolerance=FLOAT32, count=NUM_IMAGES):
    """Convert, compare, and only then rename the result to `path`, or to `path` with "-failed" in its name.

    Args:
        reference: the ReferenceModel.
        path: of the file or folder to write.
        convert: convert(path) writes the converted model.
        open_model: open_model(path) returns a function: float32 [1, img_size, img_size, 3] -> logits [1, classes].
        runtime: name of what runs it.
        tolerance: a Tolerance.
        count: number of test images to compare on; all if there are fewer.

    Returns:
        The Comparison.

    Raises:
        InputError: it cannot be converted; nothing is written.
    """
    folder, name = os.path.split(path)
    beside = os.path.dirname(reference.path) or "."
    if os.path.islink(folder) and folder != beside:  # its target may belong to something else
        raise InputError(f"folder {folder}", "a symbolic link", "a folder or none")
    with partial_folder(beside) as scratch:
        partial = os.path.join(scratch, name)
        try:
            with quiet():  # converters print a lot
                convert(partial)
                model = open_model(partial)
            comparison = compare(reference, model, partial, runtime, tolerance, count)
            del model  # else it may have the file open, which Windows would not rename then
        except (InputError, OSError):
            raise
        except Exception as error:  # converters raise all kinds of errors
            found = f"an error in the conversion to {path} ({first_line(error)})"
            raise InputError(f"graph {reference.path}", found, "a graph that the converter supports") from error
        return comparison._replace(path=move_into_place(partial, path, comparison.failure))


def move_into_place(partial, path, failure):
    """Rename the converted model to `path`, or to that with "-failed" in its name; returns the new path.

    What was there is replaced; after a success, an earlier failed model is removed as well.
    """
    failed = "-failed".join(os.path.splitext(path))
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    kept = failed if failure else path
    if kept == path:
        move_if_exists(failed, os.path.dirname(partial))
    if os.path.isdir(kept):
        move_if_exists(kept, os.path.dirname(partial))
    replace(partial, kept)
    return kept


def move_if_exists(path, folder):
    if os.path.exists(path):
        replace(path, os.path.join(folder, f"previous-{os.path.basename(path)}"))


def compare(reference, model, path, runtime, tolerance=FLOAT32, count=NUM_IMAGES):
    """The Comparison of a model, stored at `path`, with the graph. Both get one image at a time."""
    logits, seconds = ([], []), ([], [])
    for batch in itertools.islice(reference.data.batches(INTERLEAVE), count // INTERLEAVE):
        for run, results, taken in zip((model, reference.predictor.logits), logits, seconds):
            for image in batch.images:
                start = time.perf_counter()
                results.append(run(image[np.newaxis]))
                taken.append(time.perf_counter() - start)
    found, expected = map(np.concatenate, logits)
    labels = reference.data.labels[:count]
    largest = np.abs(expected).max() or 1.0  # if all are zero, any difference counts in full
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
    """A sentence about what exceeds the tolerance, or None."""
    accuracy, reference_accuracy = comparison.accuracy
    is_class_compared = tolerance.same_class is not None and reference_accuracy > MIN_ACCURACY_FOR_SAME_CLASS
    if not np.isfinite(comparison.difference):
        return "logits contain NaN or Inf"
    if tolerance.difference is not None and comparison.difference > tolerance.difference:
        return f"logits differ by {comparison.difference:.2g} of the largest, expected at most {tolerance.difference:g}"
    if is_class_compared and comparison.same_class < tolerance.same_class:
        same, expected = 100 * comparison.same_class, 100 * tolerance.same_class
        return f"{same:.1f} % of the images get the same class, expected at least {expected:g} %"
    if tolerance.accuracy_lost is not None and reference_accuracy - accuracy > tolerance.accuracy_lost + 1e-9:
        allowed = 100 * tolerance.accuracy_lost
        return f"accuracy drops from {reference_accuracy:.4f} to {accuracy:.4f}, expected at most {allowed:g} points"
    return None


def size_of(path):
    """Bytes of a file, or of all files in a folder."""
    files = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names] or [path]
    return sum(map(os.path.getsize, files))


def run_conversions(reference, conversions):
    """Run the conversions, functions that each return a Comparison, and print them as a table.

    Returns:
        The ExitCode: PROBLEMS_FOUND if one exceeds its tolerance, BAD_INPUT if one raised InputError, which does not
        stop the others.
    """
    code = ExitCode.OK
    folder = os.path.dirname(reference.path) or "."
    heading = [
        f"Compared with {reference.path} in TensorFlow {tf.__version__} (in brackets) on " + reference.where,
        TABLE_ROW % (f"in {folder}", "runs in", "images", "difference", "same", "accuracy", "MB", "ms", "verdict"),
    ]
    for conversion in conversions:
        try:
            comparison = conversion()
        except InputError as error:
            print_error(error)
            code = ExitCode.BAD_INPUT
            continue
        if heading:
            print_note(describe_origin(reference.path, reference.predictor.metadata))
        for line in heading + [table_row(comparison, folder)]:
            say(escape_control_characters(line))
        heading = []
        if comparison.failure:
            print_error(f"{comparison.path} in {comparison.runtime}: {comparison.failure}")
            code = max(code, ExitCode.PROBLEMS_FOUND)
    for path in outdated(reference):
        print_note(f"{path} is older than the graph, so it was converted from another")
    return code


def outdated(reference):
    """Converted models beside the graph that are older than it."""
    stem = glob.escape(os.path.splitext(reference.path)[0])
    made = [
        path
        for end in (".tflite", "-*.tflite", ".onnx", "-*.onnx", "-savedmodel/*")
        for path in sorted(glob.glob(stem + end))
    ]
    return [path for path in made if os.path.getmtime(path) < os.path.getmtime(reference.path)]


def table_row(comparison, folder):
    return TABLE_ROW % (
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
