"""The setting deterministic: TensorFlow is told, and a CPU shows what follows as far as it can."""

import json

import pytest

from src.errors import InputError
from src.settings import SETTINGS
from src.tf1 import IS_1_14, tf
from tests.conftest import python
from trainer import Trainer
from utils.training import graph

# A Trainer without the setting, then two runs with it. 2.x refuses to run tf.timestamp then, on any device.
TRAIN = """
import json, os
from src.tf1 import tf
from trainer import Trainer

def is_refused():
    with tf.Graph().as_default(), tf.Session() as session:
        try:
            session.run(tf.timestamp())
        except tf.errors.OpError as error:
            return "determinism is enabled" in str(error)
        return False

found = []
for deterministic in (False, True, True):
    trainer = Trainer(train_path="train", img_size=16, batch_size=8, augment="crop+flip", deterministic=deterministic)
    if deterministic:
        trainer.optimize(1)
    weights = b"".join(value.tobytes() for value in trainer.session.run(trainer.variables))
    found.append([os.environ.get("TF_CUDNN_DETERMINISTIC"), is_refused(), weights.hex()])
print(json.dumps(found))
"""


def test_tensorflow_is_told_and_two_runs_are_the_same_bit_for_bit(folders, in_tmp_path, monkeypatch):
    for name in ("TF_CUDNN_DETERMINISTIC", "TF_DETERMINISTIC_OPS"):
        monkeypatch.delenv(name, raising=False)
    folders({"cat": 20, "dog": 20})
    done = python("-c", TRAIN, cwd=in_tmp_path)
    assert done.returncode == 0, done.stderr
    without, first, second = json.loads(done.stdout.splitlines()[-1])
    assert without[:2] == [None, False]
    assert first[:2] == (["1", False] if IS_1_14 else [None, True])
    assert first == second and len(first[2]) > 10000


@pytest.fixture
def told(monkeypatch):
    """How often TensorFlow would have been told: a list with an element for each time."""
    calls = []
    monkeypatch.setattr(graph, "make_deterministic", lambda: calls.append(1))
    return calls


def test_a_resumed_run_keeps_the_setting_unless_it_is_given(two_classes, told):
    Trainer(**dict(vars(two_classes), deterministic=True)).optimize(1)
    assert len(told) == 1
    assert Trainer(resume=True, num_epoch=2).config.deterministic is True
    assert len(told) == 2
    trainer = Trainer(resume=True, num_epoch=2, deterministic=False)
    trainer.optimize()
    assert (trainer.config.deterministic, trainer.epoch, len(told)) == (False, 2, 2)


# Of TensorFlow 2.21, for gradients in a network whose batch norm is frozen.
REFUSED = (
    "A deterministic GPU implementation of fused batch-norm backprop, when training is disabled, is not available."
)


@pytest.mark.parametrize("deterministic, message, kind", [
    (True, REFUSED, InputError), (True, "another", tf.errors.OpError), (False, REFUSED, tf.errors.OpError),
])  # fmt: skip
def test_an_operation_that_cannot_be_is_named(two_classes, told, monkeypatch, deterministic, message, kind):
    trainer = Trainer(**dict(vars(two_classes), deterministic=deterministic))

    def fail(*arguments, **options):
        raise tf.errors.UnimplementedError(None, None, f"{message}\n\t [[{{{{node gradients/a}}}}]]")

    monkeypatch.setattr(trainer.session, "run", fail)
    with pytest.raises(kind) as caught:
        trainer.train_graph.step(trainer.session, next(trainer.data.train.epoch(8)), graph.Requests(0, 0))
    if kind is InputError:
        found = f"True, with an operation that cannot be ({REFUSED})"
        assert str(caught.value) == f"setting deterministic: found {found}, expected False"


@pytest.mark.parametrize("text, value", [("True", True), ("true", True), ("False", False)])
def test_it_is_true_or_false_on_the_command_line(text, value):
    assert SETTINGS["deterministic"].parse(text) is value
