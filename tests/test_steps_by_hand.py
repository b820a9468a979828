"""Steps that users run in the Trainer's session are of no epoch, and are saved and resumed like others."""

import json
import os

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer import Trainer
from utils.checkpoints.run_index import find_run
from utils.training import monitor

STEPS = 4  # of an epoch of the runs here


def train_by_hand(trainer, steps):
    """As the course invites to: always the same batch."""
    feed = {trainer.x: np.ones([2, 16, 16, 3]), trainer.y_true: [[1, 0], [0, 1]]}
    for _ in range(steps):
        trainer.session.run(trainer.optimizer, feed)


def note_costs(trainer, monkeypatch):
    """A list that gets the cost of each step that optimize() does."""
    costs, step = [], trainer.train_graph.step

    def noting_step(*arguments):
        result = step(*arguments)
        costs.append(result[0])
        return result

    monkeypatch.setattr(trainer.train_graph, "step", noting_step)
    return costs


def interrupt_after(monkeypatch, step):
    """Ctrl-C comes when so many steps have been done."""
    calls = []

    def interrupting(bar, text, refresh):
        calls.append(text)
        if len(calls) == step:
            raise KeyboardInterrupt

    monkeypatch.setattr("utils.progress.ProgressLines.set_postfix_str", interrupting)


def variables(trainer):
    return trainer.session.run({variable.op.name: variable for variable in trainer.graph.get_collection("variables")})


def assert_same_run(one, other):
    """Two Trainers have the same variables, Adam's too, and the same history but for the seconds, bit by bit."""
    values, others = variables(one), variables(other)
    assert [name for name, value in values.items() if not np.array_equal(value, others[name])] == []
    assert [dict(entry, seconds=0) for entry in one.history] == [dict(entry, seconds=0) for entry in other.history]


def test_steps_by_hand_are_of_no_epoch(trainer, monkeypatch):
    costs, drawn, draw_grid = note_costs(trainer, monkeypatch), [], monitor.draw_grid
    monkeypatch.setattr(monitor, "draw_grid", lambda *arguments: drawn.append(arguments) or draw_grid(*arguments))
    train_by_hand(trainer, 3)
    trainer.optimize(1)
    assert len(costs) == STEPS and trainer.step == trainer.session.run(trainer.global_step) == 3 + STEPS
    assert trainer.history[0]["loss"] == pytest.approx(np.mean(costs))
    train_by_hand(trainer, 2)
    trainer.optimize(1)
    assert len(costs) == 2 * STEPS and trainer.step == 3 + STEPS + 2 + STEPS
    assert trainer.history[1]["loss"] == pytest.approx(np.mean(costs[STEPS:]))
    assert [os.path.basename(path) for path, *_ in drawn] == ["train_batch.png"]  # of the first step that is its own
    events = EventAccumulator(trainer.run_folder)
    events.Reload()
    assert [event.step for event in events.Scalars("val_acc")] == [7, 13]
    assert [event.value for event in events.Scalars("train_loss")] == pytest.approx(
        [np.mean(costs[:STEPS]), np.mean(costs[STEPS:])]
    )
    assert events.Tags()["graph"] and len(events.Tensors("settings")) == 1


def test_an_epoch_by_hand_can_be_saved_and_trained_on(trainer, monkeypatch):
    train_by_hand(trainer, STEPS)
    trainer.save()
    assert trainer.last_checkpoint.endswith(f"lenet5-{STEPS}")
    costs = note_costs(trainer, monkeypatch)
    (entry,) = trainer.optimize(1)
    assert len(costs) == STEPS and entry["loss"] == pytest.approx(np.mean(costs))


def test_ctrl_c_after_steps_by_hand_saves_and_the_run_is_resumed_exactly(two_classes, monkeypatch):
    """The seconds of its steps before the interruption count as well."""
    straight = Trainer(**vars(two_classes))
    train_by_hand(straight, 3)
    straight.optimize(2)
    first = Trainer(**dict(vars(two_classes), num_epoch=2))
    train_by_hand(first, 3)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            first.optimize()
    assert first.last_checkpoint.endswith("lenet5-5")
    resumed = Trainer(resume=True)
    assert (resumed.step, resumed.epoch, resumed.state.step_in_epoch) == (5, 0, 2)
    assert resumed.state.seconds > 0
    resumed.state.seconds += 1000  # so that it shows whether they count
    resumed.optimize()
    assert resumed.history[1]["seconds"] < 1000 < resumed.history[0]["seconds"]
    assert_same_run(resumed, straight)


def test_steps_by_hand_that_were_saved_and_those_after_a_resume_end_as_without_it(two_classes):
    straight = Trainer(**vars(two_classes))
    straight.optimize(1)
    train_by_hand(straight, 5)
    straight.optimize(1)
    first = Trainer(**dict(vars(two_classes), num_epoch=2))
    first.optimize(1)
    train_by_hand(first, 3)
    first.export(last=True)
    with open("weights/lenet5/lenet5.json") as file:
        assert json.load(file)["val_acc"] is None  # what was validated are not these weights
    first.save()
    assert (first.val_loss, first.val_acc) == (None, None)
    checkpoints = find_run("checkpoints/lenet5")
    assert checkpoints.latest().endswith("lenet5-7") and checkpoints.best().endswith("lenet5-4")
    resumed = Trainer(resume=True, num_epoch=2)
    assert (resumed.step, resumed.epoch, resumed.state.step_in_epoch) == (7, 1, 0)
    train_by_hand(resumed, 2)
    resumed.optimize()
    assert resumed.step == 13
    assert_same_run(resumed, straight)
