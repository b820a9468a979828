"""The numbers of an evaluation against ones worked out by hand and those of scikit-learn; its text and its JSON."""

import csv
import glob
import json
import os
from math import log

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, classification_report, f1_score, log_loss

from src.settings import settings_for
from utils.commands import evaluate as evaluate_command
from utils.inference.evaluation import ClassMetrics, as_json, as_text, evaluate, summary_lines

PROBABILITIES = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.1, 0.9]])  # of three cats and a dog
MIRRORED = np.array([[0.6, 0.4], [0.5, 0.5], [0.9, 0.1], [0.1, 0.9]])


def no_constant(name):
    raise ValueError(f"{name} is not JSON")


def strict_json(text):
    """Python also reads and writes NaN and Infinity, which JSON has not."""
    return json.loads(text, parse_constant=no_constant)


NAMES = ["cat", "dog", "great horned owl", "7", "Ω"]


def random_evaluation(num_images):
    """(labels, probabilities, those of the mirror images, their Evaluation); each class has an image that is right."""
    random = np.random.RandomState(0)
    labels = np.append(range(5), random.randint(0, 5, num_images - 5))
    probabilities, mirrored = random.dirichlet(np.ones(5), (2, num_images))
    probabilities[:5] = (probabilities[:5] + np.eye(5)) / 2
    return labels, probabilities, mirrored, evaluate(labels, probabilities, NAMES, mirrored)


def test_the_numbers_worked_out_by_hand():
    found = evaluate(np.array([0, 0, 0, 1]), PROBABILITIES, ["cat", "dog"])
    assert found.num_images == 4 and found.accuracy == 3 / 4 and found.flip is None
    assert found.loss == pytest.approx(-(log(0.8) + log(0.6) + log(0.3) + log(0.9)) / 4)
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert found.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert found.confusion_matrix.tolist() == [[2, 1], [0, 1]]
    cat, dog = found.per_class
    assert cat == ClassMetrics("cat", 1, pytest.approx(2 / 3), pytest.approx(4 / 5), 3)
    assert dog == ClassMetrics("dog", 1 / 2, 1, pytest.approx(2 / 3), 1)


def test_flip_is_the_evaluation_of_the_mean_probabilities():
    found = evaluate(np.array([0, 0, 0, 1]), PROBABILITIES, ["cat", "dog"], MIRRORED)
    assert (found.accuracy, found.flip.accuracy, found.flip.flip) == (3 / 4, 1, None)
    assert found.flip.loss == pytest.approx(-(log(0.7) + log(0.55) + log(0.6) + log(0.9)) / 4)
    assert found.flip.confusion_matrix.tolist() == [[3, 0], [0, 1]]
    assert summary_lines(found)[1] == "with mirror images: loss 0.3927, accuracy 1.0000"


def test_a_class_without_images_counts_in_no_mean():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]])  # of two cats: the first is right, the other no owl
    found = evaluate(np.array([0, 0]), probabilities, ["cat", "dog", "owl"])
    assert found.per_class[1:] == [ClassMetrics("dog", 0, 0, 0, 0), ClassMetrics("owl", 0, 0, 0, 0)]
    assert found.balanced_accuracy == 1 / 2 and found.macro_f1 == pytest.approx(2 / 3)
    assert summary_lines(found)[1].startswith("without images: 2 of 3 classes; balanced accuracy")
    assert as_text(found).endswith("\ncat 1 0 1\ndog 0 0 0\nowl 0 0 0\n")


@pytest.mark.parametrize("num_images", [5, 8, 60, 1000])
def test_the_numbers_are_those_of_scikit_learn(num_images):
    labels, probabilities, mirrored, found = random_evaluation(num_images)
    for one, shares in (found, probabilities), (found.flip, (probabilities + mirrored) / 2):
        predicted = shares.argmax(axis=1)
        assert one.loss == pytest.approx(log_loss(labels, shares), rel=1e-12)
        assert one.accuracy == accuracy_score(labels, predicted)
        assert one.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted), rel=1e-12)
        assert one.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"), rel=1e-12)


