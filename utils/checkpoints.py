"""The checkpoints of a run, in a folder of their own.

Beside them `run.json` holds for each checkpoint the settings it was trained with, the result of its validation, and how
far the training was, so that it can be resumed; and the history of the run.
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
from utils.records import RECORD, name_of, read_record, write_record

KEPT = 10  # the newest checkpoints that are kept, beside the best
RECORDED = {
    "settings": dict,
    "run_folder": (str, type(None)),
    "val_acc": (float, type(None)),
    "val_loss": (float, type(None)),
}
CHECKPOINT_FILE = re.compile(r"((.+)-\d+)\.(index|data-\d+-of-\d+)(\.tempstate\d+)?")


class Checkpoints:
    """The checkpoints in a folder: which there are, which is the newest, which the best, and which are kept.

    Args:
        folder: need not exist.

    Attributes:
        history: of the run, as in Trainer.history; [] in one of an earlier version.
    """

    def __init__(self, folder):
        self.folder = folder
        self.refresh()

    def refresh(self):
        """Read the record again."""
        self._take(read_record(self.folder))

    def _take(self, record):
        self._record, self.history, self._time, self._damaged = record

    def time(self):
        """When the run was last saved: as a Record has it."""
        return self._time

    def was_saved_after(self, damaged):
        """Whether the record of a run beside it was damaged already when this one was last saved."""
        return name_of(damaged.folder) in self._damaged

    def prefixes(self):
        """The prefixes of the checkpoints that the record names, the newest last."""
        prefixes = [os.path.join(self.folder, name) for name in self._record]
        return [prefix for prefix in prefixes if os.path.exists(f"{prefix}.index")]

    def save(self, session, saver, name, entry, history):
        """Write a checkpoint and its entry in the record; delete the oldest if there are more than KEPT.

        The record never describes weights that are not there yet: an entry of that name goes first, unless its files
        hold the same, as where a run is saved at the last step of an epoch, and again when that is validated.

        Args:
            session: its variables are saved.
            saver: a tf.train.Saver.
            name: of the checkpoint in the folder.
            entry: {"settings", "run_folder", "epoch", "global_step", "val_acc", "val_loss", "progress"}.
            history: of the run so far.

        Returns:
            The prefix of the checkpoint.

        Raises:
            InputError: it cannot be written, or another training has written into the folder.
        """
        self._make_folder()
        self._check_untouched()
        prefix = os.path.join(self.folder, name)
        if not self._has_saved(name, session):
            if self._record.pop(name, None):
                self._write_record(history)
            with writable("checkpoint_dir", self.folder):
                saver.save(session, prefix, write_meta_graph=False, write_state=False)
        # Somebody may have deleted files of the others.
        self._record = {name: entry for name, entry in self._record.items() if self._is_complete(name)}
        self._record.pop(name, None)  # the latest is the last
        self._record[name] = entry
        kept = [os.path.basename(prefix) for prefix in self.prefixes()[-KEPT:] + [self.best()] if prefix]
        self._record = {name: entry for name, entry in self._record.items() if name in kept}
        self._write_record(history)
        self.delete_others()
        return prefix

    def begin(self):
        """Make the folder of a run that has no checkpoint yet, so that it is known to be the newest."""
        self._make_folder()
        self._write_record([])

    def _make_folder(self):
        """Make the folder unless it is there. A link is refused: where it leads, nothing is to be deleted."""
        if os.path.islink(self.folder):
            found = f"found {self.folder}, a symbolic link, expected a folder of the run's own, or none"
            raise InputError(f"setting checkpoint_dir: {found}")
        with writable("checkpoint_dir", self.folder):
            os.makedirs(self.folder, exist_ok=True)

    def _check_untouched(self):
        """Raise InputError if another training has written into the folder since the record was read or written."""
        record = read_record(self.folder).entries
        if record and list(record) != list(self._record):
            found = f"found that another training has gone on with {self.folder} in the meantime"
            raise InputError(f"setting checkpoint_dir: {found}; resume it again")

    def _has_saved(self, name, session):
        """Whether the checkpoint of that name holds the variables of a session as they are."""
        if name not in self._record:
            return False
        variables = {variable.op.name: variable for variable in session.graph.get_collection("variables")}
        try:
            saved = read_weights("checkpoint", os.path.join(self.folder, name))
        except InputError:
            return False
        now = session.run(variables)
        return set(saved) == set(now) and all(np.array_equal(saved[name], now[name]) for name in now)

    def _is_complete(self, name):
        """Whether the files of a checkpoint are there."""
        stem = glob.escape(os.path.join(self.folder, name))
        return os.path.exists(os.path.join(self.folder, f"{name}.index")) and bool(glob.glob(f"{stem}.data-*"))

    def delete(self):
        """Delete the checkpoints, and the folder if there is nothing else in it, unless it is a link to elsewhere."""
        if os.path.islink(self.folder):
            return
        self._record = {}
        with contextlib.suppress(OSError):
            self.delete_others()
            os.remove(os.path.join(self.folder, RECORD))
            os.rmdir(self.folder)

    def _write_record(self, history):
        self._take(write_record(self.folder, self._record, list(history)))

    def go_on_from(self, prefix):
        """Forget the checkpoints that are newer: training resumes from this one.

        Raises:
            InputError: another training has written into the folder since the record was last read or written.
        """
        self._make_folder()
        self._check_untouched()
        names = list(self._record)
        newer = names[names.index(os.path.basename(prefix)) + 1 :]
        if newer:
            self._record = {name: entry for name, entry in self._record.items() if name not in newer}
            self._write_record(self.history)

    def delete_others(self):
        """Delete the files of checkpoints that the record does not name, and those of one that was never completed."""
        for file in os.listdir(self.folder):
            found = CHECKPOINT_FILE.fullmatch(file)
            if not found or found.group(2) not in config.MODEL_ARCHS:  # of other names are the copies that people make
                continue
            if found.group(1) not in self._record or found.group(4):
                with contextlib.suppress(OSError):
                    os.remove(os.path.join(self.folder, file))

    def described(self):
        """Those of the prefixes that the record says all about."""
        return [prefix for prefix in self.prefixes() if self.entry(prefix)]

    def is_empty(self):
        """Whether the run has begun, but has not written a checkpoint yet."""
        return not self._record

    def is_damaged(self):
        """Whether the record cannot be read: then it does not even say when it was written."""
        return not self._record and not self._time

    def newest(self):
        """The prefix of the newest checkpoint that the record describes, None if there is none."""
        described = self.described()
        return described[-1] if described else None

    def best(self):
        """The prefix of the best validated checkpoint of the run that wrote the newest, None if there is none."""
        entries = [dict(self.entry(prefix), prefix=prefix) for prefix in self.described()]
        runs = [os.path.basename(entry.get("run_folder") or "") for entry in entries]
        # An earlier version kept several runs in a folder.
        found = best_entry([entry for entry, run in zip(entries, runs) if run == runs[-1]])
        return found and found["prefix"]

    def load(self, prefix, **changed):
        """(settings, with those `changed`; weights; origin, as freeze takes it) of a checkpoint in the folder.

        Raises:
            InputError: there is none, it cannot be read, or the record does not describe it.
        """
        weights = self.read(prefix)
        return self.settings_of(prefix, **changed), weights, self.origin(prefix)

    def read(self, prefix, what="checkpoint"):
        """{variable name: array} of a checkpoint in the folder.

        Raises:
            InputError, naming `what`: it cannot be read, or is not the one that the record describes.
        """
        weights = read_weights(what, prefix)
        found = weights.get("global_step")
        expected = (self.entry(prefix) or {}).get("global_step", found)  # an earlier version may lack either
        if found is not None and not np.array_equal(found, expected):
            expected = f"expected {first_line(expected)}, as in {RECORD}: its files are those of another checkpoint"
            raise InputError(f"{what}: found {prefix} with global_step {first_line(found)}, {expected}")
        return weights

    def origin(self, prefix):
        """Where weights come from, as freeze takes it."""
        entry = self.entry(prefix)
        return {"val_acc": entry["val_acc"], "run_folder": entry["run_folder"], "checkpoint": prefix}

    def settings_of(self, prefix, **changed):
        """The settings that a checkpoint was trained with, but for those `changed`.

        It may be of another version of this program: settings that it lacks are as in src/config.py.
        """
        entry = self.entry(prefix)
        if entry is None:
            raise InputError(f"checkpoint {prefix}: found no metadata in {RECORD}, expected a checkpoint from training")
        unknown = sorted(set(entry["settings"]) - set(SETTINGS))
        if unknown:
            print_note(f"checkpoint {prefix}: ignoring unknown settings: {', '.join(unknown)}")
        known = {name: value for name, value in entry["settings"].items() if name in SETTINGS}
        try:
            return settings(**dict(known, **changed))
        except InputError as error:
            raise InputError(f"checkpoint {prefix}, settings in {RECORD}: {error}") from error

    def entry(self, prefix):
        """What the record says of a checkpoint; None if that is not all that there should be."""
        entry = self._record.get(os.path.basename(prefix))
        if not isinstance(entry, dict):
            return None
        complete = all(key in entry and isinstance(entry[key], kind) for key, kind in RECORDED.items())
        return entry if complete else None


def best_entry(entries):
    """Of some dicts with val_acc and val_loss, the one with the highest accuracy; None if nothing was validated.

    The lower loss decides between equals, then the earlier entry.
    """
    validated = [entry for entry in entries if None not in (entry["val_acc"], entry["val_loss"])]
    return max(validated, key=lambda entry: (entry["val_acc"], -entry["val_loss"])) if validated else None


def find_checkpoint(what, path):
    """The prefix of a checkpoint: the path itself, or the newest in that folder, which may have been copied there."""
    with readable(what, path):
        prefix = path
        if os.path.isdir(path) and not os.path.exists(f"{path}.index"):
            check_file(os.path.join(path, "checkpoint"))
            state = tf.train.get_checkpoint_state(path)
            prefix = inside(path, state.model_checkpoint_path) if state else Checkpoints(path).newest()
        if prefix is None or not os.path.exists(f"{prefix}.index"):
            raise FileNotFoundError("there is none")
        for file in [f"{prefix}.index", *glob.glob(f"{glob.escape(prefix)}.data-*")]:
            check_file(file)
        return prefix


def check_file(path):
    """Raise OSError if there is something that is no file: TensorFlow would wait for what comes out of a pipe."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"{os.path.basename(path)} is a folder, a device or a pipe")


