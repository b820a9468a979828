"""The checkpoints of a run, in a folder of their own.

Beside them `run.json` holds the history of the run and, for each checkpoint, its settings, its validation results and
the training state that resumes it.
"""

import contextlib
import glob
import os
import re

import numpy as np

from src import config
from src.console import print_note
from src.errors import InputError, OutOfMemoryError, first_line, naming_memory
from src.settings import SETTINGS, settings
from src.tf1 import tf
from utils.checkpoints.run_metadata import METADATA_FILE, folder_name, is_corrupt, read_run_metadata, write_run_metadata
from utils.training.state import best_entry

MAX_TO_KEEP = 10  # latest checkpoints that are kept, besides the best one
ENTRY_SCHEMA = {
    "settings": dict,
    "run_folder": (str, type(None)),
    "val_acc": (float, type(None)),
    "val_loss": (float, type(None)),
}
CHECKPOINT_FILE = re.compile(r"(?P<name>(?P<arch>.+)-\d+)\.(index|data-\d+-of-\d+)(?P<unfinished>\.tempstate\d+)?")


class CheckpointManager:
    """The checkpoints in a folder: the latest, the best, and which are kept.

    Args:
        folder: need not exist.

    Attributes:
        history: that of the run, as in Trainer.history; [] if an earlier version wrote it.
    """

    def __init__(self, folder):
        self.folder = folder
        self.refresh()

    def refresh(self):
        """Read the metadata again."""
        self._set_metadata(read_run_metadata(self.folder))

    def _set_metadata(self, metadata):
        self._metadata, self._entries, self.history = metadata, metadata.entries, metadata.history

    def saved_at(self):
        """When the run was last saved, as RunMetadata.time."""
        return self._metadata.time

    def was_saved_after(self, corrupt):
        """Whether the metadata of a run beside it was corrupt already when this one was last saved."""
        return folder_name(corrupt.folder) in self._metadata.corrupt

    def prefixes(self):
        """The prefixes of the checkpoints that the metadata names, the latest last."""
        prefixes = [os.path.join(self.folder, name) for name in self._entries]
        return [prefix for prefix in prefixes if os.path.exists(f"{prefix}.index")]

    def save(self, session, saver, name, entry, history):
        """Write a checkpoint and its metadata; delete the oldest if there are more than MAX_TO_KEEP.

        The metadata never describes weights that are not there yet: an entry of that name is removed first, unless its
        files hold the same weights, as when a run is saved at the last step of an epoch and again after validation.

        Args:
            session: its variables are saved.
            saver: a tf.train.Saver.
            name: the checkpoint's file name in the folder, without extension.
            entry: {"settings", "run_folder", "epoch", "global_step", "val_acc", "val_loss", "progress"}.
            history: that of the run so far.

        Returns:
            The prefix of the checkpoint.

        Raises:
            InputError: it cannot be written, or another process has written to the folder.
        """
        self._make_folder()
        self._check_unchanged()
        prefix = os.path.join(self.folder, name)
        if not self._has_saved(name, session):
            if self._entries.pop(name, None):
                self._write_metadata(history)
            with writing("checkpoint_dir", self.folder):
                saver.save(session, prefix, write_meta_graph=False, write_state=False)
        # Files of other checkpoints may have been deleted by hand.
        others = {other: known for other, known in self._entries.items() if other != name and self._has_files(other)}
        self._entries = dict(others, **{name: entry})  # the latest is the last
        kept = [os.path.basename(path) for path in [*self.prefixes()[-MAX_TO_KEEP:], self.best()] if path]
        self._entries = {other: known for other, known in self._entries.items() if other in kept}
        self._write_metadata(history)
        self.delete_unlisted()
        return prefix

    def create(self):
        """Make the folder of a run that has no checkpoint yet, so that it counts as the latest."""
        self._make_folder()
        self._write_metadata([])

    def _make_folder(self):
        """Make the folder unless it exists. A symbolic link is refused, so that nothing is deleted through it."""
        if os.path.islink(self.folder):
            raise InputError("setting checkpoint_dir", f"{self.folder}, a symbolic link", "a folder or none")
        with writing("checkpoint_dir", self.folder):
            os.makedirs(self.folder, exist_ok=True)

    def _check_unchanged(self):
        """Raise InputError if another process has written to the folder since its metadata was read or written."""
        entries = read_run_metadata(self.folder).entries
        if entries and list(entries) != list(self._entries):
            raise InputError(
                "setting checkpoint_dir", f"{self.folder} changed by another Trainer or process", hint="resume again"
            )

    def _has_saved(self, name, session):
        """Whether the checkpoint of that name holds the current variables of a session."""
        if name not in self._entries:
            return False
        variables = {variable.op.name: variable for variable in session.graph.get_collection("variables")}
        try:
            saved = read_weights("checkpoint", os.path.join(self.folder, name))
        except InputError:
            return False
        now = session.run(variables)
        return set(saved) == set(now) and all(np.array_equal(saved[name], now[name]) for name in now)

    def _has_files(self, name):
        """Whether the files of a checkpoint exist."""
        stem = glob.escape(os.path.join(self.folder, name))
        return os.path.exists(os.path.join(self.folder, f"{name}.index")) and bool(glob.glob(f"{stem}.data-*"))

    def delete(self):
        """Delete the checkpoints, and the folder if nothing else is in it; nothing behind a symbolic link."""
        if os.path.islink(self.folder):
            return
        self._entries = {}
        with contextlib.suppress(OSError):
            self.delete_unlisted()
            os.remove(os.path.join(self.folder, METADATA_FILE))
            os.rmdir(self.folder)

    def _write_metadata(self, history):
        self._set_metadata(write_run_metadata(self.folder, self._entries, list(history)))

    def truncate_after(self, prefix):
        """Forget the checkpoints after this one, from which training resumes.

        Raises:
            InputError: another process has written to the folder since its metadata was read or written.
        """
        self._make_folder()
        self._check_unchanged()
        names = list(self._entries)
        later = names[names.index(os.path.basename(prefix)) + 1 :]
        if later:
            self._entries = {name: entry for name, entry in self._entries.items() if name not in later}
            self._write_metadata(self.history)

    def delete_unlisted(self):
        """Delete incomplete checkpoint files, and those of checkpoints that the metadata does not name."""
        for file in os.listdir(self.folder):
            found = CHECKPOINT_FILE.fullmatch(file)
            if not found or found.group("arch") not in config.MODEL_ARCHS:  # such as copies that users make
                continue
            if found.group("name") not in self._entries or found.group("unfinished"):
                with contextlib.suppress(OSError):
                    os.remove(os.path.join(self.folder, file))

    def valid_prefixes(self):
        """The prefixes whose metadata entry is valid."""
        return [prefix for prefix in self.prefixes() if self.entry(prefix)]

    def is_empty(self):
        """Whether the run has not written a checkpoint yet."""
        return not self._entries

    def is_corrupt(self):
        """Whether the metadata cannot be read."""
        return is_corrupt(self._metadata)

    def latest(self):
        """The prefix of the latest checkpoint whose metadata entry is valid; None if there is none."""
        return next(reversed(self.valid_prefixes()), None)

    def best(self):
        """The prefix of the best validated checkpoint of the run that wrote the latest; None if there is none."""
        entries = [dict(self.entry(prefix), prefix=prefix) for prefix in self.valid_prefixes()]
        runs = [os.path.basename(entry.get("run_folder") or "") for entry in entries]
        # An earlier version kept several runs in a folder.
        found = best_entry([entry for entry, run in zip(entries, runs) if run == runs[-1]])
        return found and found["prefix"]

    def load(self, prefix, **overrides):
        """(settings, weights, origin as freeze takes it) of a checkpoint in the folder.

        Raises:
            InputError: it does not exist, cannot be read, or has no metadata.
        """
        weights = self.read(prefix)
        return self.settings_of(prefix, **overrides), weights, self.origin(prefix)

    def read(self, prefix, what="checkpoint"):
        """{variable name: array} of a checkpoint in the folder.

        Raises:
            InputError, naming `what`: it cannot be read, or is not the one that the metadata describes.
        """
        weights = read_weights(what, prefix)
        step = weights.get("global_step")
        expected = (self.entry(prefix) or {}).get("global_step", step)  # an earlier version may lack either
        if step is not None and not np.array_equal(step, expected):
            raise InputError(
                what,
                f"{prefix} with global_step {first_line(step)}",
                f"{first_line(expected)}, as in {METADATA_FILE}",
                hint="its files are those of another checkpoint",
            )
        return weights

    def origin(self, prefix):
        """Where weights come from, as freeze takes it."""
        entry = self.entry(prefix)
        progress = entry.get("progress")  # an earlier version may lack it
        origin = {"fingerprint": progress.get("fingerprint") if isinstance(progress, dict) else None}
        return dict(origin, val_acc=entry["val_acc"], run_folder=entry["run_folder"], checkpoint=prefix)

    def settings_of(self, prefix, **overrides):
        """The settings that a checkpoint was trained with, with overrides.

        Another version of this program may have written it: settings that it lacks are as in src/config.py.
        """
        entry = self.entry(prefix)
        if entry is None:
            raise InputError(
                f"checkpoint {prefix}", f"no metadata in {METADATA_FILE}", "a checkpoint written by training"
            )
        unknown = sorted(set(entry["settings"]) - set(SETTINGS))
        if unknown:
            print_note(f"checkpoint {prefix}: ignoring unknown settings: {', '.join(unknown)}")
        known = {name: value for name, value in entry["settings"].items() if name in SETTINGS}
        try:
            return settings(**dict(known, **overrides))
        except InputError as error:
            subject, *rest = error.args
            raise InputError(f"checkpoint {prefix}, settings in {METADATA_FILE}: {subject}", *rest) from error

    def entry(self, prefix):
        """The metadata of a checkpoint; None if it is missing or invalid."""
        entry = self._entries.get(os.path.basename(prefix))
        if not isinstance(entry, dict):
            return None
        is_valid = all(key in entry and isinstance(entry[key], kind) for key, kind in ENTRY_SCHEMA.items())
        return entry if is_valid else None