@pytest.mark.parametrize("num_images", [5, 8, 60, 1000])
def test_the_text_has_the_table_of_scikit_learn(num_images):
    labels, probabilities, _, found = random_evaluation(num_images)
    expected = classification_report(
        labels, probabilities.argmax(axis=1), labels=range(5), target_names=NAMES, digits=3, zero_division=0
    )
    summary, table, matrix = as_text(found).partition(expected)
    assert summary == "\n".join(summary_lines(found)) + "\n\n" and table
    assert matrix.splitlines()[1] == "rows: true class, columns: predicted class, in the same order"
    rows = [line[len("great horned owl") :].split() for line in matrix.splitlines()[2:]]
    assert np.array_equal(np.array(rows, int), found.confusion_matrix)


def test_nothing_right_is_numbers_as_well():
    text = as_text(evaluate(np.array([0, 0, 0]), np.array([[0.2, 0.8]] * 3), ["cat", "dog"]))
    table = [line.split() for line in text.splitlines()[3:6]]
    zeros = ["0.000"] * 3
    assert table == [["precision", "recall", "f1-score", "support"], [], ["cat", *zeros, "3"]]
    assert text.splitlines()[-1] == "dog 0 0"


def test_json_has_every_number_in_full():
    *_, found = random_evaluation(60)
    content = strict_json(as_json(found, model="a.pb", test_path="test"))
    assert list(content) == ["model", "test_path", *found._fields] and content["top5_accuracy"] is None
    for fields, evaluation in (content, found), (content["flip"], found.flip):
        for name in ("num_images", "loss", "accuracy", "balanced_accuracy", "macro_f1"):
            assert fields[name] == getattr(evaluation, name)
        assert [ClassMetrics(**row) for row in fields["per_class"]] == evaluation.per_class
        assert fields["confusion_matrix"] == evaluation.confusion_matrix.tolist()
    assert content["flip"]["flip"] is None and [row["name"] for row in content["per_class"]] == NAMES


def test_json_never_holds_nan():
    found = evaluate(np.array([0, 0]), np.array([[0.0, 1.0], [0.0, 1.0]]), ["cat", "dog"])  # sure, and wrong
    assert strict_json(as_json(found))["loss"] > 10
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json(found._replace(loss=float("nan")))


def test_names_that_break_lines_are_escaped_in_the_text_and_kept_in_the_json():
    names = ["two\nlines", os.fsdecode(b"0\xff")]
    found = evaluate(np.array([0, 0, 0, 1]), PROBABILITIES, names)
    assert "\ntwo\\nlines 2 1\n0\\udcff    0 1\n" in as_text(found)
    assert [row["name"] for row in strict_json(as_json(found))["per_class"]] == names


def test_the_command_writes_the_same_numbers_into_all_its_files(trained, monkeypatch, capsys):
    monkeypatch.chdir(str(trained))
    names = ["model_arch", "weight_dir", "device", "tensorboard_dir", "checkpoint_dir"]
    evaluate_command.run(settings_for(names, {}), {}, flip=True)
    (folder,) = glob.glob("graphs/lenet5/*")
    with open(f"{folder}/evaluation.txt", encoding="utf-8") as text, open(f"{folder}/report.html") as page:
        heading, *lines = text.read().split("\n")
        page = page.read()
    with open(f"{folder}/evaluation.json", encoding="ascii") as file:
        content = strict_json(file.read())
    with open(f"{folder}/predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert heading == f"{content['model']} on {content['test_path']}" and content["model"] == "weights/lenet5/lenet5.pb"
    assert content["accuracy"] == np.mean([row["true"] == row["predicted"] for row in rows])
    assert content["num_images"] == len(rows) == 360
    for row, counts in zip(content["per_class"], content["confusion_matrix"]):
        answers = [line["predicted"] for line in rows if line["true"] == row["name"]]
        assert counts == [answers.count(other["name"]) for other in content["per_class"]]
    for fields, line in (content, lines[0]), (content["flip"], lines[1]):
        assert f"loss {fields['loss']:.4f}, accuracy {fields['accuracy']:.4f}" in line and line in page
    printed = capsys.readouterr().out
    assert printed == "\n".join([heading, *lines]) + (
        f"\nwritten to {folder}: report.html, evaluation.txt, evaluation.json, predictions.csv and figures\n"
    )
