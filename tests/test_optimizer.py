"""Optimizer and learning rate; and CONTRIBUTING.md, "Use another optimizer", done in a copy of the program."""

import csv
import glob
import math
import os
import re

import pytest

from tests.conftest import REPOSITORY
from tests.helpers.program_copy import copy_program, run_copy
from utils.checkpoints.manager import read_weights


def example():
    with open(os.path.join(REPOSITORY, "CONTRIBUTING.md"), encoding="utf-8") as file:
        section = file.read().split("## Use another optimizer")[1]
    return re.search("```python\n(.*?)```", section, re.DOTALL).group(1)


def test_sgd_with_momentum_and_a_cosine(folders, tmp_path):
    folder, train_path = str(tmp_path / "program"), folders({"cat": 20, "dog": 20})
    copy_program(folder)
    with open(os.path.join(folder, "utils", "training", "optimizer.py"), "w") as file:
        file.write(example())
    data = ["--train_path", train_path, "--batch_size", "8", "--img_size", "16", "--num_epoch", "3"]
    run_copy(folder, *data)
    (log,) = glob.glob(os.path.join(folder, "graphs", "lenet5", "2*", "history.csv"))
    with open(log) as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    last_steps = [3, 7, 11]  # of three epochs of four steps, from 0
    assert rates == pytest.approx([0.01 * (1 + math.cos(math.pi * step / 12)) / 2 for step in last_steps], rel=1e-4)

    (checkpoint,) = glob.glob(os.path.join(folder, "checkpoints", "lenet5", "2*"))
    names = set(read_weights("checkpoint", os.path.join(checkpoint, "lenet5-12")))
    slots = {name for name in names if name.endswith("/Momentum")}
    assert len(slots) == 10 and names - slots == {name[: -len("/Momentum")] for name in slots} | {"global_step"}
    assert "3 of 3 epochs done" in run_copy(folder, "--resume", "--train_path", train_path)
