"""The command evaluate: write a network's metrics, predictions and mistakes on the test images."""

import contextlib
import os

import cv2
import numpy as np

from convert.freeze import predictor_of
from dataset import read_test_set
from src.console import escape_control_characters, print_note, suppress_stderr
from src.errors import InputError
from src.system import end_on_broken_pipe
from utils.checkpoints.manager import CheckpointManager
from utils.checkpoints.run_index import new_run_folder, settings_of_run
from utils.files import is_in, make_writable, write_atomically
from utils.images.decode import read_image
from utils.images.plots import draw_confusion, draw_grid, draw_precision_recall, escape_label
from utils.inference.evaluation import as_json, as_text, evaluate, most_confused, precision_recall, predictions_csv
from utils.inference.explain import Explainer, draw_explained_mistakes
from utils.inference.exported import describe_origin, graph_path, image_source
from utils.inference.html_report import render_html
from utils.inference.predictor import Predictor
from utils.progress import progress
from utils.training.tensorboard import log_mistakes

MISTAKES = 24  # in the figure
EXPLAINED = 6  # of them, with heat maps
MAX_PRINTED = 20  # classes of a confusion matrix on the terminal
MAX_DRAWN = 100  # classes in confusion.png if there are too many for a matrix of all
MAX_CURVES = 10  # classes in precision_recall.png


def run(config, overrides, weights=None, checkpoint=None, flip=False, trust_graph=False):
    """Evaluate a frozen graph or a checkpoint, print the metrics, and write the files to its run's folder.

    Args:
        config: the settings of the command.
        overrides: those on the command line; the others are those of the graph's run.
        weights, checkpoint, flip, trust_graph: the options of these names.

    Raises:
        InputError: the graph or the images are invalid, or, once the metrics are printed, the files cannot be written.
    """
    end_on_broken_pipe()
    predictor = open_predictor(config, weights, checkpoint, trust_graph)
    source = image_source(predictor.metadata, overrides, config)
    data, where = read_test_set(source, predictor.preprocess)
    probabilities, mirrored = predict_dataset(predictor, data, flip)
    print_note(describe_origin(predictor.source, predictor.metadata))
    evaluation = evaluate(data.labels, probabilities, predictor.classes, mirrored)
    try:  # the files first, which a reader that ends early, as in `| head`, must not prevent
        folder = report_folder(predictor, source, config)
        write_report(folder, predictor, data, probabilities, evaluation, where, config.checkpoint_dir)
    finally:
        print(f"{heading_of(predictor, where)}\n{as_text(evaluation, MAX_PRINTED)}", flush=True)
    print(f"written to {folder}: report.html, evaluation.txt, evaluation.json, predictions.csv and figures")


def report_folder(predictor, source, config):
    """The folder of the graph's run; for a graph from elsewhere a new one."""
    folder = predictor.metadata["run"].get("run_folder")
    if not is_in(config.tensorboard_dir, folder):
        folder = new_run_folder(config.tensorboard_dir, source.test_path, config.checkpoint_dir)
    make_writable("tensorboard_dir", folder)
    return folder


def heading_of(predictor, where):
    return escape_control_characters(f"{predictor.source} on {where}")


def write_report(folder, predictor, data, probabilities, evaluation, where, checkpoint_dir):
    """Write all files."""
    heading = heading_of(predictor, where)
    files = {
        "evaluation.txt": f"{heading}\n{as_text(evaluation)}",
        "evaluation.json": as_json(evaluation, model=predictor.source, test_path=where),
        "predictions.csv": predictions_csv(data.paths, data.labels, probabilities, predictor.classes),
    }
    write_atomically({os.path.join(folder, name): content for name, content in files.items()})
    draw_evaluation(folder, evaluation, data.labels, probabilities)
    report_mistakes(folder, predictor, data, probabilities)
    write_html(folder, predictor, evaluation, heading, checkpoint_dir)


def open_predictor(config, weights, checkpoint, trust_graph):
    """The Predictor of a checkpoint if given, else of a frozen graph."""
    if checkpoint is None:
        return Predictor(graph_path(config) if weights is None else weights, device=config.device, trusted=trust_graph)
    if os.path.isdir(checkpoint):  # of a run
        run = CheckpointManager(checkpoint)
        checkpoint = run.best() or run.latest() or checkpoint
    trained = CheckpointManager(os.path.dirname(checkpoint)).load(checkpoint, device=config.device)
    return predictor_of(*trained, checkpoint)


