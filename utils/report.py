"""What a network makes of the test images, in numbers, words and pictures."""
import csv
import io
import os

import cv2
import numpy as np
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, log_loss
from tqdm import tqdm

from dataset import read_image
from utils.files import write_whole
from utils.pictures import draw_confusion, draw_grid, plain
from utils.predictor import BATCH, softmax

MISTAKES = 24  # in the picture


def ask_all(predictor, data):
    """Probabilities, float64 [n, classes], for every image of a DataSet, in order."""
    answers = []
    with tqdm(total=data.num_examples, unit="images", disable=None, leave=False, dynamic_ncols=True) as bar:
        for images, _, _, _ in data.batches(BATCH):
            answers.append(softmax(predictor.logits(images)))
            bar.update(len(images))
    return np.concatenate(answers)


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
    every = np.arange(len(classes))
    predicted = probabilities.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, labels=every)
    text = "%s\n%d images: loss %.4f, accuracy %.4f\n\n%s\n%s" % (
        heading, len(labels), log_loss(labels, probabilities, labels=every), accuracy_score(labels, predicted),
        classification_report(labels, predicted, labels=every, target_names=classes, digits=3, zero_division=0),
        matrix_text(matrix, classes))
    write_whole({os.path.join(folder, "evaluation.txt"): text,
                 os.path.join(folder, "predictions.csv"): table(paths, labels, probabilities, classes)})
    draw_confusion(os.path.join(folder, "confusion.png"), matrix, classes)
    draw_mistakes(os.path.join(folder, "mistakes.png"), paths, labels, probabilities, classes)
    return text


def matrix_text(matrix, classes):
    """The confusion matrix: a row for each true class, a column for each predicted one, in the same order."""
    names = max(map(len, classes))
    width = len(str(matrix.max())) + 1
    rows = [name.ljust(names) + "".join(str(count).rjust(width) for count in row) for name, row in zip(classes, matrix)]
    return "rows: true class, columns: predicted class, in the same order\n%s\n" % "\n".join(rows)


def table(paths, labels, probabilities, classes):
    """CSV with a line for each image: its file, true and predicted class, and the probability of the predicted one."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["image", "true", "predicted", "probability"])
    for path, label, row in zip(paths, labels, probabilities):
        writer.writerow([path, classes[label], classes[row.argmax()], "%.6f" % row.max()])
    return content.getvalue().encode("utf-8", "surrogateescape")


def draw_mistakes(path, paths, labels, probabilities, classes):
    """The mistakes that the network was surest of, the surest first."""
    sure = probabilities.max(axis=1)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    chosen = wrong[np.argsort(-sure[wrong], kind="mergesort")][:MISTAKES]
    titles = ["%s? (%.0f %%)\nis %s" % (plain(classes[probabilities[i].argmax()], 12), 100 * sure[i],
                                       plain(classes[labels[i]], 16)) for i in chosen]
    images = [cv2.cvtColor(read_image(paths[i]), cv2.COLOR_BGR2RGB) for i in chosen]
    draw_grid(path, images, titles, "the %d surest of %d mistakes in %d images" % (
        len(chosen), len(wrong), len(labels)) if len(wrong) else "no mistakes in %d images" % len(labels))
