"""Evaluation with many classes: top-5 accuracy, and confusions instead of a matrix of them all."""

import json
import tracemalloc
from math import log

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix, top_k_accuracy_score

from utils.commands.evaluate import draw_evaluation
from utils.inference.evaluation import as_json, as_text, evaluate, most_confused, precision_recall, summary_lines
from utils.inference.html_report import render_html


def predictions(pairs, classes):
    """(labels, probabilities) of images with these (true, predicted) classes, which the network is sure of to 0.9."""
    labels, predicted = np.array(pairs).T
    probabilities = np.full((len(pairs), classes), 0.1 / (classes - 1))
    probabilities[np.arange(len(pairs)), predicted] = 0.9
    return labels, probabilities


def names(count):
    return [f"class {number}" for number in range(count)]


def test_top_5_accuracy_is_that_of_scikit_learn():
    random = np.random.RandomState(0)
    labels, probabilities = random.randint(0, 12, 500), random.dirichlet(np.ones(12), 500)
    mirrored = random.dirichlet(np.ones(12), 500)
    found = evaluate(labels, probabilities, names(12), mirrored)
    assert found.top5_accuracy == top_k_accuracy_score(labels, probabilities, k=5)
    assert found.flip.top5_accuracy == top_k_accuracy_score(labels, (probabilities + mirrored) / 2, k=5)
    for line, one in zip(summary_lines(found), (found, found.flip)):
        assert f"accuracy {one.accuracy:.4f}, top-5 accuracy {one.top5_accuracy:.4f}" in line


def test_top_5_accuracy_of_equal_probabilities_counts_the_first_classes():
    """As argmax does: a network that has learned nothing is right in five of seven classes, not in all."""
    assert evaluate(np.arange(7), np.full((7, 7), 1 / 7), names(7)).top5_accuracy == 5 / 7


def test_up_to_five_classes_have_no_top_5_accuracy():
    labels, probabilities = predictions([(0, 1), (4, 4)], 5)
    found = evaluate(labels, probabilities, names(5))
    assert found.top5_accuracy is None and "top-5" not in as_text(found)
    labels, probabilities = predictions([(0, 1), (4, 4)], 6)
    assert evaluate(labels, probabilities, names(6)).top5_accuracy == 1  # class 0 is among the equal ones that follow


def test_a_probability_of_zero_counts_as_the_smallest_step_of_float64():
    """2 ** -52, as in scikit-learn of today."""
    labels, probabilities = np.array([0, 1, 1]), np.array([[1, 0], [1, 0], [0.25, 0.75]])
    assert evaluate(labels, probabilities, names(2)).loss == pytest.approx((52 * log(2) - log(0.75)) / 3, rel=1e-12)


PAIRS = [(3, 3)] * 4 + [(3, 5)] * 2 + [(0, 1)] + [(5, 3)] * 3 + [(2, 2)]


def test_confusions_are_listed_the_most_frequent_first():
    labels, probabilities = predictions(PAIRS, 301)
    found = evaluate(labels, probabilities, names(301))
    assert found.confusions.tolist() == [[5, 3, 3], [3, 5, 2], [0, 1, 1]]
    lines = as_text(found).splitlines()
    assert lines[-5:] == [
        "most frequent confusions, of 3 (all are in evaluation.json)",
        "true class  predicted class  images",
        "class 5     class 3               3",
        "class 3     class 5               2",
        "class 0     class 1               1",
    ]


@pytest.mark.parametrize("classes", [300, 301])
def test_the_matrix_is_in_the_files_up_to_300_classes(classes):
    labels, probabilities = predictions(PAIRS, classes)
    found = evaluate(labels, probabilities, names(classes))
    content = json.loads(as_json(found))
    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(classes)).tolist()
    assert content["confusion_matrix"] == (matrix if classes == 300 else None)
    assert ("most frequent confusions" in as_text(found)) is (classes > 300)
    assert "most frequent confusions" in as_text(found, max_matrix=20)
    sparse = np.zeros((classes, classes), int)
    for true, predicted, count in content["confusions"]:
        sparse[true, predicted] = count
    for label, row in enumerate(content["per_class"]):
        sparse[label, label] = round(row["recall"] * row["num_images"])
    assert sparse.tolist() == matrix