def write_html(folder, predictor, evaluation, heading, checkpoint_dir):
    """Write report.html, which shows the other files, and the settings of the graph and of its run."""
    metadata = predictor.metadata
    trained = settings_of_run(metadata["run"].get("checkpoint"), checkpoint_dir)
    rows = {**metadata, **trained, **metadata["run"], "img_size": predictor.img_size}
    rows = {name: value for name, value in rows.items() if name not in ("input", "output", "run", "classes")}
    html = render_html(heading, evaluation, rows, folder)
    write_atomically({os.path.join(folder, "report.html"): html.encode("utf-8", "backslashreplace")})


def predict_dataset(predictor, data, flip=False):
    """(probabilities of all images of a DataSet, in order; those of their mirror images, None unless `flip`).

    Both are float64 [n, classes].
    """
    plain, mirrored = [], []
    with progress(data.num_examples, "evaluate") as bar:
        for images, *_ in data.batches(predictor.batch):
            plain.append(predictor.run(images))
            if flip:
                mirrored.append(predictor.run(images[:, :, ::-1]))
            bar.update(len(images))
    return np.concatenate(plain), np.concatenate(mirrored) if flip else None


def draw_evaluation(folder, evaluation, labels, probabilities):
    """Draw confusion.png and precision_recall.png."""
    names = [row.name for row in evaluation.per_class]
    matrix, chosen, heading = evaluation.confusion_matrix, range(len(names)), ""
    if matrix is None:
        chosen, matrix = most_confused(evaluation, MAX_DRAWN)
        heading = f"the {len(chosen)} classes of {len(names)} with the most mistakes; "
    num_images = np.array([evaluation.per_class[label].num_images for label in chosen])
    path = os.path.join(folder, "confusion.png")
    draw_confusion(path, matrix, [names[label] for label in chosen], num_images, heading)
    curves = precision_recall(labels, probabilities, evaluation, MAX_CURVES)
    chosen = "" if len(curves) == len(names) else f": the {len(curves)} classes of lowest average precision"
    draw_precision_recall(os.path.join(folder, "precision_recall.png"), curves, f"precision and recall{chosen}")


def report_mistakes(folder, predictor, data, probabilities):
    """Draw the most confident mistakes, with and without heat maps, and log them for TensorBoard."""
    wrong, classes = confident_mistakes(data.labels, probabilities), predictor.classes
    draw_mistakes(os.path.join(folder, "mistakes.png"), wrong, data, probabilities, classes)
    explain_mistakes(os.path.join(folder, "mistakes_explained.png"), wrong, data, predictor)
    log_mistakes(folder, predictor.metadata["run"].get("checkpoint"), wrong, data, probabilities, classes)


def confident_mistakes(labels, probabilities):
    """Indices of the misclassified images, the most confident mistakes first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities.max(axis=1)[wrong], kind="mergesort")]


def draw_mistakes(path, wrong, data, probabilities, classes):
    """Draw the first images of `wrong`, each with its predicted and its true class."""
    chosen = wrong[:MISTAKES]
    titles, transparency = [], data.preprocess.transparency
    for i in chosen:
        row, true = probabilities[i], escape_label(classes[data.labels[i]], 16)
        titles.append(f"{escape_label(classes[row.argmax()], 12)}? ({100 * row.max():.0f} %)\nis {true}")
    with suppress_stderr:
        images = [read_image(data.paths[i], transparency=transparency) for i in chosen]
    images = [cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in images]
    heading = f"{len(wrong) or 'no'} mistake{'s' * (len(wrong) != 1)} in {data.num_examples} images"
    draw_grid(path, images, titles, heading + (f"; the {MISTAKES} most confident" if len(wrong) > MISTAKES else ""))


def explain_mistakes(path, wrong, data, predictor):
    """Draw the first images of `wrong` with their heat maps, if the network has a convolution."""
    chosen = wrong[:EXPLAINED]
    try:
        explainer = Explainer(predictor)
    except InputError as error:
        print_note(f"{error}; report.html is without heat maps")
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)  # that of another graph
        return
    draw_explained_mistakes(path, explainer, [data.paths[i] for i in chosen], data.labels[chosen])
