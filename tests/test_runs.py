"""Runs: which is the latest, and which are kept."""

import json
import os
import random
import time

import pytest

from src.errors import InputError
from utils.checkpoints import run_metadata
from utils.checkpoints.manager import CheckpointManager
from utils.checkpoints.run_index import delete_old_runs, find_run, list_runs

FOLDER = "checkpoints/lenet5"
ENTRY = {"settings": {"model_arch": "lenet5"}, "run_folder": None, "val_acc": 0.5, "val_loss": 1.0}


def save_run(name, checkpoints=("lenet5-5",)):
    """Save a run as training does, but for the weights; returns its folder."""
    folder = os.path.join(FOLDER, name)
    os.makedirs(folder, exist_ok=True)
    for checkpoint in checkpoints:
        for end in ("index", "data-00000-of-00001"):
            open(os.path.join(folder, f"{checkpoint}.{end}"), "w").close()
    run_metadata.write_run_metadata(folder, dict.fromkeys(checkpoints, ENTRY), [])
    return folder


def names_of(runs):
    return [os.path.basename(found.folder) for found in runs]


# Which runs are kept


@pytest.mark.parametrize("keep", [0, 1, 2, 3, 4, 5, 6, None])
def test_as_many_earlier_runs_keep_their_checkpoints_as_is_promised(in_tmp_path, keep):
    """After each of eight runs, against a list of them all."""
    there = []
    for number in range(9):
        current = save_run(f"run{number}")
        delete_old_runs(FOLDER, current, keep)
        earlier = there if keep is None else there[len(there) - keep :] if keep < len(there) else there
        there = [*earlier, f"run{number}"]
        assert names_of(list_runs(FOLDER)) == there
        assert all(os.path.exists(f"{FOLDER}/{name}/lenet5-5.data-00000-of-00001") for name in there)


def test_a_run_that_was_killed_before_its_first_checkpoint_takes_no_place_of_another(in_tmp_path):
    for name, checkpoints in (("a", ["lenet5-1"]), ("b", ["lenet5-1"]), ("killed", []), ("c", ["lenet5-1"])):
        current = save_run(name, checkpoints)
    delete_old_runs(FOLDER, current, 2)
    assert names_of(list_runs(FOLDER)) == ["a", "b", "c"]


def test_a_run_that_is_a_link_to_elsewhere_loses_nothing_and_is_listed(in_tmp_path):
    os.rename(save_run("a"), "elsewhere")
    os.symlink("../../elsewhere", f"{FOLDER}/a")
    current = save_run("b")
    before = sorted(os.listdir("elsewhere"))
    delete_old_runs(FOLDER, current, 0)
    CheckpointManager(f"{FOLDER}/a").delete()
    assert sorted(os.listdir("elsewhere")) == before and names_of(list_runs(FOLDER)) == ["a", "b"]


def test_copies_that_people_make_of_checkpoints_are_kept(in_tmp_path):
    folder = save_run("a")
    copies = ["best.index", "best.data-00000-of-00001", "mine-7.index", "lenet5-5 (copy).index", "notes.txt"]
    for name in (*copies, "lenet5-7.index", "lenet5-7.data-00000-of-00001.tempstate12"):
        open(os.path.join(folder, name), "w").close()
    CheckpointManager(folder).delete_unlisted()
    assert sorted(os.listdir(folder)) == sorted([*copies, "lenet5-5.index", "lenet5-5.data-00000-of-00001", "run.json"])


# Which run is the latest


@pytest.mark.parametrize("seed", range(5))
def test_the_latest_run_is_the_one_that_was_saved_last_whatever_the_clock_says(in_tmp_path, monkeypatch, seed):
    """Ten runs, some resumed, with a clock that jumps by years; against a list."""
    dice, saved = random.Random(seed), []
    for _ in range(20):
        monkeypatch.setattr(time, "time", lambda: dice.choice([0.0, 1.5e9, 1.6e9, 1.7e9]))
        name = f"run{dice.randrange(10)}"
        saved = [other for other in saved if other != name] + [name]
        save_run(name)
        assert names_of(list_runs(FOLDER)) == saved
        assert find_run(FOLDER).folder == f"{FOLDER}/{name}"


def test_records_of_earlier_versions_keep_their_order_and_come_before_a_new_run(in_tmp_path, monkeypatch):
    """They have the time of the clock, and the first version of all had none."""
    written = {"c": {"time": 1.5e9}, "a": {"time": 1.6e9}, "b": {}, "d": {"time": 1e300}, "e": {"time": "now"}}
    for name, more in written.items():
        with open(os.path.join(save_run(name), "run.json"), "w") as file:
            json.dump(dict({"lenet5-5": ENTRY}, **more), file)
    monkeypatch.setattr(time, "time", lambda: 1.0)
    save_run("new")
    assert names_of(list_runs(FOLDER)) == ["b", "d", "e", "c", "a", "new"]


def damage(folder):
    with open(os.path.join(folder, "run.json"), "w") as file:
        file.write("{")


def test_corrupt_metadata_may_be_that_of_the_latest_run_until_another_was_saved(in_tmp_path):
    """Whatever the times of the files say."""
    save_run("a")
    damage(save_run("b"))
    os.utime(f"{FOLDER}/b/run.json", (0, 0))
    with pytest.raises(InputError, match=f"metadata {FOLDER}/b/run.json: found a corrupt file, expected .* --run NAME"):
        find_run(FOLDER)
    assert find_run(FOLDER, "a").folder == f"{FOLDER}/a"
    save_run("c")
    os.utime(f"{FOLDER}/b/run.json", (4e9, 4e9))
    assert find_run(FOLDER).folder == f"{FOLDER}/c"
    damage(save_run("d"))
    with pytest.raises(InputError, match=f"metadata {FOLDER}/d/run.json: found a corrupt file"):
        find_run(FOLDER)
