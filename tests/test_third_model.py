"""CONTRIBUTING.md, "Add a network", done in a copy of the program."""

import json
import subprocess
import sys

import pytest

from tests.conftest import run_file
from tests.helpers.program_copy import copy_program

MODEL = """
from models.layers import fully_connected
from src.tf1 import tf

HEAD = "only"


class Tiny:
    def __init__(self, shape, total_class, image=None):
        self.inputImage = tf.placeholder(tf.float32, shape, name="Image") if image is None else image
        x = tf.reduce_mean(self.inputImage, [1, 2])
        with tf.variable_scope(HEAD, reuse=tf.AUTO_REUSE):
            x = fully_connected(x, total_class, 0.1)
        self.output = tf.identity(x, name="output")

    def getInput(self):
        return self.inputImage

    def getOutput(self):
        return self.output


def build(config, shape, is4Train, image):
    return Tiny(shape, config.total_class, image)
"""
ROW = '"tiny": {"min_img_size": 4, "img_size": 20, "weight_decay": 0.001},'


@pytest.fixture
def program(tmp_path):
    """A copy of the program with a third network in it, with this module and this row in src/config.py."""

    def make(model=MODEL, row=ROW):
        folder = tmp_path / "program"
        copy_program(str(folder))
        if model:
            (folder / "models" / "tiny.py").write_text(model)
        edit(folder / "src" / "config.py", "MODEL_ARCHS = {\n", "MODEL_ARCHS = {\n    " + row + "\n")
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


@pytest.mark.parametrize("wrong, expected", [
    ({"model": None},
     "setting model_arch: found an error (No module named 'models.tiny'), expected build and HEAD in models/tiny.py"),
    ({"model": MODEL.replace("HEAD", "TOP")},
     "setting model_arch: found a module that lacks one, expected build and HEAD in models/tiny.py"),
    ({"row": '"tiny": {"min_img_size": 4, "img_size": 20},'},
     "src/config.py: MODEL_ARCHS: expected names of networks, each with min_img_size, img_size and weight_decay"),
])  # fmt: skip
def test_a_network_that_is_half_there_is_told_in_one_line(program, folders, wrong, expected):
    done = train(program(**wrong), folders({"cat": 20, "dog": 20}))
    assert (done.returncode, done.stderr) == (2, f"error: {expected}\n")
