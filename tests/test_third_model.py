"""CONTRIBUTING.md, "Add a network", done in a copy of the program."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY, run_file

MODEL = """
from models.layers import fully_connected
from src.tf1 import tf


class Tiny:
    def __init__(self, shape, total_class, image=None):
        self.inputImage = tf.placeholder(tf.float32, shape, name="Image") if image is None else image
        x = tf.reduce_mean(self.inputImage, [1, 2])
        with tf.variable_scope("only", reuse=tf.AUTO_REUSE):
            x = fully_connected(x, total_class, 0.1)
        self.output = tf.identity(x, name="output")

    def getInput(self):
        return self.inputImage

    def getOutput(self):
        return self.output
"""
REGISTRY_LINE = '    "tiny": lambda shape, is4Train, config, image: Tiny(shape, config.total_class, image),\n'
ENTRY = """
    elif model_arch == "tiny":
        img_size = 20
        weight_decay = 0.001
"""


@pytest.fixture
def program(tmp_path):
    """A copy of the program with a third network in it, but for what a test leaves out."""

    def make(registered=True, entry=True):
        folder = tmp_path / "program"
        for name in ("src", "models", "utils", "convert"):
            shutil.copytree(os.path.join(REPOSITORY, name), str(folder / name))
        for name in ("run.py", "trainer.py", "dataset.py"):
            shutil.copy(os.path.join(REPOSITORY, name), str(folder))
        (folder / "models" / "tiny.py").write_text(MODEL)
        if registered:
            edit(folder / "models" / "__init__.py", "MODELS = {\n", "MODELS = {\n" + REGISTRY_LINE)
            edit(folder / "models" / "__init__.py", "from src.errors", "from models.tiny import Tiny\nfrom src.errors")
        edit(folder / "src" / "config.py", "MODEL_ARCHS = {", 'MODEL_ARCHS = {"tiny": 4, ')
        if entry:
            edit(folder / "src" / "config.py", "\n    else:\n", ENTRY + "    else:\n")
        return folder

    return make


def edit(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def train(folder, train_path):
    """Without PYTHONPATH, so that the copy is run and not the program itself."""
    paths = ["--train_path", train_path, "--test_path", train_path]
    command = [sys.executable, "run.py", "--model_arch", "tiny", "--batch_size", "8"] + paths
    return subprocess.run(
        command, cwd=str(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True
    )


def test_a_third_network_is_trained_and_exported(program, folders):
    folder = program()
    done = train(folder, folders({"cat": 20, "dog": 20}))
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: best validation accuracy: ")]
    assert (done.returncode, done.stderr.splitlines()) == (0, notes)  # of noise, which may be beyond it
    metadata = json.loads((folder / "weights" / "tiny" / "tiny.json").read_text())
    assert metadata["input"]["shape"] == [None, 20, 20, 3]
    with open(run_file("run.json", str(folder / "checkpoints" / "tiny"))) as file:
        record = json.load(file)
    assert record["tiny-4"]["settings"]["weight_decay"] == 0.001


@pytest.mark.parametrize("left_out, expected", [
    ("registered", "setting model_arch: found no tiny in MODELS of models/__init__.py"),
    ("entry", "src/config.py: found no img_size for tiny in model_defaults, expected lines for it"),
])  # fmt: skip
def test_a_network_that_is_half_there_is_told_in_one_line(program, folders, left_out, expected):
    done = train(program(**{left_out: False}), folders({"cat": 20, "dog": 20}))
    assert (done.returncode, done.stderr) == (2, f"error: {expected}\n")
