"""The runs of a network: the folders of checkpoints that they left, which can be resumed, exported or listed."""

import glob
import os
import shutil

from src.errors import InputError, escape_control_characters, print_note, say
from src.settings import FOLDERS, FOLLOWING, check, settings
from src.tf1 import tf
from utils.checkpoints import RECORD, Checkpoints, is_file_name, read_weights
from utils.files import write_atomically
from utils.predictor import metadata_path, read_metadata

# Settings that a run may have others of when it is resumed: they change nothing in what it learns, except for how long.
# The folders are never those of the record: it could be somebody else's.
CHANGEABLE = ("num_epoch", "early_stopping", "device", "train_path", "test_path", "cache_mb", "checkpoint_minutes",
              "keep_runs", *FOLDERS)  # fmt: skip
# How far training was, beside its weights.
PROGRESS = {"epoch": int, "position": int, "sums": list, "seconds": float, "window": list, "learning_rate": float,
            "fingerprint": str}  # fmt: skip


def run_folders(checkpoint_dir):
    """The folders of all runs, the oldest first. An earlier version wrote into checkpoint_dir itself."""
    if not os.path.isdir(checkpoint_dir):
        return []
    names = sorted(entry.name for entry in os.scandir(checkpoint_dir) if entry.is_dir() and is_file_name(entry.name))
    folders = [checkpoint_dir] + [os.path.join(checkpoint_dir, name) for name in names]
    return [folder for folder in folders if os.path.isfile(os.path.join(folder, RECORD))]


def find_run(checkpoint_dir, run=None):
    """The Checkpoints of the newest run that has some, or of the one with that name.

    Raises:
        InputError: there is none.
    """
    found = [checkpoints for checkpoints in map(Checkpoints, run_folders(checkpoint_dir)) if checkpoints.newest()]
    names = [os.path.basename(checkpoints.folder) for checkpoints in found]
    if run is not None:
        if run not in names:
            there = f"one of {', '.join(names)}" if names else "one that python run.py runs lists"
            raise InputError(f"--run: found no run {run} with checkpoints in {checkpoint_dir}, expected {there}")
        return found[names.index(run)]
    if not found:
        expected = f"that {RECORD} describes, expected some that training wrote"
        raise InputError(f"setting checkpoint_dir: found no checkpoint in {checkpoint_dir} {expected}")
    return found[-1]


def find_interrupted(given):
    """What is to be resumed: (settings, Checkpoints of the newest run, prefix of its newest whole checkpoint).

    The settings are those that the run had, but for the given ones, and for the folders.

    Raises:
        InputError: nothing to resume, or a given setting that does not fit.
    """
    now = settings(**given)
    checkpoints = find_run(now.checkpoint_dir)
    prefix = newest_whole(checkpoints)
    recorded = checkpoints.entry(prefix)["settings"]
    for name in sorted(set(given) - set(CHANGEABLE)):
        if given[name] is None and name in FOLLOWING:
            continue
        value = check(name, given[name])
        if name in recorded and value != recorded[name] and list_of(value) != list_of(recorded[name]):
            expected = f"expected {recorded[name]!r}, as in {checkpoints.folder}, which is to be resumed"
            raise InputError(f"setting {name}: found {value!r}, {expected}")
    changed = {name: getattr(now, name) for name in set(given) & set(CHANGEABLE) | set(FOLDERS)}
    return checkpoints.settings_of(prefix, **changed), checkpoints, prefix


def newest_whole(checkpoints):
    """The prefix of the newest checkpoint that can be read to the end and says how far training was."""
    for prefix in reversed(checkpoints.prefixes()):
        if not has_progress(checkpoints.entry(prefix)):
            continue
        try:
            read_weights("checkpoint", prefix)
            return prefix
        except InputError as error:
            print_note(f"{error}; passing over it")
    expected = "expected one that this version of training wrote"
    raise InputError(f"setting checkpoint_dir: found no checkpoint to resume in {checkpoints.folder}, {expected}")


def has_progress(entry):
    progress = entry and entry.get("progress")
    whole = isinstance(progress, dict) and all(isinstance(progress.get(name), kind) for name, kind in PROGRESS.items())
    return whole and [type(value) for value in progress["sums"]] == [float, float]


def list_of(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]


def write_index(checkpoint_dir, checkpoints):
    """Write TensorFlow's list of checkpoints, those of the newest run, so that its own tools find them."""
    names = [os.path.relpath(prefix, checkpoint_dir) for prefix in checkpoints.prefixes()]
    # Its own function makes the paths absolute, or takes them for relative to where we are, unless it is given a root.
    state = tf.train.generate_checkpoint_state_proto(os.sep, names[-1], names)
    write_atomically({os.path.join(checkpoint_dir, "checkpoint"): str(state)})


def delete_old_runs(checkpoint_dir, keep):
    """Delete the checkpoints of all runs but the newest and `keep` before it; None: delete none."""
    old = [folder for folder in run_folders(checkpoint_dir) if folder != checkpoint_dir]
    for folder in old[: -(keep + 1)] if keep is not None else []:
        shutil.rmtree(folder, ignore_errors=True)
        say(f"deleted {folder}, as keep_runs is {keep}")


def table(configs):
    """The runs under some checkpoint_dirs, as text: a line each, the oldest first.

    Args:
        configs: settings, one for each network, of which checkpoint_dir and weight_dir count.
    """
    rows = [("run", "model", "images", "epochs", "best val_acc", "MB", "graph")]
    for config in configs:
        for checkpoints in map(Checkpoints, run_folders(config.checkpoint_dir)):
            newest = checkpoints.newest()
            if newest and checkpoints.entry(newest)["settings"].get("model_arch") == config.model_arch:
                rows.append(row(checkpoints, newest, config))
    if len(rows) == 1:
        return f"no runs in {', '.join(sorted({config.checkpoint_dir for config in configs}))}"
    widths = [max(len(text) for text in column) for column in zip(*rows)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in rows)


def row(checkpoints, newest, config):
    """What the table says of a run."""
    entry, best = checkpoints.entry(newest), checkpoints.best()
    files = [file.path for file in os.scandir(checkpoints.folder) if file.is_file()]
    values = (
        os.path.basename(checkpoints.folder),
        config.model_arch,
        entry["settings"].get("train_path"),
        f"{entry.get('epoch')} of {entry['settings'].get('num_epoch')}",
        f"{checkpoints.entry(best)['val_acc']:.4f}" if best else "-",
        f"{sum(map(os.path.getsize, files)) / 1e6:.1f}",
        find_graph(config, os.path.basename(entry["run_folder"] or "")) or "-",
    )
    return [escape_control_characters(str(value)) for value in values]


def find_graph(config, run):
    """The path of the graph that a run exported, None if there is none any more."""
    name = f"{config.model_arch}.pb"
    for path in [os.path.join(config.weight_dir, name), *sorted(glob.glob(os.path.join(config.weight_dir, "*", name)))]:
        try:
            exported_by = read_metadata(metadata_path(path))["run"].get("run_folder", "")
        except InputError:
            continue
        if os.path.basename(exported_by) == run and os.path.exists(path):
            return path
    return None
