"""Which run to train: a new one, or one that is resumed from its latest valid checkpoint."""

import os

from src.console import print_note
from src.errors import InputError, OutOfMemoryError
from src.settings import SETTINGS, as_list, for_channels, settings_for, validate, with_role
from utils.checkpoints.pretrained import inherit_settings
from utils.checkpoints.run_index import find_run, list_runs
from utils.checkpoints.run_metadata import METADATA_FILE
from utils.files import make_writable
from utils.locks import locked
from utils.training.state import TrainState

RESUMABLE_OVERRIDES = with_role("duration", "machine")  # settings that may differ when a run is resumed


def resolve_run(cluster, resume, overrides):
    """The run to train: (settings, its CheckpointManager, prefix of the checkpoint to resume, its TrainState).

    The last three are None for a new run; for workers other than the chief, the middle two are always None. All workers
    have the chief's settings, except for those with role "machine" where they were not launched on one machine.

    Args:
        cluster: the Cluster or SingleProcess that trains.
        resume, overrides: as for Trainer.
    """

    def choose():
        if not cluster.is_chief:
            return settings_for(("model_arch", *RESUMABLE_OVERRIDES) if resume else SETTINGS, overrides), None, None
        if resume:
            return load_resume_point(overrides, None if resume is True else resume)
        return inherit_settings(overrides), None, None

    config, checkpoints, prefix = cluster.all_or_none(choose)
    state = prefix and read_state(checkpoints, prefix)
    theirs, resumed = cluster.broadcast_object([vars(config), state and [state.to_json(), state.history]])
    if not cluster.is_chief:
        state = resumed and TrainState.from_json(*resumed, "chief")
        own = () if cluster.launcher else with_role("machine")
        vars(config).update((name, value) for name, value in theirs.items() if name not in own)
    return config, checkpoints, prefix, state


def read_state(checkpoints, prefix):
    """The TrainState in a checkpoint's metadata. Raises InputError if it is missing or invalid."""
    entry = checkpoints.entry(prefix)
    if entry is None:
        found, expected = f"an invalid entry in {METADATA_FILE}", "settings and results without NaN or Inf"
        raise InputError(f"checkpoint {prefix}", found, expected)
    return TrainState.from_json(entry, checkpoints.history, f"checkpoint {prefix}")


def load_resume_point(overrides, run=None):
    """What to resume: (settings, CheckpointManager of the run, prefix of its latest valid checkpoint).

    The settings are those of the run with overrides; the output folders are always as now.

    Args:
        run: its name; None: the latest.

    Raises:
        InputError: nothing to resume, or an override that a resumed run cannot take.
    """
    now = settings_for(("model_arch", *RESUMABLE_OVERRIDES), overrides)
    checkpoints = find_run(now.checkpoint_dir, run)
    latest = list_runs(now.checkpoint_dir)[-1]
    if run is None and latest.is_empty():
        hint = f"--run {os.path.basename(checkpoints.folder)} resumes the previous run"
        raise InputError("setting checkpoint_dir", f"no checkpoint in {latest.folder}, the latest run", hint=hint)
    prefix = latest_valid_checkpoint(checkpoints)
    check_overrides(overrides, checkpoints.entry(prefix), checkpoints.folder)
    changed = set(overrides).intersection(RESUMABLE_OVERRIDES)
    changed.update(with_role("output_dir"))  # never those in the metadata, which may come from another machine
    return checkpoints.settings_of(prefix, **{name: getattr(now, name) for name in changed}), checkpoints, prefix


def check_overrides(overrides, entry, folder):
    """Raise InputError unless the run in a folder can be resumed with these overrides of a checkpoint's settings."""
    recorded = entry["settings"]
    overrides = for_channels({"numchannels": recorded.get("numchannels"), **overrides})
    for name in sorted(set(overrides) - set(RESUMABLE_OVERRIDES)):
        if overrides[name] is None and name in with_role("derived"):
            continue
        value = validate(name, overrides[name])
        if name in recorded and value != recorded[name] and as_list(value) != as_list(recorded[name]):
            hint = f"{folder} keeps its settings when it is resumed"
            raise InputError(f"setting {name}", repr(value), repr(recorded[name]), hint)
    done = entry["progress"]["epoch"]
    if overrides.get("num_epoch", done) < done:
        raise InputError("setting num_epoch", overrides["num_epoch"], f"at least {done}, the epochs done in {folder}")


def check_state(state, config, data, steps, world_size):
    """Raise InputError unless a run can be resumed with these images, steps per epoch, and number of workers."""
    workers = state.world_size
    if workers != world_size:
        how = f"python run.py launch --workers {workers} --resume" if workers > 1 else "python run.py --resume"
        how += ", or --pretrained to start another run from its weights"
        raise InputError(
            "--resume", f"{world_size} process{'es' * (world_size > 1)}", f"{workers}, as when the run started", how
        )
    if state.fingerprint != data.fingerprint:
        folders = " or ".join(filter(None, [config.train_path, config.valid_path]))
        raise InputError("setting train_path or valid_path", f"other images in {folders}", "those of the run")
    if state.step_in_epoch > steps:
        subject = f"checkpoint metadata in {config.checkpoint_dir}"
        raise InputError(subject, f"{state.step_in_epoch} steps of an epoch", f"at most {steps}")


def check_folders(config, world_size):
    """Raise InputError unless the output folders can be written to and, in a cluster, no other process trains there."""
    for setting in with_role("output_dir"):
        make_writable(setting, getattr(config, setting))
    if world_size > 1:  # a single process takes the lock when it starts to train
        with locked("checkpoint_dir", config.checkpoint_dir):
            pass


def latest_valid_checkpoint(checkpoints):
    """The prefix of the latest checkpoint that can be read completely and has a valid TrainState."""
    skipped = []
    for prefix in reversed(checkpoints.prefixes()):
        try:
            read_state(checkpoints, prefix)
            checkpoints.read(prefix)
        except OutOfMemoryError:
            raise  # the checkpoint itself may be valid
        except InputError as error:
            skipped.append(error)
            continue
        for error in skipped:
            print_note(f"{error}; skipped")
        return prefix
    found = f"no checkpoint to resume in {checkpoints.folder}" + (f" ({skipped[0]})" if skipped else "")
    raise InputError("setting checkpoint_dir", found, "one written by this version of training")
