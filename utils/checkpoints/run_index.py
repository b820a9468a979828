"""The runs of a network: the folders of checkpoints that they have written, the latest last."""

import contextlib
import os
import re
import time

from src.console import say
from src.errors import InputError
from src.tf1 import tf
from utils.checkpoints.manager import Checkpoints
from utils.checkpoints.records import RECORD, run_folders
from utils.files import is_in, write_atomically

INDEX = "checkpoint"  # TensorFlow's list of the checkpoints of the latest run


def list_runs(checkpoint_dir):
    """The Checkpoints of all runs, the one that was saved last at the end.

    An earlier version of this program wrote into checkpoint_dir itself.
    """
    return sorted(map(Checkpoints, run_folders(checkpoint_dir)), key=Checkpoints.time)


def find_run(checkpoint_dir, run=None):
    """The Checkpoints of the newest run that has some, or of the one with that name.

    Raises:
        InputError: there is none.
    """
    runs = list_runs(checkpoint_dir)
    found = [checkpoints for checkpoints in runs if checkpoints.newest()]
    names = [os.path.basename(checkpoints.folder) for checkpoints in found]
    if run is not None:
        if run not in names:
            there = f"one of {', '.join(names)}" if names else "one that python run.py runs lists"
            raise InputError(f"--run: found no run {run} with checkpoints in {checkpoint_dir}, expected {there}")
        return found[names.index(run)]
    for damaged in filter(Checkpoints.is_damaged, runs):
        if not (found and found[-1].was_saved_after(damaged)):  # then it may be the record of the latest run
            expected = "expected what training wrote; --run NAME takes another run"
            raise InputError(f"record {os.path.join(damaged.folder, RECORD)}: found a damaged file, {expected}")
    if not found:
        expected = "expected one that training has left"
        raise InputError(f"setting checkpoint_dir: found no run with checkpoints in {checkpoint_dir}, {expected}")
    return found[-1]


def settings_of_run(checkpoint, checkpoint_dir):
    """Those that a checkpoint was trained with; {} if it is not there any more."""
    folder = os.path.dirname(checkpoint or "")
    return (Checkpoints(folder).entry(checkpoint) or {}).get("settings", {}) if is_in(checkpoint_dir, folder) else {}


def delete_old_runs(checkpoint_dir, current, keep):
    """Delete the checkpoints of all runs but `current` and `keep` of the others; None: delete none.

    Runs whose record cannot be read, and links to runs elsewhere, are left alone. One that has no checkpoint, as it was
    killed before it wrote one, is none of those kept.
    """
    if keep is None:
        return
    others = [run for run in list_runs(checkpoint_dir) if run.folder not in (checkpoint_dir, current)]
    others = [run for run in others if not run.is_damaged() and not os.path.islink(run.folder)]
    full = [run for run in others if run.prefixes()]
    kept = full[max(0, len(full) - keep) :]
    for run in others:
        if run not in kept:
            run.delete()
            say(f"deleted the checkpoints in {run.folder}, because keep_runs is {keep}")


def write_index(checkpoint_dir, checkpoints):
    """Write TensorFlow's list of checkpoints, those of the newest run, so that its own tools find them."""
    names = [os.path.relpath(prefix, checkpoint_dir) for prefix in checkpoints.prefixes()]
    if not names:  # somebody has deleted them
        return
    # Its own function makes the paths absolute, or takes them for relative to where we are, unless it is given a root.
    state = tf.train.generate_checkpoint_state_proto(os.sep, names[-1], names)
    write_atomically({os.path.join(checkpoint_dir, INDEX): str(state)})


def new_run_folder(tensorboard_dir, data_path, checkpoint_dir):
    """Make a folder named by the time and the data, 20201231-235959-flowers for flowers/train.

    If that time is taken, there or in checkpoint_dir, it is the next free second.
    """
    parts = [part for part in os.path.abspath(data_path).split(os.sep) if part not in ("", "train", "test")]
    data = re.sub("[^A-Za-z0-9._-]", "_", parts[-1] if parts else "data")[:40]
    second = time.time()
    while True:
        name = time.strftime("%Y%m%d-%H%M%S", time.localtime(second)) + f"-{data}"
        folder = os.path.join(tensorboard_dir, name)
        if not os.path.lexists(os.path.join(checkpoint_dir, name)):
            with contextlib.suppress(FileExistsError):
                os.makedirs(folder)
                return folder
        second += 1
