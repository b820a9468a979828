"""Which kernels run on the CPU, and that they give the same weights each time."""

import os

import numpy as np
import pytest

from src.tf1 import IS_1_14
from tests.conftest import python
from trainer import Trainer

CONVOLVE = """
from src.tf1 import cpu_kernel_library, tf
with tf.Session() as session:
    image = tf.placeholder(tf.float32, [1, 8, 8, 3])
    session.run(tf.nn.conv2d(image, tf.ones([3, 3, 3, 4]), [1, 1, 1, 1], "SAME"), {image: [[[[0.0] * 3] * 8] * 8]})
print("kernels:", cpu_kernel_library())
"""


@pytest.mark.parametrize("chosen, expected", [(None, "oneDNN"), ("1", "oneDNN"), ("0", "Eigen"), ("false", "Eigen")])
def test_onednn_is_on_unless_the_user_says_otherwise(tmp_path, monkeypatch, chosen, expected):
    """oneDNN itself tells what it does where ONEDNN_VERBOSE is set."""
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if chosen is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", chosen)
    monkeypatch.setenv("ONEDNN_VERBOSE", "1")
    done = python("-c", CONVOLVE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if IS_1_14:
        expected = "Eigen"
    assert done.stdout.splitlines()[-1] == f"kernels: {expected}"
    assert ("convolution" in done.stdout) == (expected == "oneDNN")


def test_keras_is_not_imported_but_there(tmp_path):
    """Importing it takes as long as all the rest of TensorFlow 2.x."""
    code = """
import os, sys
from src.tf1 import tf
print("keras" in sys.modules, os.environ.get("TF_USE_LEGACY_KERAS"))
from tensorflow.keras.layers import Dense
print(Dense.__name__, tf.keras.layers.Dense is Dense)
"""
    done = python("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "False None\nDense True\n"), done.stderr


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="with one thread, nothing is added up in another order")
@pytest.mark.parametrize("given", [
    {"model_arch": "lenet5", "augment": "crop+flip", "classes": ["1", "3", "5", "8"]},
    {"model_arch": "mobilenetv2", "img_size": 32, "width": 0.35, "classes": ["1", "3"]},
])  # fmt: skip
def test_the_same_seed_gives_the_same_weights_bit_for_bit(digits, shallow, in_tmp_path, given):
    results = []
    for _ in range(2):
        trainer = Trainer(train_path=f"{digits}/train", **given)
        trainer.optimize(1)
        history = [{name: entry[name] for name in ("loss", "acc", "val_loss", "val_acc")} for entry in trainer.history]
        results.append(trainer.session.run(trainer.variables) + [history])
        trainer.close()
    *first, first_history = results[0]
    *second, second_history = results[1]
    assert first_history == second_history
    assert all(np.array_equal(one, other) for one, other in zip(first, second))
