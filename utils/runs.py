"""The runs of a network: the folders of checkpoints that they left, which can be resumed, exported or listed."""

import os
import shutil

from src.console import print_note, say
from src.errors import InputError, OutOfMemoryError
from src.settings import SETTINGS, settings_for, validate, with_role
from src.tf1 import tf
from utils.checkpoints import Checkpoints
from utils.files import check_replaceable, is_in, make_writable, remove_leftovers, write_atomically
from utils.locks import locked
from utils.pretrained import inherit_settings
from utils.records import RECORD, run_folders
from utils.state import TrainState
from utils.tensorboard import new_run_folder

RESUMABLE_OVERRIDES = with_role("duration", "machine")  # what may differ when a run is resumed
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


def choose_run(cluster, resume, given):
    """The run to train: (settings, its Checkpoints, prefix of the checkpoint to resume, its TrainState).

    A new run has none of the last three; and of them, only the state is known to other members of the cluster than the
    chief. They all have the chief's settings, but for those of the machine, unless all were launched together, on one
    machine.

    Args:
        cluster: the Cluster that trains.
        resume: as for Trainer.
        given: as for Trainer.
    """

    def choose():
        if not cluster.is_chief:
            return settings_for(("model_arch", *RESUMABLE_OVERRIDES) if resume else SETTINGS, given), None, None
        if resume:
            return find_interrupted(given, None if resume is True else resume)
        return inherit_settings(given), None, None

    config, checkpoints, prefix = cluster.all_or_none(choose)
    state = prefix and read_state(checkpoints, prefix)
    theirs, resumed = cluster.share([vars(config), state and [state.to_json(), state.history]])
    if not cluster.is_chief:
        state = resumed and TrainState.from_json(*resumed, "chief")
        own = () if cluster.launcher else with_role("machine")
        vars(config).update((name, value) for name, value in theirs.items() if name not in own)
    return config, checkpoints, prefix, state


def read_state(checkpoints, prefix):
    """The TrainState that the record has of a checkpoint. Raises InputError if there is none, or a wrong one."""
    entry = checkpoints.entry(prefix)
    if entry is None:
        expected = "expected one with settings and results, without NaN or Inf"
        raise InputError(f"checkpoint {prefix}: found an entry of {RECORD} that training did not write, {expected}")
    return TrainState.from_json(entry, checkpoints.history, f"checkpoint {prefix}")


def find_interrupted(given, run=None):
    """What is to be resumed: (settings, Checkpoints of the run, prefix of its newest whole checkpoint).

    The settings are those that the run had, but for the given ones, and for the folders.

    Args:
        run: its name; None: the newest.

    Raises:
        InputError: nothing to resume, or a given setting that does not fit.
    """
    now = settings_for(("model_arch", *RESUMABLE_OVERRIDES), given)
    checkpoints = find_run(now.checkpoint_dir, run)
    newest = list_runs(now.checkpoint_dir)[-1]
    if run is None and newest.is_empty():
        found = f"found no checkpoint in {newest.folder}, the newest run, which was ended before it wrote one"
        before = f"--run {os.path.basename(checkpoints.folder)} resumes the one before"
        raise InputError(f"setting checkpoint_dir: {found}; {before}")
    prefix = newest_whole(checkpoints)
    recorded = checkpoints.entry(prefix)["settings"]
    for name in sorted(set(given) - set(RESUMABLE_OVERRIDES)):
        if given[name] is None and name in with_role("derived"):
            continue
        value = validate(name, given[name])
        if name in recorded and value != recorded[name] and list_of(value) != list_of(recorded[name]):
            expected = f"expected {recorded[name]!r}: {checkpoints.folder} keeps its settings when it is resumed"
            raise InputError(f"setting {name}: found {value!r}, {expected}")
    done = checkpoints.entry(prefix)["progress"]["epoch"]
    if given.get("num_epoch", done) < done:
        expected = f"expected {done} or more, the epochs that {checkpoints.folder} has done"
        raise InputError(f"setting num_epoch: found {given['num_epoch']}, {expected}")
    changed = set(given).intersection(RESUMABLE_OVERRIDES)
    changed.update(with_role("output_dir"))  # never those of the record: it could be somebody else's
    return checkpoints.settings_of(prefix, **{name: getattr(now, name) for name in changed}), checkpoints, prefix


