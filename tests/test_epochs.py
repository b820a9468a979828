"""What an epoch reports of itself, and what ends it: weights that are no number, but no clock and no figure."""

import math
import os
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import trainer as trainer_module
from tests.conftest import python
from trainer import Trainer
from utils.checkpoints.manager import assign
from utils.checkpoints.run_index import find_run
from utils.training import monitor


def test_a_clock_that_stands_still_costs_nothing_but_the_speed(two_classes, monkeypatch, capsys):
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    trainer = Trainer(**vars(two_classes))
    trainer.optimize(2)
    assert [entry["seconds"] for entry in trainer.history] == [0, 0]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2 and all(line.endswith("; 0.0 s") for line in lines)
    events = EventAccumulator(trainer.run_folder)
    events.Reload()
    assert len(events.Scalars("val_acc")) == 2 and "images_per_second" not in events.Tags()["scalars"]
    assert Trainer(resume=True).history == trainer.history


def test_durations_are_not_of_the_clock_that_people_set(two_classes, monkeypatch):
    """It goes back by an hour at each look."""
    start, looks = time.time(), []
    monkeypatch.setattr(time, "time", lambda: looks.append(1) or start - 3600 * len(looks))
    (entry,) = Trainer(**vars(two_classes)).optimize(1)
    assert 0 < entry["seconds"] < 600


def test_a_report_that_fails_does_not_cost_the_epoch(trainer, monkeypatch):
    def failing(*arguments):
        raise RuntimeError("no such font")

    with monkeypatch.context() as patch:
        patch.setattr(monitor.TrainingMonitor, "_write_history", failing)
        with pytest.raises(RuntimeError, match="no such font"):
            trainer.optimize(1)
    resumed = Trainer(resume=True, num_epoch=2)
    assert resumed.epoch == 1 and resumed.history == trainer.history
    resumed.optimize()
    assert resumed.epoch == 2


def spoil(trainer, name, value):
    (variable,) = [variable for variable in trainer.graph.get_collection("variables") if variable.op.name == name]
    assign(trainer.session, [variable], {name: np.full(variable.shape.as_list(), value)})


@pytest.mark.parametrize("name", ["conv1/bias", "fc3/bias/Adam_1"])
def test_what_is_no_number_but_does_not_show_in_the_loss_ends_the_epoch(trainer, name, monkeypatch, capsys):
    """Channels whose bias is -inf are 0 behind their ReLU; Adam's moments show in the loss after the next step only."""
    trainer.optimize(1)
    files, good = os.listdir(trainer.run_folder), trainer.last_checkpoint
    if name == "conv1/bias":
        spoil(trainer, name, -np.inf)
    else:
        monkeypatch.setattr(trainer, "evaluate", lambda data: spoil(trainer, name, np.inf) or (1.0, 0.5))
    with pytest.raises(FloatingPointError) as found:
        trainer.optimize(1)
    expected = "weights or Adam's moments: found NaN or Inf at step 8, learning rate 0.01, expected a finite number; "
    assert str(found.value) == f"{expected}last good checkpoint: {good}; setting lr: found 0.01, try a smaller one"
    assert len(trainer.history) == 1 and capsys.readouterr().out.count("epoch ") == 1
    assert len(os.listdir(trainer.run_folder)) == len(files) + 1  # the second log, which has nothing of the epoch
    events = EventAccumulator(trainer.run_folder)
    events.Reload()
    assert [event.step for event in events.Scalars("val_acc")] == [event.step for event in events.Scalars("train_loss")]
    assert find_run("checkpoints/lenet5").latest() == good


def test_validation_weighs_a_short_last_batch_by_its_images(trainer, monkeypatch):
    """Batches of 4 and 2 of 6 images, the last of one class, which the network is made to take for the other."""
    monkeypatch.setattr(trainer_module, "inference_batch", lambda img_size: 4)
    batches = list(trainer.data.valid.batches(4))
    assert [len(batch.images) for batch in batches] == [4, 2] and set(batches[1].cls) == {"dog"}
    (bias,) = [variable for variable in trainer.variables if variable.op.name == "fc3/bias"]
    assign(trainer.session, [bias], {"fc3/bias": [2.0, -2.0]})
    losses, hits = [], []
    for batch in batches:
        for image, label in zip(batch.images, batch.labels.argmax(1)):
            (logits,) = trainer.session.run(trainer.model.getOutput(), {trainer.x: image[np.newaxis]}).astype(float)
            losses.append(math.log(sum(math.exp(logit) for logit in logits)) - logits[label])
            hits.append(logits.argmax() == label)
    weighed = np.mean(losses), np.mean(hits)
    unweighed = np.mean([[np.mean(part[:4]), np.mean(part[4:])] for part in (losses, hits)], axis=1)
    assert np.abs(weighed - unweighed).min() > 0.1
    assert trainer.evaluate(trainer.data.valid) == pytest.approx(weighed, rel=1e-5)


DETERMINISTIC = """
import sys, run
for arguments in (["--train_path", "train", "--img_size", "16", "--batch_size", "8", "--num_epoch", "1"],
                  ["summary"], ["summary", "--model_arch", "mobilenetv2"], ["evaluate", "--test_path", "train"],
                  ["export"]):
    code = run.main(arguments)
    if code:
        sys.exit(f"{arguments}: {code}")
"""


def test_everything_works_where_tensorflow_is_told_to_be_deterministic(folders, in_tmp_path, monkeypatch):
    folders({"cat": 20, "dog": 20})
    monkeypatch.setenv("TF_DETERMINISTIC_OPS", "1")
    done = python("-c", DETERMINISTIC, cwd=in_tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
