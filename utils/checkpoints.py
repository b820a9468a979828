"""Folders of checkpoints.

TensorFlow keeps the list of files (`checkpoint`); beside it `run.json` holds for each checkpoint the settings it was
trained with and the result of its validation.
"""

import contextlib
import json
import os

from src import config
from src.errors import InputError, print_note
from src.settings import RULES, settings
from src.tf1 import tf
from utils.files import write_atomically

KEPT = 10  # the newest checkpoints that are kept, beside the best of the run
RECORD = "run.json"
RECORDED = {
    "settings": dict,
    "run_folder": (str, type(None)),
    "val_acc": (float, type(None)),
    "val_loss": (float, type(None)),
}


class Checkpoints:
    """The checkpoints in a folder: which there are, which is the newest, which the best, and which are kept.

    Args:
        folder: need not exist.

    Raises:
        InputError: TensorFlow's list of checkpoints in it is damaged.
    """

    def __init__(self, folder):
        self.folder = folder
        self.refresh()

    def refresh(self):
        """Read TensorFlow's list and our record again: another run may have written there.

        The list lacks the best of a run, as it is not to be deleted.
        """
        self._record = read_record(self.folder)
        with readable("setting checkpoint_dir", self.folder):
            state = tf.train.get_checkpoint_state(self.folder)
            listed = [os.path.basename(prefix) for prefix in (state.all_model_checkpoint_paths if state else [])]
        self._names = [name for name in listed if name not in self._record and is_file_name(name)] + list(self._record)

    def prefixes(self):
        """The prefixes of the checkpoints, the newest last, those without a record before all others."""
        prefixes = [os.path.join(self.folder, name) for name in self._names]
        return [prefix for prefix in prefixes if os.path.exists(f"{prefix}.index")]

    def save(self, session, saver, name, entry):
        """Write a checkpoint and its entry in the record; delete the oldest if there are more than KEPT.

        Args:
            session: its variables are saved.
            saver: a tf.train.Saver with max_to_keep=KEPT.
            name: of the checkpoint in the folder.
            entry: {"settings", "run_folder", "epoch", "global_step", "val_acc", "val_loss"}.

        Raises:
            InputError: it cannot be written.
        """
        self.refresh()
        best = self.best(entry["run_folder"])  # not told to TensorFlow, which would delete it in its turn
        saver.recover_last_checkpoints([prefix for prefix in self.prefixes() if prefix != best])
        with writable("checkpoint_dir", self.folder):
            saver.save(session, os.path.join(self.folder, name), write_meta_graph=False)
        kept = [os.path.basename(prefix) for prefix in self.prefixes()]
        self._record = {key: value for key, value in self._record.items() if key in kept and key != name}
        self._record[name] = entry
        write_atomically({os.path.join(self.folder, RECORD): json.dumps(self._record, indent=1)})
        self._names = list(self._record)

    def newest(self):
        """The prefix of the newest checkpoint that the record describes. Raises InputError if there is none."""
        for prefix in reversed(self.prefixes()):
            if self.entry(prefix):
                return prefix
        raise InputError(
            f"setting checkpoint_dir: found no checkpoint in {self.folder} that {RECORD} describes, "
            "expected some that training wrote"
        )

    def best(self, run_folder):
        """The prefix of the best validated checkpoint of the run with that folder, None if there is none."""
        entries = [dict(self.entry(prefix) or {}, prefix=prefix) for prefix in self.prefixes()]
        found = best_entry([entry for entry in entries if entry.get("run_folder") == run_folder])
        return found and found["prefix"]

    def load(self, prefix, **changed):
        """(settings, with those `changed`; weights; origin, as freeze takes it) of a checkpoint in the folder.

        Raises:
            InputError: there is none, it cannot be read, or the record does not describe it.
        """
        weights = read_weights("checkpoint", prefix)
        return self.settings_of(prefix, **changed), weights, dict(self.entry(prefix), checkpoint=prefix)

    def settings_of(self, prefix, **changed):
        """The settings that a checkpoint was trained with, but for those `changed`.

        It may be of another version of this program: settings that it lacks are as in src/config.py.
        """
        entry = self.entry(prefix)
        if entry is None:
            raise InputError(f"checkpoint {prefix}: found no metadata in {RECORD}, expected a checkpoint from training")
        unknown = sorted(set(entry["settings"]) - set(RULES))
        if unknown:
            print_note(f"checkpoint {prefix}: ignoring unknown settings: {', '.join(unknown)}")
        known = {name: value for name, value in entry["settings"].items() if name in RULES}
        try:
            return settings(**dict(known, **changed))
        except InputError as error:
            raise InputError(f"checkpoint {prefix}, settings in {RECORD}: {error}") from error

    def entry(self, prefix):
        """What the record says of a checkpoint; None if training was killed before it was written."""
        entry = self._record.get(os.path.basename(prefix))
        if not isinstance(entry, dict):
            return None
        complete = all(key in entry and isinstance(entry[key], kind) for key, kind in RECORDED.items())
        return {key: entry[key] for key in RECORDED} if complete else None


def best_entry(entries):
    """Of some dicts with val_acc and val_loss, the one with the highest accuracy; None if nothing was validated.

    The lower loss decides between equals, then the earlier entry.
    """
    validated = [entry for entry in entries if None not in (entry["val_acc"], entry["val_loss"])]
    return max(validated, key=lambda entry: (entry["val_acc"], -entry["val_loss"])) if validated else None


def read_record(folder):
    """{checkpoint's name: its entry}, the oldest first; {} if there is none that can be read."""
    try:
        with open(os.path.join(folder, RECORD), encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError, RecursionError):
        return {}
    return {name: entry for name, entry in record.items() if is_file_name(name)} if isinstance(record, dict) else {}


def is_file_name(name):
    """Whether it is one, as this program gives them: files from elsewhere may say anything."""
    return name.isprintable() and name == os.path.basename(name) != ""


# What a network that was trained before expects of its images, and its size.
INHERITED = ("img_size", "width", "image_normalize_mean", "image_normalize_std", "channel_order")


def inherit_settings(given):
    """The settings of a run; those INHERITED are as in the record of the checkpoint it starts from, if not given."""
    now = settings(**given)
    if now.pretrained is None:
        return now
    prefix = find_checkpoint("setting pretrained", now.pretrained)
    recorded = (Checkpoints(os.path.dirname(prefix)).entry(prefix) or {}).get("settings", {})
    if recorded.get("model_arch") != now.model_arch:
        return now
    inherited = {name: recorded[name] for name in INHERITED if name in recorded}
    if vars(config)["img_size"] is not None:
        inherited.pop("img_size", None)
    return settings(**dict(inherited, **given))


def find_checkpoint(what, path):
    """The prefix of a checkpoint: the path itself, or the newest in that folder."""
    with readable(what, path):
        state = tf.train.get_checkpoint_state(path) if os.path.isdir(path) else None
        prefix = state.model_checkpoint_path if state else path
        if not os.path.exists(f"{prefix}.index"):
            raise FileNotFoundError("there is none")
        return prefix


def read_weights(what, path):
    """{variable name: array} of the checkpoint with that prefix, or of the newest in that folder."""
    prefix = find_checkpoint(what, path)
    with readable(what, path):
        reader = tf.train.load_checkpoint(prefix)
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
        yield
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{what}: found {path}, expected checkpoints that can be read ({reason})") from error


@contextlib.contextmanager
def writable(setting, folder):
    """Any error in writing there, such as a full disk, is InputError."""
    try:
        yield
    except (tf.errors.OpError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"setting {setting}: found {folder}, which can no longer be written to ({reason})") from error
