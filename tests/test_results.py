"""The tables of results in README.md and docs/ are those of the files in docs/results/."""

import csv
import glob
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from utils.inference.evaluation import ClassMetrics, Evaluation, as_text

RESULTS = os.path.join(REPOSITORY, "docs", "results")


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


def test_the_tables_are_what_the_script_makes_of_the_files(tmp_path):
    """In a copy of the pages with empty tables."""
    os.makedirs(str(tmp_path / "docs"))
    os.symlink(RESULTS, str(tmp_path / "docs" / "results"))
    texts = {page: read(os.path.join(REPOSITORY, page)) for page in ("README.md", "docs/results.md", "docs/images.md")}
    for page, text in texts.items():
        empty = re.sub(r"(<!-- results: .* -->\n)[^!]*(<!-- end -->)", r"\1\2", text)
        assert empty != text
        (tmp_path / page).write_text(empty, encoding="utf-8")
    done = subprocess.run([sys.executable, str(tmp_path / "docs" / "results" / "results.py")])
    assert done.returncode == 0
    for page, text in texts.items():
        assert (tmp_path / page).read_text(encoding="utf-8") == text


def test_each_result_tells_its_command_and_its_curve():
    folders = [entry.path for entry in os.scandir(RESULTS) if entry.is_dir() and entry.name != "__pycache__"]
    for folder in folders:
        about = read(os.path.join(folder, "about.json"))
        assert '"command": "python run.py ' in about and '"machine": "' in about, folder
        epochs = list(csv.DictReader(read(os.path.join(folder, "history.csv")).splitlines()))
        assert [int(epoch["epoch"]) for epoch in epochs] == list(range(1, len(epochs) + 1)), folder
        for file in os.listdir(folder):
            assert os.path.getsize(os.path.join(folder, file)) < 200000


@pytest.mark.parametrize("path", sorted(glob.glob(os.path.join(RESULTS, "*", "evaluation.txt"))))
def test_evaluation_json_and_evaluation_txt_say_the_same(path):
    """The texts are older than as_text: scikit-learn's classification_report wrote their tables."""
    numbers = json.loads(read(f"{os.path.splitext(path)[0]}.json"))
    heading, text = read(path).split("\n", 1)
    assert heading == f"{numbers.pop('model')} on {numbers.pop('test_path')}"
    numbers["per_class"] = [ClassMetrics(**row) for row in numbers["per_class"]]
    numbers["confusion_matrix"] = np.array(numbers["confusion_matrix"])
    numbers = {"top5_accuracy": None, "confusions": None, **numbers}  # which earlier versions did not write
    flip = numbers["flip"] and Evaluation(**{**numbers, **numbers["flip"]})
    assert as_text(Evaluation(**dict(numbers, flip=flip))) == text
