"""The Trainer: its attributes, its steps worked out in numpy, and what ends its training."""

import json
import os
import re
import signal

import numpy as np
import pytest

from src.errors import InputError
from src.tf1 import tf
from tests.conftest import make_folders, run_file
from trainer import Trainer
from utils.checkpoints.run_index import find_run


def test_the_public_attributes_are_there(trainer):
    assert trainer.x.name == "Image:0" and trainer.x is trainer.model.getInput()
    assert trainer.y_true.shape.as_list() == [None, 2]
    assert (trainer.lr, trainer.step_rate, trainer.decay, trainer.train_batch_size) == (0.01, 1000, 0.95, 8)
    assert trainer.data.train.num_examples == 34 and trainer.data.valid.num_examples == 6  # 40 * .16 = 6.4
    for name in ("session", "cross_entropy", "cost", "learning_rate", "global_step", "optimizer", "accuracy"):
        assert getattr(trainer, name) is not None


def test_learning_rate_falls_in_steps(trainer):
    for step, expected in [(0, 0.01), (999, 0.01), (1000, 0.0095), (2500, 0.009025)]:
        assert trainer.session.run(trainer.learning_rate, {trainer.global_step: step}) == pytest.approx(expected)


def test_whole_numbers_are_numbers(two_classes):
    trainer = Trainer(**dict(vars(two_classes), lr=1, decay=1, epsilon=1, weight_decay=1))
    trainer.optimize(1)
    assert trainer.session.run(trainer.learning_rate) == 1


def test_cost_and_accuracy_of_a_batch_worked_out_in_numpy(trainer):
    images, labels, _, _ = trainer.data.train.next_batch(8)
    logits, cost, accuracy = trainer.session.run(
        [trainer.model.getOutput(), trainer.cost, trainer.accuracy], {trainer.x: images, trainer.y_true: labels}
    )
    probabilities = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(axis=1, keepdims=True)
    assert cost == pytest.approx(-np.log(probabilities[labels == 1]).mean(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == labels.argmax(1)).mean())


def test_a_step_is_adam_s(trainer):
    """One update of the last bias against Kingma & Ba (2014), algorithm 1, with epsilon as TensorFlow places it."""
    images, labels, _, _ = trainer.data.train.next_batch(8)
    feed = {trainer.x: images, trainer.y_true: labels}
    with trainer.graph.as_default():
        bias = [variable for variable in tf.trainable_variables() if variable.op.name == "fc3/bias"][0]
    logits, before = trainer.session.run([trainer.model.getOutput(), bias], feed)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gradient = (probabilities - labels).mean(axis=0)
    trainer.session.run(trainer.optimizer, feed)
    m, v = 0.1 * gradient, 0.001 * gradient**2
    expected = before - 0.01 * np.sqrt(1 - 0.999) / (1 - 0.9) * m / (np.sqrt(v) + 0.01)
    np.testing.assert_allclose(trainer.session.run(bias), expected, rtol=1e-4, atol=1e-7)
    assert trainer.session.run(trainer.global_step) == 1


def test_the_graph_is_final_from_the_start(trainer):
    with trainer.graph.as_default(), pytest.raises(RuntimeError, match="finalized"):
        tf.constant(1.0)


def test_optimize_and_export_leave_graph_checkpoint_and_metadata(trainer):
    trainer.optimize(num_epoch=1)
    path = trainer.export()
    assert path == "weights/lenet5/lenet5.pb"
    assert sorted(os.listdir("weights/lenet5")) == ["labels.txt", "lenet5.json", "lenet5.pb"]
    folder = f"checkpoints/lenet5/{os.path.basename(trainer.run_folder)}"
    assert tf.train.latest_checkpoint("checkpoints/lenet5") == f"{folder}/lenet5-4"  # floor(34 / 8)
    assert trainer.session.run(trainer.global_step) == 4
    with open(f"{folder}/run.json") as file:
        record = json.load(file)
    assert record["lenet5-4"]["settings"]["classes"] == ["cat", "dog"]
    assert record["lenet5-4"]["val_acc"] == trainer.val_acc


def test_a_loss_that_is_no_number_ends_training_and_is_not_saved(two_classes):
    trainer = Trainer(**dict(vars(two_classes), lr=1e20))
    with pytest.raises(FloatingPointError, match="lr: found 1e.20, try a smaller one"):
        trainer.optimize(num_epoch=5)
    assert tf.train.latest_checkpoint("checkpoints/lenet5") is None


def test_numpy_numbers_are_numbers(two_classes):
    trainer = Trainer(**dict(vars(two_classes), seed=np.int64(3), lr=np.float64(0.02), batch_size=np.int32(8)))
    trainer.optimize(num_epoch=1)
    assert find_run("checkpoints/lenet5").settings_of("lenet5-4").lr == 0.02


def test_a_number_of_epochs_from_numpy(trainer):
    trainer.optimize(np.int64(2))
    assert trainer.epoch == 2


@pytest.mark.parametrize("num_epoch", [0, -1, "3", 1.5])
def test_a_wrong_number_of_epochs(trainer, num_epoch):
    with pytest.raises(InputError, match="num_epoch"):
        trainer.optimize(num_epoch)


def test_validation_sees_every_image_once(trainer):
    images, labels = zip(*[batch[:2] for batch in trainer.data.valid.batches(1)])
    losses, hits = zip(
        *[
            trainer.session.run([trainer.cost, trainer.accuracy], {trainer.x: x, trainer.y_true: y})
            for x, y in zip(images, labels)
        ]
    )
    assert len(losses) == 6
    assert trainer.evaluate(trainer.data.valid) == pytest.approx((np.mean(losses), np.mean(hits)), rel=1e-5)


