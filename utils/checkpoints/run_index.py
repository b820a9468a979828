"""The runs of a network: finding, listing and deleting their checkpoint folders."""

import contextlib
import os
import re
import time

from src.console import say
from src.errors import InputError
from src.tf1 import tf
from utils.checkpoints.manager import CheckpointManager
from utils.checkpoints.run_metadata import METADATA_FILE, run_folders
from utils.files import is_in, write_atomically

INDEX = "checkpoint"  # TensorFlow's list of the checkpoints of the latest run


def list_runs(checkpoint_dir):
    """The CheckpointManager of each run, the run that was saved last at the end.

    Among them checkpoint_dir itself, if an earlier version of this program has written there.
    """
    return sorted(map(CheckpointManager, run_folders(checkpoint_dir)), key=CheckpointManager.saved_at)


def find_run(checkpoint_dir, run=None):
    """The CheckpointManager of the latest run with checkpoints, or of the run with that name.

    Raises:
        InputError: there is none.
    """
    runs = list_runs(checkpoint_dir)
    with_checkpoints = [checkpoints for checkpoints in runs if checkpoints.latest()]
    names = [os.path.basename(checkpoints.folder) for checkpoints in with_checkpoints]
    if run is not None:
        if run not in names:
            expected = f"one of {', '.join(names)}" if names else "one that python run.py runs lists"
            raise InputError("--run", f"no run {run} with checkpoints in {checkpoint_dir}", expected)
        return with_checkpoints[names.index(run)]
    for corrupt in filter(CheckpointManager.is_corrupt, runs):
        if not (with_checkpoints and with_checkpoints[-1].was_saved_after(corrupt)):  # it may be the latest run
            subject = f"metadata {os.path.join(corrupt.folder, METADATA_FILE)}"
            raise InputError(subject, "a corrupt file", "one written by training", "--run NAME selects another run")
    if not with_checkpoints:
        raise InputError(
            "setting checkpoint_dir", f"no run with checkpoints in {checkpoint_dir}", "a run written by training"
        )
    return with_checkpoints[-1]


def settings_of_run(checkpoint, checkpoint_dir):
    """The settings that a checkpoint was trained with; {} if it no longer exists."""
    folder = os.path.dirname(checkpoint or "")
    entry = CheckpointManager(folder).entry(checkpoint) if is_in(checkpoint_dir, folder) else None
    return entry["settings"] if entry else {}


def delete_old_runs(checkpoint_dir, current, keep):
    """Delete the checkpoints of all runs but `current` and the latest `keep` others; None: delete none.

    Runs with corrupt metadata and symbolic links to runs elsewhere are not touched. A run that was killed before its
    first checkpoint does not count as one that is kept.
    """
    if keep is None:
        return
    others = [run for run in list_runs(checkpoint_dir) if run.folder not in (checkpoint_dir, current)]
    others = [run for run in others if not run.is_corrupt() and not os.path.islink(run.folder)]
    full = [run for run in others if run.prefixes()]
    kept = full[max(0, len(full) - keep) :]
    for run in others:
        if run not in kept:
            run.delete()
            say(f"deleted the checkpoints in {run.folder}, because keep_runs is {keep}")


def write_index(checkpoint_dir, checkpoints):
    """Write TensorFlow's list of checkpoints for the latest run, so that TensorFlow's own tools find them."""
    names = [os.path.relpath(prefix, checkpoint_dir).replace(os.sep, "/") for prefix in checkpoints.prefixes()]
    if not names:  # they were deleted by hand
        return
    # Without a root, TensorFlow would make the paths absolute, or relative to the working directory.
    state = tf.train.generate_checkpoint_state_proto(os.path.abspath(checkpoint_dir), names[-1], names)
    write_atomically({os.path.join(checkpoint_dir, INDEX): str(state)})


def new_run_folder(tensorboard_dir, data_path, checkpoint_dir):
    """Make a folder named after the time and the data, such as 20201231-235959-flowers for flowers/train.

    If that second is taken, there or in checkpoint_dir, the next free one.
    """
    parts = [part for part in os.path.abspath(data_path).split(os.sep) if part not in ("", "train", "test")]
    data = re.sub("[^A-Za-z0-9._-]", "_", parts[-1] if parts else "data")[:40].rstrip(".")
    second = time.time()
    while True:
        name = time.strftime("%Y%m%d-%H%M%S", time.localtime(second)) + f"-{data}"
        folder = os.path.join(tensorboard_dir, name)
        if not os.path.lexists(os.path.join(checkpoint_dir, name)):
            with contextlib.suppress(FileExistsError):
                os.makedirs(folder)
                return folder
        second += 1
