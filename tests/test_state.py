"""What a checkpoint records beside the variables: what is a step of an epoch, what can be resumed, what cannot."""

import json
import math
import os
import shutil
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import trainer as trainer_module
from src.errors import InputError
from src.tf1 import tf
from tests.conftest import make_folders, python, run_file, working_in
from trainer import Trainer
from utils.checkpoints.manager import assign
from utils.checkpoints.resume import latest_valid_checkpoint
from utils.checkpoints.run_index import find_run
from utils.training import monitor
from utils.training.state import TrainState

STEPS = 4  # of an epoch of the runs here
QUICK = {"train_path": "train", "img_size": 16, "batch_size": 8}


@pytest.fixture
def trainer(two_classes):
    return Trainer(**vars(two_classes))


def train_by_hand(trainer, steps):
    """As the course invites to: always the same batch."""
    feed = {trainer.x: np.ones([2, 16, 16, 3]), trainer.y_true: [[1, 0], [0, 1]]}
    for _ in range(steps):
        trainer.session.run(trainer.optimizer, feed)


def note_costs(trainer, monkeypatch):
    """A list that gets the cost of each step that optimize() does."""
    costs, step = [], trainer.learning.step

    def noting_step(*arguments):
        result = step(*arguments)
        costs.append(result[0])
        return result

    monkeypatch.setattr(trainer.learning, "step", noting_step)
    return costs


def interrupt_after(monkeypatch, step):
    """Ctrl-C comes when so many steps have been done."""
    calls = []

    def interrupting(bar, n=1):
        calls.append(n)
        if len(calls) == step:
            raise KeyboardInterrupt

    monkeypatch.setattr("tqdm.tqdm.update", interrupting)


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
    assert checkpoints.newest().endswith("lenet5-7") and checkpoints.best().endswith("lenet5-4")
    resumed = Trainer(resume=True, num_epoch=2)
    assert (resumed.step, resumed.epoch, resumed.state.step_in_epoch) == (7, 1, 0)
    train_by_hand(resumed, 2)
    resumed.optimize()
    assert resumed.step == 13
    assert_same_run(resumed, straight)


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
    expected = (
        "weights or Adam's moments: found NaN or Inf at step 8, learning rate 0.01, expected a number; last good "
    )
    assert str(found.value) == f"{expected}checkpoint: {good}; setting lr: found 0.01, try a smaller one"
    assert len(trainer.history) == 1 and capsys.readouterr().out.count("epoch ") == 1
    assert len(os.listdir(trainer.run_folder)) == len(files) + 1  # the second log, which has nothing of the epoch
    events = EventAccumulator(trainer.run_folder)
    events.Reload()
    assert [event.step for event in events.Scalars("val_acc")] == [event.step for event in events.Scalars("train_loss")]
    assert find_run("checkpoints/lenet5").newest() == good


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


# What a record can say, of a run of two epochs, in the second of which a step is done.
LINES = [{"epoch": number, "loss": 1.5, "acc": 0.5, "val_loss": 2.0, "val_acc": 0.25, "learning_rate": 0.01,
          "seconds": 3.0} for number in (1, 2)]  # fmt: skip
ENTRY = {
    "settings": {}, "run_folder": "graphs/lenet5/x", "epoch": 1, "global_step": 5, "val_loss": None, "val_acc": None,
    "progress": {"epoch": 1, "position": 1, "sums": [1.25, 0.5], "seconds": 0.5, "learning_rate": 0.01,
                 "window": {"train_loss": 2.5, "train_acc": 1.0, "learning_rate": 0.02, "steps": 2.0},
                 "fingerprint": "abc", "members": 2},
}  # fmt: skip


def with_value(path, value):
    """(entry, history), the value in that place changed; as JSON gives them."""
    record = json.loads(json.dumps({"entry": ENTRY, "history": LINES}))
    *parents, last = path
    place = record
    for name in parents:
        place = place[name]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    record = json.loads(json.dumps(record))
    return record["entry"], record["history"]