def find_checkpoint(what, path):
    """The prefix of a checkpoint: the path itself, or the latest in that folder, which may be a copy."""
    with reading(what, path):
        prefix = path
        if os.path.isdir(path) and not os.path.exists(f"{path}.index"):
            check_file(os.path.join(path, "checkpoint"))
            state = tf.train.get_checkpoint_state(path)
            prefix = moved_to(path, state.model_checkpoint_path) if state else CheckpointManager(path).latest()
        if prefix is None or not os.path.exists(f"{prefix}.index"):
            raise FileNotFoundError("there is none")
        for file in [f"{prefix}.index", *glob.glob(f"{glob.escape(prefix)}.data-*")]:
            check_file(file)
        return prefix


def check_file(path):
    """Raise OSError if the path exists but is no file: from a pipe, TensorFlow would read forever."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"{os.path.basename(path)} is a folder, a device or a pipe")


def moved_to(folder, path):
    """The path if it is below the folder; else that of the same name in the folder."""
    try:
        below = os.path.relpath(path, folder)
    except ValueError:  # they are on different drives
        below = os.pardir + os.sep
    return os.path.join(folder, os.path.basename(path) if below.startswith(os.pardir + os.sep) else below)


def read_weights(what, path):
    """{variable name: array} of the checkpoint with that prefix, or of the latest in that folder."""
    prefix = find_checkpoint(what, path)
    with reading(what, path):
        reader = tf.train.NewCheckpointReader(prefix)  # load_checkpoint would prefer a folder of that name
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assign(session, variables, weights):
    """Set each variable to its value in {variable name: array}, in one session.run."""
    session.run(
        [variable.initializer for variable in variables],
        {variable.initial_value: weights[variable.op.name] for variable in variables},
    )


@contextlib.contextmanager
def reading(what, path):
    """Turn any error in reading a checkpoint into InputError: TensorFlow raises all kinds of them for corrupt ones."""
    try:
        with naming_memory(f"{what} {path}"):
            yield
    except OutOfMemoryError:
        raise
    except Exception as error:
        raise InputError(what, path, f"a readable checkpoint ({first_line(error)})") from error


@contextlib.contextmanager
def writing(setting, folder):
    """Turn errors in writing to a folder, such as a full disk, into InputError."""
    try:
        yield
    except (tf.errors.OpError, OSError, RuntimeError, ValueError) as error:  # ValueError: the folder is gone
        problem = f"which can no longer be written to ({first_line(error)})"
        raise InputError(f"setting {setting}", f"{folder}, {problem}") from error
