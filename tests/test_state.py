"""What a checkpoint records beside the variables, what of it is refused, and what is resumed."""

import json
import math
import shutil

import pytest

from src.errors import InputError
from src.tf1 import tf
from tests.conftest import make_folders, run_file, working_in
from trainer import Trainer
from utils.checkpoints.resume import latest_valid_checkpoint
from utils.checkpoints.run_index import find_run
from utils.training.state import TrainState

QUICK = {"train_path": "train", "img_size": 16, "batch_size": 8}


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
    ("seconds", math.nan, ": found an invalid entry in run.json, expected "),
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
    assert "/lenet5-8: 2 of 3 epochs done" in capsys.readouterr().out
    trainer.optimize()
    assert trainer.epoch == 3 and tf.train.latest_checkpoint("checkpoints/lenet5").endswith("lenet5-12")
