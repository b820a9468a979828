"""Evaluation metrics as numbers, as text and as JSON, and predictions as CSV. No I/O."""

import csv
import io
import json
from collections import namedtuple

import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

from src.console import escape_control_characters

# balanced_accuracy, macro_f1: means of recall and F1 over the classes that have images. per_class: a ClassMetrics for
# each class. confusion_matrix: int64 [true class, predicted class]. flip: the Evaluation with test-time augmentation,
# the mean probabilities of each image and its mirror image, or None.
Evaluation = namedtuple(
    "Evaluation", "num_images loss accuracy balanced_accuracy macro_f1 per_class confusion_matrix flip"
)
ClassMetrics = namedtuple("ClassMetrics", "name precision recall f1 num_images")  # undefined metrics are 0


def evaluate(labels, probabilities, classes, mirrored=None):
    """The Evaluation of n predictions.

    Args:
        labels: true classes, int [n], as indices into `classes`.
        probabilities: float64 [n, classes].
        classes: names of the classes.
        mirrored: probabilities of the mirror images, float64 [n, classes], to be averaged with the others for `flip`.
    """
    indices, predicted = np.arange(len(classes)), probabilities.argmax(axis=1)
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predicted, labels=indices, zero_division=0)
    matrix = confusion_matrix(labels, predicted, labels=indices)
    num_images = matrix.sum(axis=1)
    present = num_images > 0  # recall is undefined for a class without images
    columns = (column.tolist() for column in (precision, recall, f1, num_images))
    return Evaluation(
        num_images=len(labels),
        loss=float(log_loss(labels, probabilities, labels=indices)),
        accuracy=float(accuracy_score(labels, predicted)),
        balanced_accuracy=float(recall[present].mean()),
        macro_f1=float(f1[present].mean()),
        per_class=[ClassMetrics(*row) for row in zip(classes, *columns)],
        confusion_matrix=matrix,
        flip=None if mirrored is None else evaluate(labels, (probabilities + mirrored) / 2, classes),
    )


def as_text(evaluation):
    """evaluation.txt without its heading: summary, per-class metrics, and confusion matrix."""
    names = [escape_control_characters(row.name) for row in evaluation.per_class]
    parts = [*summary_lines(evaluation), "", *class_table(evaluation, names), ""]
    return "\n".join(parts + matrix_lines(evaluation.confusion_matrix, names)) + "\n"


def summary_lines(evaluation):
    """The metrics of all images, in one to three lines."""
    lines = [
        f"{evaluation.num_images} images: {loss_accuracy_text(evaluation)}, "
        f"balanced accuracy {evaluation.balanced_accuracy:.4f}, macro F1 {evaluation.macro_f1:.4f}"
    ]
    if evaluation.flip:
        lines.append(f"with mirror images: {loss_accuracy_text(evaluation.flip)}")
    classes, present = len(evaluation.per_class), sum(row.num_images > 0 for row in evaluation.per_class)
    if present < classes:
        lines.append(
            f"without images: {classes - present} of {classes} classes; balanced accuracy and macro F1 are means "
            f"over the other {present}; the table counts the rest as 0"
        )
    return lines


def loss_accuracy_text(evaluation):
    return f"loss {evaluation.loss:.4f}, accuracy {evaluation.accuracy:.4f}"


def class_table(evaluation, names):
    """Metrics of each class and their averages, in the format of scikit-learn's classification_report."""
    width = max(map(len, [*names, "weighted avg"]))

    def line(name, *cells):
        cells = [f"{cell:.3f}" if isinstance(cell, float) else cell for cell in cells]
        return f"{name:>{width}} " + "".join(f" {cell:>9}" for cell in cells)

    _, *columns, counts = zip(*evaluation.per_class)
    lines = [line("", "precision", "recall", "f1-score", "support"), ""]
    lines += [line(name, *row[1:]) for name, row in zip(names, evaluation.per_class)]
    total = evaluation.num_images
    return lines + [
        "",
        line("accuracy", "", "", evaluation.accuracy, total),
        line("macro avg", *map(np.mean, columns), total),
        line("weighted avg", *(np.average(column, weights=counts) for column in columns), total),
    ]


def matrix_lines(matrix, names):
    """The confusion matrix, under a line that says what its rows and columns are."""
    longest, width = max(map(len, names)), len(str(matrix.max())) + 1
    rows = [name.ljust(longest) + "".join(str(count).rjust(width) for count in row) for name, row in zip(names, matrix)]
    return ["rows: true class, columns: predicted class, in the same order", *rows]


def as_json(evaluation, **about):
    """evaluation.json: an object in ASCII with one field per line, those of `about` first.

    Raises:
        ValueError: a value is NaN or Inf.
    """
    fields = {**about, **to_dict(evaluation)}
    lines = [f" {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in fields.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def to_dict(evaluation):
    """An Evaluation as JSON types."""
    return dict(
        evaluation._asdict(),
        per_class=[row._asdict() for row in evaluation.per_class],
        confusion_matrix=evaluation.confusion_matrix.tolist(),
        flip=evaluation.flip and to_dict(evaluation.flip),
    )


def predictions_csv(paths, labels, probabilities, classes):
    """CSV, as bytes: file, true class, predicted class and its probability, a line per image."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["image", "true", "predicted", "probability"])
    for path, label, row in zip(paths, labels, probabilities):
        writer.writerow([path, classes[label], classes[row.argmax()], f"{row.max():.6f}"])
    return content.getvalue().encode("utf-8", "surrogateescape")
