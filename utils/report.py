"""The evaluation of a network on the test images, in numbers, words and pictures."""

import csv
import io
import os

import cv2
import numpy as np
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, log_loss
from tqdm import tqdm

from src.errors import escape_control_characters
from utils.files import write_atomically
from utils.images import muting, read_image
from utils.loader import inference_batch
from utils.plots import draw_confusion, draw_grid, escape_label

MISTAKES = 24  # in the picture


def predict_dataset(predictor, data):
    """Probabilities, float64 [n, classes], for every image of a DataSet, in order."""
    probabilities = []
    with tqdm(total=data.num_examples, unit="images", disable=None, leave=False, dynamic_ncols=True) as bar:
        for batch in data.batches(inference_batch(predictor.img_size)):
            probabilities.append(predictor.probabilities(batch.images))
            bar.update(len(batch.images))
    return np.concatenate(probabilities)


def write_report(folder, heading, paths, labels, probabilities, classes):
    """Write evaluation.txt, predictions.csv, confusion.png and mistakes.png.

    Args:
        folder: where to.
        heading: the first line of the text.
        paths: n image files.
        labels: their classes, as n indices into `classes`.
        probabilities: float64 [n, classes].

    Returns:
        The text: loss, accuracy, precision, recall and F1 of each class, and the confusion matrix.

    Raises:
        InputError: the files cannot be written.
    """
    names = [escape_control_characters(name) for name in classes]
    every = np.arange(len(classes))
    predicted = probabilities.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, labels=every)
    loss, accuracy = log_loss(labels, probabilities, labels=every), accuracy_score(labels, predicted)
    text = f"{heading}\n{len(labels)} images: loss {loss:.4f}, accuracy {accuracy:.4f}\n\n"
    text += classification_report(labels, predicted, labels=every, target_names=names, digits=3, zero_division=0)
    text += "\n" + matrix_text(matrix, names)
    csv_path = os.path.join(folder, "predictions.csv")
    rows = predictions_csv(paths, labels, probabilities, classes)
    write_atomically({os.path.join(folder, "evaluation.txt"): text, csv_path: rows})
    draw_confusion(os.path.join(folder, "confusion.png"), matrix, classes)
    draw_mistakes(os.path.join(folder, "mistakes.png"), paths, labels, probabilities, classes)
    return text


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


def draw_mistakes(path, paths, labels, probabilities, classes):
    """The most confident mistakes, the most confident first."""
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    chosen = wrong[np.argsort(-confidence[wrong], kind="mergesort")][:MISTAKES]
    titles = []
    for i in chosen:
        predicted, true = escape_label(classes[probabilities[i].argmax()], 12), escape_label(classes[labels[i]], 16)
        titles.append(f"{predicted}? ({100 * confidence[i]:.0f} %)\nis {true}")
    with muting:
        images = [cv2.cvtColor(read_image(paths[i]), cv2.COLOR_BGR2RGB) for i in chosen]
    heading = f"{len(wrong) or 'no'} mistakes in {len(labels)} images"
    draw_grid(path, images, titles, heading + (f"; the {MISTAKES} most confident" if len(wrong) > MISTAKES else ""))
