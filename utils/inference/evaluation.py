"""Evaluation metrics as numbers, as text and as JSON, and predictions as CSV. No I/O."""

import csv
import io
import json
from collections import namedtuple

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    precision_recall_curve,
    precision_recall_fscore_support,
)

from src.console import display_width, escape_control_characters, ljust, rjust

MAX_MATRIX = 300  # classes of a confusion matrix in a file: of 5,000, evaluation.txt would have 50 MB
MAX_CONFUSIONS = 20  # that are listed

# top5_accuracy: the fraction of images whose true class is among the five most probable; None for up to five classes.
# balanced_accuracy, macro_f1: means of recall and F1 over the classes that have images. per_class: a ClassMetrics for
# each class. confusion_matrix: int64 [true class, predicted class], or None for more than MAX_MATRIX classes.
# confusions: int64 [k, 3], true class, predicted class and number of images of each pair of different classes that
# occurs, the most frequent first. flip: the Evaluation with test-time augmentation, the mean probabilities of each
# image and its mirror image, or None.
Evaluation = namedtuple(
    "Evaluation",
    "num_images loss accuracy top5_accuracy balanced_accuracy macro_f1 per_class confusion_matrix confusions flip",
)
ClassMetrics = namedtuple("ClassMetrics", "name precision recall f1 num_images")  # undefined metrics are 0

# Of a class: its name, its average precision, and the precision at each recall, float64 [k].
PrecisionRecall = namedtuple("PrecisionRecall", "name average_precision precision recall")


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
    num_images = np.bincount(labels, minlength=len(classes))
    is_small = len(classes) <= MAX_MATRIX
    present = num_images > 0  # recall is undefined for a class without images
    columns = (column.tolist() for column in (precision, recall, f1, num_images))
    return Evaluation(
        num_images=len(labels),
        loss=log_loss(labels, probabilities),
        accuracy=float(accuracy_score(labels, predicted)),
        top5_accuracy=top5_accuracy(labels, probabilities) if len(classes) > 5 else None,
        balanced_accuracy=float(recall[present].mean()),
        macro_f1=float(f1[present].mean()),
        per_class=[ClassMetrics(*row) for row in zip(classes, *columns)],
        confusion_matrix=confusion_matrix(labels, predicted, labels=indices) if is_small else None,
        confusions=find_confusions(labels, predicted, len(classes)),
        flip=None if mirrored is None else evaluate(labels, (probabilities + mirrored) / 2, classes),
    )


def log_loss(labels, probabilities):
    """The mean cross-entropy. As scikit-learn's log_loss, without its one-hot labels, which can exceed the memory."""
    of_true = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(of_true, np.finfo(np.float64).eps)).mean())


def top5_accuracy(labels, probabilities):
    """Of equal probabilities, the first counts as the larger, as in argmax."""
    of_true = probabilities[np.arange(len(labels)), labels][:, np.newaxis]
    is_earlier = np.arange(probabilities.shape[1]) < labels[:, np.newaxis]
    rank = ((probabilities > of_true) | (probabilities == of_true) & is_earlier).sum(axis=1)
    return float(np.mean(rank < 5))


def find_confusions(labels, predicted, count):
    """The field `confusions` of an Evaluation."""
    wrong = predicted != labels
    pairs, counts = np.unique(labels[wrong].astype(np.int64) * count + predicted[wrong], return_counts=True)
    order = np.argsort(-counts, kind="mergesort")  # stable
    return np.stack([pairs // count, pairs % count, counts], axis=1)[order]


def most_confused(evaluation, count):
    """The confusion matrix of the `count` classes that are most often in `confusions`.

    Returns:
        (int64 [count], the classes, in order; int64 [count, count]).
    """
    true, predicted, counts = evaluation.confusions.T
    total = len(evaluation.per_class)
    mistakes = sum(np.bincount(labels, weights=counts, minlength=total) for labels in (true, predicted))
    chosen = np.sort(np.argsort(-mistakes, kind="mergesort")[:count])
    place = np.full(total, -1)
    place[chosen] = np.arange(len(chosen))
    matrix = np.diag([round(row.recall * row.num_images) for row in map(evaluation.per_class.__getitem__, chosen)])
    inside = (place[true] >= 0) & (place[predicted] >= 0)
    matrix[place[true][inside], place[predicted][inside]] = counts[inside]
    return chosen, matrix


def precision_recall(labels, probabilities, evaluation, count):
    """PrecisionRecall of the `count` classes with the lowest average precision, the lowest first.

    A class without images has none. Of more than MAX_MATRIX classes, those with the lowest F1 are compared.
    """
    f1 = np.array([row.f1 if row.num_images else np.inf for row in evaluation.per_class])
    candidates = [label for label in np.argsort(f1, kind="mergesort")[:MAX_MATRIX] if np.isfinite(f1[label])]
    scores = {label: average_precision_score(labels == label, probabilities[:, label]) for label in candidates}
    found = []
    for label in sorted(sorted(candidates), key=scores.get)[:count]:
        precision, recall, _ = precision_recall_curve(labels == label, probabilities[:, label])
        found.append(PrecisionRecall(evaluation.per_class[label].name, float(scores[label]), precision, recall))
    return found


def as_text(evaluation, max_matrix=MAX_MATRIX):
    """evaluation.txt without its heading: summary, per-class metrics, and confusion matrix, or for more than
    `max_matrix` classes the most frequent confusions."""
    names = [escape_control_characters(row.name) for row in evaluation.per_class]
    parts = [*summary_lines(evaluation), "", *class_table(evaluation, names), ""]
    if len(names) > max_matrix:
        return "\n".join(parts + confusion_lines(evaluation.confusions, names)) + "\n"
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
    text = f"loss {evaluation.loss:.4f}, accuracy {evaluation.accuracy:.4f}"
    if evaluation.top5_accuracy is None:
        return text
    return f"{text}, top-5 accuracy {evaluation.top5_accuracy:.4f}"


def class_table(evaluation, names):
    """Metrics of each class and their averages, in the format of scikit-learn's classification_report."""
    width = max(map(display_width, [*names, "weighted avg"]))

    def line(name, *cells):
        cells = [f"{cell:.3f}" if isinstance(cell, float) else cell for cell in cells]
        return rjust(name, width) + " " + "".join(f" {cell:>9}" for cell in cells)

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
    longest, width = max(map(display_width, names)), len(str(matrix.max())) + 1
    rows = [
        ljust(name, longest) + "".join(str(count).rjust(width) for count in row) for name, row in zip(names, matrix)
    ]
    return ["rows: true class, columns: predicted class, in the same order", *rows]


def confusion_lines(confusions, names):
    """The most frequent confusions as a table."""
    rows = [(names[true], names[predicted], str(count)) for true, predicted, count in confusions[:MAX_CONFUSIONS]]
    rows.insert(0, ("true class", "predicted class", "images"))
    widths = [max(map(display_width, column)) for column in zip(*rows)]
    lines = [
        f"{ljust(true, widths[0])}  {ljust(predicted, widths[1])}  {rjust(count, widths[2])}"
        for true, predicted, count in rows
    ]
    return [f"most frequent confusions, of {len(confusions)} (all are in evaluation.json)", *lines]


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
        confusion_matrix=None if evaluation.confusion_matrix is None else evaluation.confusion_matrix.tolist(),
        confusions=evaluation.confusions.tolist(),
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