MISSING = object()
NO_NUMBERS = [MISSING, None, "x", "5", True, [], [1], {}, math.nan, math.inf, -math.inf, 10**400, -(10**400)]
NO_AMOUNTS = [*NO_NUMBERS, -1, -0.5]
NO_COUNTS = [*NO_AMOUNTS, 1.5, 2.0, 2**63]
WRONG = {
    ("entry", "global_step"): NO_COUNTS,
    ("entry", "val_loss"): NO_NUMBERS[2:],
    ("entry", "val_acc"): NO_NUMBERS[2:],
    ("entry", "progress"): [MISSING, None, "x", [], 5],
    ("entry", "progress", "epoch"): [*NO_COUNTS, 3, 10**12],
    ("entry", "progress", "position"): NO_COUNTS,
    ("entry", "progress", "seconds"): NO_AMOUNTS,
    ("entry", "progress", "learning_rate"): NO_AMOUNTS,
    ("entry", "progress", "members"): [value for value in NO_COUNTS if value is not MISSING] + [0],
    ("entry", "progress", "fingerprint"): [MISSING, None, 5, []],
    ("entry", "progress", "sums"): [MISSING, None, 5, [], [1.0], [1.0, 2.0, 3.0], {"0": 1.0, "1": 2.0}, ["x", 1.0],
                                    [math.nan, 1.0], [1.0, -1.0], [True, 1.0], [10**400, 1.0]],
    ("entry", "progress", "window"): [MISSING, None, 5, [], [1], {"train_loss": 2.5}, {"steps": 0}, {"steps": -1.0},
                                      {"steps": "x"}, {"steps": True}, {"steps": math.nan}, {"a\nb": 1, "steps": 1},
                                      {"\ud800": 1.0, "steps": 1.0}],
    ("entry", "progress", "window", "steps"): [MISSING, None, 0, -1.0, "x", math.nan, 10**400],
    ("entry", "progress", "window", "train_loss"): NO_NUMBERS[1:],
    ("history", 0): [None, 5, "x", [], {}],
    ("history", 0, "epoch"): [*NO_COUNTS, 0, 2],
    **{("history", 0, name): NO_NUMBERS for name in ("loss", "acc", "val_loss", "val_acc", "learning_rate", "seconds")},
}  # fmt: skip


@pytest.mark.parametrize("path", WRONG, ids=lambda path: ".".join(map(str, path)))
def test_a_field_that_is_wrong_is_named(path):
    for value in WRONG[path]:
        entry, history = with_value(path, value)
        with pytest.raises(InputError) as refused:
            TrainState.from_json(entry, history, "checkpoint lenet5-5")
        message = str(refused.value)
        assert message.startswith("checkpoint lenet5-5") and len(message) < 250 and "\n" not in message
        if path[0] == "entry":
            names = [name for name in path[1:] if name not in ("train_loss", "steps")]
            assert all(name in message for name in names), message
        else:
            assert "epoch 1 of the history" in message and (len(path) == 2 or path[2] in message), message


@pytest.mark.parametrize("entry", [None, [], "x", 5])
def test_an_entry_that_is_no_object_is_refused(entry):
    with pytest.raises(InputError, match="^checkpoint x: found .*, expected global_step, val_loss, val_acc$"):
        TrainState.from_json(entry, LINES, "checkpoint x")


@pytest.mark.parametrize("path, value", [
    (("entry", "progress", "seconds"), 0), (("entry", "progress", "sums"), [1, 0]), (("entry", "val_loss"), 2),
    (("entry", "progress", "learning_rate"), 1), (("history", 0, "seconds"), 3), (("history", 1), "of no matter"),
    (("entry", "progress", "window"), {}), (("entry", "progress", "window", "steps"), 2),
    (("entry", "progress", "members"), MISSING), (("entry", "progress", "sums"), [-1e-9, 0.0]),
])  # fmt: skip
def test_whole_numbers_are_numbers_and_what_may_be_missing_may(path, value):
    state = TrainState.from_json(*with_value(path, value), "checkpoint x")
    state.add_step(1.0, 0.5, {"learning_rate": 0.01})
    assert (state.epoch, state.step_in_epoch, type(state.seconds), type(state.loss_sum)) == (1, 2, float, float)