def check_state(state, config, data, steps, members):
    """Raise InputError unless a run can be resumed with these images, and so many steps of an epoch and members."""
    began = state.members
    if began != members:
        how = f"python run.py launch --workers {began} --resume" if began > 1 else "python run.py --resume"
        expected = f"expected {began}, as when the run began: {how}, or --pretrained to begin another with its weights"
        raise InputError(f"--resume: found {members} process{'es' * (members > 1)}, {expected}")
    if state.fingerprint != data.fingerprint:
        folders = " or ".join(filter(None, [config.train_path, config.valid_path]))
        expected = "expected the same as when the run began"
        raise InputError(f"setting train_path or valid_path: found other images in {folders}, {expected}")
    if state.step_in_epoch > steps:
        found = f"found {state.step_in_epoch} steps of an epoch"
        raise InputError(f"checkpoint record in {config.checkpoint_dir}: {found}, expected at most {steps}")


def check_folders(config, members):
    """Raise InputError unless the folders of a run can be written to, and in a cluster, nobody else trains there."""
    for setting in with_role("output_dir"):
        make_writable(setting, getattr(config, setting))
    if members > 1:  # a process alone finds out when it begins to train
        with locked("checkpoint_dir", config.checkpoint_dir):
            pass


def newest_whole(checkpoints):
    """The prefix of the latest checkpoint that can be read to the end and says how far training was."""
    skipped = []
    for prefix in reversed(checkpoints.prefixes()):
        try:
            read_state(checkpoints, prefix)
            checkpoints.read(prefix)
        except OutOfMemoryError:
            raise  # it may be complete
        except InputError as error:
            skipped.append(error)
            continue
        for error in skipped:
            print_note(f"{error}; skipped")
        return prefix
    why = f" ({skipped[0]})" if skipped else ""
    expected = "expected one that this version of training wrote"
    raise InputError(f"setting checkpoint_dir: found no checkpoint to resume in {checkpoints.folder}{why}, {expected}")


def list_of(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]


def open_run(config, run_folder=None, checkpoints=None, last_checkpoint=None):
    """The folder of the log and the Checkpoints of a run that begins, or that goes on from its last checkpoint.

    What killed processes have left in them, or beside them, goes.
    """
    check_replaceable(os.path.join(config.checkpoint_dir, INDEX))
    if run_folder is not None and os.path.islink(run_folder):
        raise InputError(f"setting tensorboard_dir: found {run_folder}, a symbolic link, expected a folder or none")
    folders = [folder for folder in run_folders(config.checkpoint_dir) if not os.path.islink(folder)]
    for folder in [config.checkpoint_dir, config.weight_dir, *folders, *filter(None, [run_folder])]:
        remove_leftovers(folder)
    if run_folder is None:
        run_folder = new_run_folder(config.tensorboard_dir, config.train_path, config.checkpoint_dir)
        checkpoints = Checkpoints(os.path.join(config.checkpoint_dir, os.path.basename(run_folder)))
    if last_checkpoint:
        checkpoints.go_on_from(last_checkpoint)
    else:
        checkpoints.begin()
    return run_folder, checkpoints


def discard_run(checkpoints, run_folder):
    """Delete the folders of a run that left no checkpoint; that of its log, if any, where it did not even a step."""
    checkpoints.delete()
    if run_folder:
        shutil.rmtree(run_folder, ignore_errors=True)


def write_index(checkpoint_dir, checkpoints):
    """Write TensorFlow's list of checkpoints, those of the newest run, so that its own tools find them."""
    names = [os.path.relpath(prefix, checkpoint_dir) for prefix in checkpoints.prefixes()]
    if not names:  # somebody has deleted them
        return
    # Its own function makes the paths absolute, or takes them for relative to where we are, unless it is given a root.
    state = tf.train.generate_checkpoint_state_proto(os.sep, names[-1], names)
    write_atomically({os.path.join(checkpoint_dir, INDEX): str(state)})


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