def test_of_many_confusions_twenty_are_listed_in_text_and_page(tmp_path):
    pairs = [(label, label + 1) for label in range(25) for _ in range(30 - label)]
    labels, probabilities = predictions(pairs, 26)
    classes = names(26)
    classes[:2] = ["猫", "<b>"]
    found = evaluate(labels, probabilities, classes)
    lines = as_text(found, max_matrix=20).splitlines()
    assert lines[-22] == "most frequent confusions, of 25 (all are in evaluation.json)"
    assert lines[-20:-18] == ["猫          <b>                  30", "<b>         class 2              29"]
    page = render_html("title", found, {}, str(tmp_path))
    assert page.count("<td>猫</td><td>&lt;b&gt;</td><td>30</td>") == 1
    assert "<td>class 19</td><td>class 20</td>" in page and "<td>class 20</td><td>class 21</td>" not in page


def test_a_page_without_mistakes_has_no_table_of_them(tmp_path):
    found = evaluate(*predictions([(0, 0), (1, 1)], 2), names(2))
    assert "confusions" not in render_html("title", found, {}, str(tmp_path)).split("</style>")[1]


def test_the_classes_with_the_most_mistakes_are_drawn_if_there_are_too_many():
    labels, probabilities = predictions([*PAIRS, (7, 8)], 400)
    found = evaluate(labels, probabilities, names(400))
    chosen, matrix = most_confused(found, 3)
    assert chosen.tolist() == [0, 3, 5] and matrix.tolist() == [[0, 0, 0], [0, 4, 2], [0, 3, 0]]


def test_average_precision_is_that_of_scikit_learn_the_lowest_first():
    random = np.random.RandomState(0)
    labels, probabilities = random.randint(0, 7, 300), random.dirichlet(np.ones(8), 300)  # no image of class 7
    found = precision_recall(labels, probabilities, evaluate(labels, probabilities, names(8)), 5)
    scores = {names(8)[k]: average_precision_score(labels == k, probabilities[:, k]) for k in range(7)}
    assert [curve.name for curve in found] == sorted(scores, key=scores.get)[:5]
    for curve in found:
        assert curve.average_precision == scores[curve.name]
        steps = -np.diff(curve.recall) * curve.precision[:-1]  # its definition: the area below the steps
        assert steps.sum() == pytest.approx(curve.average_precision)


def test_precision_and_recall_worked_out_by_hand():
    """Of the cats 0.9 and 0.6 and the dog 0.7: all above 0.9, above 0.7, above 0.6 are called cats."""
    labels, cat = np.array([0, 0, 1]), np.array([0.9, 0.6, 0.7])
    probabilities = np.stack([cat, 1 - cat], axis=1)
    curves = precision_recall(labels, probabilities, evaluate(labels, probabilities, ["cat", "dog"]), 2)
    dog, cat = sorted(curves, key=lambda curve: curve.name, reverse=True)
    assert cat.average_precision == pytest.approx((1 + 2 / 3) / 2) and dog.average_precision == 1 / 2
    assert cat.recall.tolist() == [1, 0.5, 0.5, 0] and cat.precision.tolist() == [2 / 3, 0.5, 1, 1]


def test_many_thousand_classes_do_not_take_their_square_in_memory(tmp_path):
    """Of 6,000 classes, a matrix of counts takes 288 MB."""
    labels, probabilities = predictions(PAIRS, 6000)
    tracemalloc.start()
    found = evaluate(labels, probabilities, names(6000))
    draw_evaluation(str(tmp_path), found, labels, probabilities)
    text, content = as_text(found), as_json(found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6 and len(text) < 1e6 and len(content) < 1e6
    assert {path.name for path in tmp_path.iterdir()} == {"confusion.png", "precision_recall.png"}