def test_a_state_is_read_as_it_was_written():
    """The names on disk are those of earlier versions, which can so read what this one writes."""
    state = TrainState.from_json(ENTRY, LINES, "x")
    assert (state.epoch, state.step, state.step_in_epoch, state.history) == (1, 5, 1, LINES[:1])
    assert (state.loss_sum, state.accuracy_sum, state.seconds, state.world_size) == (1.25, 0.5, 0.5, 2)
    own = ("settings", "run_folder")
    assert dict(state.to_json(), **{name: ENTRY[name] for name in own}) == ENTRY


def test_an_epoch_worked_out_by_hand():
    state = TrainState("abc", 1, 0.1)
    assert not state.has_begun() and state.sync_step(3) == 3 and not state.has_begun()
    for number, loss in enumerate((4.0, 2.0, 0.0)):
        state.add_step(loss, 0.5, {"learning_rate": 0.1 / 2**number, "weight_loss": 7.0})
    assert state.has_begun() and (state.step, state.step_in_epoch) == (6, 3)
    means = {"train_loss": 2.0, "train_acc": 0.5, "weight_loss": 7.0, "learning_rate": pytest.approx(0.175 / 3)}
    assert state.take_means() == means and state.take_means() == {}
    state.seconds = 8.0
    state.end_epoch(1.0, 0.75, 9.0)
    entry = {"epoch": 1, "loss": 2.0, "acc": 0.5, "val_loss": 1.0, "val_acc": 0.75, "learning_rate": 0.025}
    assert state.history == [dict(entry, seconds=9.0)] and (state.val_loss, state.val_acc) == (1.0, 0.75)
    assert (state.step_in_epoch, state.loss_sum, state.accuracy_sum, state.seconds) == (0, 0, 0, 0)
    assert state.sync_step(6) == 0 and state.val_acc == 0.75
    assert state.sync_step(8) == 2 and (state.step, state.step_in_epoch, state.val_acc) == (8, 0, None)
    state.add_step(5.0, 1.0, {"learning_rate": 0.025})
    state.end_epoch(1.0, 0.5, 1.0)
    assert state.history[1]["loss"] == 5.0 and state.history[1]["epoch"] == 2


@pytest.fixture(scope="module")
def two_epochs_once(tmp_path_factory):
    """A folder with a run of two epochs."""
    folder = tmp_path_factory.mktemp("two_epochs")
    with working_in(folder):
        make_folders("train", {"cat": 20, "dog": 20})
        Trainer(**QUICK).optimize(2)
    return folder


@pytest.fixture
def two_epochs(two_epochs_once, tmp_path, monkeypatch):
    """Work in a copy of it."""
    shutil.copytree(str(two_epochs_once), str(tmp_path / "work"))
    monkeypatch.chdir(str(tmp_path / "work"))


@pytest.mark.parametrize("name, value, expected", [
    ("members", "x", ", progress: found 'x' as members, expected a whole number, 1 or more"),
    ("window", {"train_loss": 1.0}, ", progress: found {'train_loss': 1.0} as window, expected "),
    ("seconds", math.nan, ": found an entry of run.json that training did not write, expected "),
])  # fmt: skip
def test_a_checkpoint_with_a_wrong_field_is_skipped_and_the_field_named(two_epochs, capsys, name, value, expected):
    with open(run_file("run.json")) as file:
        record = json.load(file)
    record["lenet5-8"]["progress"][name] = value
    with open(run_file("run.json"), "w") as file:
        json.dump(record, file)
    checkpoints = find_run("checkpoints/lenet5")
    assert latest_valid_checkpoint(checkpoints).endswith("lenet5-4")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: checkpoint {checkpoints.folder}/lenet5-8{expected}")


def test_a_record_of_whole_numbers_is_resumed(two_epochs, capsys):
    with open(run_file("run.json")) as file:
        record = json.load(file)
    record["lenet5-8"]["progress"].update(seconds=0, sums=[0, 0])
    record["history"][1]["seconds"] = 1
    with open(run_file("run.json"), "w") as file:
        json.dump(record, file)
    trainer = Trainer(resume=True, num_epoch=3)
    assert "/lenet5-8: 2 of 3 epochs are done" in capsys.readouterr().out
    trainer.optimize()
    assert trainer.epoch == 3 and tf.train.latest_checkpoint("checkpoints/lenet5").endswith("lenet5-12")
