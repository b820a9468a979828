"""The evaluation of a network on the test images, in numbers, words and pictures."""

import csv
import io
import os

import cv2
import numpy as np
from sklearn.metrics import (
    accuracy_score,
    classification_report,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    recall_score,
)
from tqdm import tqdm

from src.console import escape_control_characters, print_note, suppress_stderr
from src.errors import InputError
from utils.decode import read_image
from utils.explain import Explainer, draw_explained_mistakes
from utils.files import write_atomically
from utils.page import page
from utils.plots import draw_confusion, draw_grid, escape_label

MISTAKES = 24  # in the picture
EXPLAINED = 6  # of them, with heat maps


def write_page(folder, text, config, predictor, data, probabilities):
    """Write mistakes_explained.png and report.html, after write_report.

    Args:
        folder: as for write_report, and what training has drawn there.
        text: what write_report has returned; its first lines are the heading and the summary.
        config: the settings that the page shows.
        predictor, data: that were evaluated.
        probabilities: as for write_report.
    """
    labels, classes = data.labels, predictor.classes
    every, predicted = np.arange(len(classes)), probabilities.argmax(axis=1)
    chosen = confident_mistakes(labels, probabilities)[:EXPLAINED]
    picture = os.path.join(folder, "mistakes_explained.png")
    try:
        draw_explained_mistakes(picture, Explainer(predictor), [data.paths[i] for i in chosen], labels[chosen])
    except InputError as error:  # a network without convolutions
        print_note(f"{error}; report.html is without heat maps")
    per_class = zip(classes, *precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0))
    heading, summary = text.split("\n\n")[0].split("\n", 1)
    content = page(heading, summary.replace("\n", "; "), per_class, config, folder)
    write_atomically({os.path.join(folder, "report.html"): content.encode("utf-8", "backslashreplace")})


def settings_of_graph(metadata, trained):
    """What is to be known of a graph, as {name: value}: from its metadata, and the settings of its run, if they are
    known."""
    rows = {name: value for name, value in metadata.items() if name not in ("input", "output", "run")}
    rows.update(trained)
    rows.update(metadata["run"])
    rows["img_size"] = metadata["input"]["shape"][1]
    return {name: value for name, value in rows.items() if name != "classes"}


def predict_dataset(predictor, data, flip=False):
    """(probabilities, float64 [n, classes], for every image of a DataSet, in order; the same of its mirror image).

    The second is None unless `flip`.
    """
    plain, mirrored = [], []
    with tqdm(total=data.num_examples, unit="images", disable=None, leave=False, dynamic_ncols=True) as bar:
        for images, *_ in data.batches(predictor.batch):
            plain.append(predictor.probabilities(images))
            if flip:
                mirrored.append(predictor.probabilities(images[:, :, ::-1]))
            bar.update(len(images))
    return np.concatenate(plain), np.concatenate(mirrored) if flip else None


def write_report(folder, heading, paths, labels, probabilities, classes, mirrored=None):
    """Write evaluation.txt, predictions.csv, confusion.png and mistakes.png.

    Args:
        folder: where to.
        heading: the first line of the text.
        paths: n image files.
        labels: their classes, as n indices into `classes`.
        probabilities: float64 [n, classes].
        mirrored: the same of the mirror images, if the means of both are to be judged as well.

    Returns:
        The text: loss, accuracy, precision, recall and F1 of each class, and the confusion matrix.

    Raises:
        InputError: the files cannot be written.
    """
    names = [escape_control_characters(name) for name in classes]
    every = np.arange(len(classes))
    predicted = probabilities.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, labels=every)
    text = f"{heading}\n{overall_text(labels, probabilities, mirrored)}\n"
    text += classification_report(labels, predicted, labels=every, target_names=names, digits=3, zero_division=0)
    text += "\n" + matrix_text(matrix, names)
    csv_path = os.path.join(folder, "predictions.csv")
    rows = predictions_csv(paths, labels, probabilities, classes)
    write_atomically({os.path.join(folder, "evaluation.txt"): text, csv_path: rows})
    draw_confusion(os.path.join(folder, "confusion.png"), matrix, classes)
    draw_mistakes(os.path.join(folder, "mistakes.png"), paths, labels, probabilities, classes)
    return text


def overall_text(labels, probabilities, mirrored=None):
    """The figures of all images together, as write_report takes and judges them, in some lines."""
    predicted, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    judged = np.unique(labels)  # a class without images has no recall
    macro = f1_score(labels, predicted, labels=judged, average="macro", zero_division=0)
    balanced = recall_score(labels, predicted, labels=judged, average="macro", zero_division=0)
    text = f"{len(labels)} images: {loss_and_accuracy(labels, probabilities)}, "
    text += f"balanced accuracy {balanced:.4f}, macro F1 {macro:.4f}\n"
    if mirrored is not None:
        text += f"with mirror images: {loss_and_accuracy(labels, (probabilities + mirrored) / 2)}\n"
    if len(judged) < classes:
        text += (
            f"without images: {classes - len(judged)} of {classes} classes; balanced accuracy and macro F1 are means "
        )
        text += f"over the other {len(judged)}; the table counts the rest as 0\n"
    return text


def loss_and_accuracy(labels, probabilities):
    """The two, in words."""
    loss = log_loss(labels, probabilities, labels=np.arange(probabilities.shape[1]))
    return f"loss {loss:.4f}, accuracy {accuracy_score(labels, probabilities.argmax(axis=1)):.4f}"


def matrix_text(matrix, classes):
    """The confusion matrix: a row for each true class, a column for each predicted one, in the same order."""
    names = max(map(len, classes))
    width = len(str(matrix.max())) + 1
    rows = [name.ljust(names) + "".join(str(count).rjust(width) for count in row) for name, row in zip(classes, matrix)]
    return "\n".join(["rows: true class, columns: predicted class, in the same order"] + rows) + "\n"


def predictions_csv(paths, labels, probabilities, classes):
    """CSV with a line for each image: its file, true and predicted class, and the probability of the predicted one."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["image", "true", "predicted", "probability"])
    for path, label, row in zip(paths, labels, probabilities):
        writer.writerow([path, classes[label], classes[row.argmax()], f"{row.max():.6f}"])
    return content.getvalue().encode("utf-8", "surrogateescape")


def confident_mistakes(labels, probabilities):
    """Indices of the images that got a wrong class, the most confident mistakes first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities.max(axis=1)[wrong], kind="mergesort")]


def draw_mistakes(path, paths, labels, probabilities, classes):
    """The most confident mistakes, the most confident first."""
    confidence = probabilities.max(axis=1)
    wrong = confident_mistakes(labels, probabilities)
    chosen = wrong[:MISTAKES]
    titles = []
    for i in chosen:
        predicted, true = escape_label(classes[probabilities[i].argmax()], 12), escape_label(classes[labels[i]], 16)
        titles.append(f"{predicted}? ({100 * confidence[i]:.0f} %)\nis {true}")
    with suppress_stderr:
        images = [cv2.cvtColor(read_image(paths[i]), cv2.COLOR_BGR2RGB) for i in chosen]
    heading = f"{len(wrong) or 'no'} mistake{'s' * (len(wrong) != 1)} in {len(labels)} images"
    draw_grid(path, images, titles, heading + (f"; the {MISTAKES} most confident" if len(wrong) > MISTAKES else ""))