def test_training_says_what_it_computes_on_and_learns_from(two_classes, capsys):
    for name in ("a.gif", "b.gif", "notes.txt", "noend", ".hidden"):
        open(os.path.join(two_classes.train_path, "cat", name), "w").close()
    os.mkdir(os.path.join(two_classes.train_path, "dog", "more"))
    os.remove(os.path.join(two_classes.train_path, "dog", "000.png"))
    Trainer(**vars(two_classes))
    output = capsys.readouterr()
    first, second, third, note = output.out.splitlines()
    assert re.fullmatch(rf"TensorFlow {tf.__version__} on the CPU, with (oneDNN|Eigen) kernels", first)
    assert second == "33 images to train on, 6 to validate on; 2 classes of 19 (dog) to 20 (cat) images"
    assert third == f"note: skipped in {two_classes.train_path}: 2 .gif, 1 .txt, 1 folder, 1 without extension"
    assert output.err == ""
    assert (
        note == "note: setting test_path: found no folder data/cifar10png/test; evaluate will use the validation images"
    )
    os.makedirs("tests/cat")
    Trainer(**dict(vars(two_classes), test_path="tests"))
    assert "found no images in class folder tests/cat, expected files" in capsys.readouterr().out
    make_folders("testing", {"cat": 1, "dog": 1})
    Trainer(**dict(vars(two_classes), test_path="testing"))
    assert "test_path" not in capsys.readouterr().out


def test_two_trainers_do_not_disturb_one_another(two_classes):
    first = Trainer(**vars(two_classes))
    second = Trainer(**dict(vars(two_classes), img_size=20, checkpoint_dir="second", weight_dir="second"))
    assert second.x.name == "Image:0" and second.model.getOutput().name == "output:0"
    weights = first.session.run(first.graph.get_tensor_by_name("fc3/kernel:0"))
    second.optimize(num_epoch=1)
    assert np.array_equal(first.session.run(first.graph.get_tensor_by_name("fc3/kernel:0")), weights)
    first.optimize(num_epoch=2)
    assert (first.step, second.step) == (8, 4)
    assert first.run_folder != second.run_folder


def test_the_same_seed_gives_the_same_start(two_classes):
    def start(**given):
        trainer = Trainer(**dict(vars(two_classes), **given))
        return trainer.evaluate(trainer.data.train)[0]

    assert start() == start()
    assert start(seed=1) != start()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_a_checkpoint(trainer, monkeypatch, stop):
    trainer.optimize(num_epoch=1)
    bar_text, calls = "utils.progress.ProgressLines.set_postfix_str", []

    def interrupt(self, text, refresh):
        calls.append(text)
        if len(calls) == 3:
            raise stop

    monkeypatch.setattr(bar_text, interrupt)
    with pytest.raises(stop):
        trainer.optimize(num_epoch=1)
    assert tf.train.latest_checkpoint("checkpoints/lenet5").endswith("lenet5-7")
    assert trainer.session.run(trainer.global_step) == 7
    with open(run_file("run.json")) as file:
        assert json.load(file)["lenet5-7"]["val_acc"] is None


def test_a_step_that_was_done_when_ctrl_c_came_belongs_to_no_epoch(trainer, monkeypatch):
    run, steps = trainer.session.run, []

    def run_then_interrupt(fetches, *arguments, **options):
        result = run(fetches, *arguments, **options)
        if isinstance(fetches, list):
            steps.append(fetches)
            if len(steps) == 3:
                raise KeyboardInterrupt  # as Python raises it when the C++ part of session.run returns
        return result

    monkeypatch.setattr(trainer.session, "run", run_then_interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.optimize(num_epoch=1)
    assert trainer.session.run(trainer.global_step) == trainer.step == 3
    assert tf.train.latest_checkpoint("checkpoints/lenet5") is None  # its loss is lost: it would not be resumed exactly
    assert trainer.data.train.epochs_completed == trainer.epoch == 0 and trainer.state.step_in_epoch == 2
    trainer.optimize(num_epoch=1)  # does that step again, so that the means of the epoch are over all of its steps
    assert trainer.step == 5 and trainer.data.train.epochs_completed == trainer.epoch == 1


@pytest.mark.parametrize(
    "losses, patience, epochs",
    [
        ([5, 4, 3, 2, 1], 1, 5),
        ([5, 4, 4, 3, 2], 1, 3),
        ([5, 4, 6, 7, 3], 2, 4),
        ([5, 4, 6, 3, 4], 2, 5),
        ([1, 2, 3, 4, 5], None, 5),
    ],
)
def test_early_stopping(two_classes, monkeypatch, losses, patience, epochs):
    trainer = Trainer(**dict(vars(two_classes), early_stopping=patience))
    monkeypatch.setattr(trainer, "evaluate", lambda data: (losses[trainer.epoch], 0.5))
    trainer.optimize(num_epoch=5)
    assert trainer.epoch == epochs


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"batch_size": 35}, "batch_size: found 35, expected at most 34"),
        ({"checkpoint_dir": "/dev/null/here"}, "checkpoint_dir"),
        ({"weight_dir": "/dev/null/here"}, "weight_dir"),
        ({"tensorboard_dir": "/dev/null/here"}, "tensorboard_dir"),
    ],
)
def test_what_cannot_work_is_reported_before_training(two_classes, given, expected):
    with pytest.raises(InputError, match=expected):
        Trainer(**dict(vars(two_classes), **given))


def test_the_handler_of_signals_is_the_caller_s_business(two_classes):
    before = signal.getsignal(signal.SIGTERM)
    Trainer(**vars(two_classes)).optimize(num_epoch=1)
    assert signal.getsignal(signal.SIGTERM) is before