def inside(folder, path):
    """The path, if it leads to somewhere in the folder; else that of the file of the same name in it."""
    below = os.path.relpath(path, folder)
    return os.path.join(folder, os.path.basename(path) if below.startswith(os.pardir + os.sep) else below)


def read_weights(what, path):
    """{variable name: array} of the checkpoint with that prefix, or of the newest in that folder."""
    prefix = find_checkpoint(what, path)
    with readable(what, path):
        reader = tf.train.NewCheckpointReader(prefix)  # load_checkpoint would take a folder of that name
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assign(session, variables, weights):
    """Give each variable its value of {variable name: array}, all in one run."""
    session.run(
        [variable.initializer for variable in variables],
        {variable.initial_value: weights[variable.op.name] for variable in variables},
    )


@contextlib.contextmanager
def readable(what, path):
    """Any error in reading a checkpoint is InputError; TensorFlow raises all kinds of them on damaged ones."""
    try:
        with naming_memory(f"{what} {path}"):
            yield
    except OutOfMemoryError:
        raise
    except Exception as error:
        expected = f"expected checkpoints that can be read ({first_line(error)})"
        raise InputError(f"{what}: found {path}, {expected}") from error


@contextlib.contextmanager
def writable(setting, folder):
    """Any error in writing there, such as a full disk, is InputError."""
    try:
        yield
    except (tf.errors.OpError, OSError, RuntimeError, ValueError) as error:  # ValueError: the folder is gone
        reason = f"which can no longer be written to ({first_line(error)})"
        raise InputError(f"setting {setting}: found {folder}, {reason}") from error
