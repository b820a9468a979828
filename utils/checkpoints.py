"""Which checkpoints a folder holds, and the record of the runs that wrote them.

TensorFlow keeps the list of files (`checkpoint`); beside it `run.json` holds for each checkpoint the settings it was
trained with and what validation found.
"""
import contextlib
import json
import os

from src.errors import InputError
from src.tf1 import tf
from utils.files import write_whole

RECORD = "run.json"


def write_record(checkpoint_dir, record):
    """record: {checkpoint's file name: {"settings", "epoch", "global_step", "val_acc", "val_loss"}}."""
    write_whole({os.path.join(checkpoint_dir, RECORD): json.dumps(record, indent=1, sort_keys=True)})


def read_record(checkpoint_dir):
    """What write_record wrote; {} if there is none that can be read."""
    try:
        with open(os.path.join(checkpoint_dir, RECORD), encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def newest(checkpoint_dir):
    """The newest checkpoint in a folder with a record: (prefix of its files, settings it was trained with, val_acc).

    Raises:
        InputError: there is none.
    """
    record = read_record(checkpoint_dir)
    for prefix in reversed(prefixes_in(checkpoint_dir)):
        try:
            entry = record[os.path.basename(prefix)]
            return prefix, dict(entry["settings"]), entry["val_acc"]
        except (KeyError, TypeError, ValueError):
            pass  # training was killed before it had written the record
    raise InputError("setting checkpoint_dir: found no checkpoint in %s, expected one written by training, described "
                     "in its %s" % (checkpoint_dir, RECORD))


def prefixes_in(checkpoint_dir):
    """The prefixes of the checkpoints in a folder, the newest last."""
    with readable("checkpoint_dir", checkpoint_dir):
        state = tf.train.get_checkpoint_state(checkpoint_dir)
        return list(state.all_model_checkpoint_paths) if state else []


def read_weights(setting, path):
    """{variable name: array} of the checkpoint with that prefix, or of the newest in that folder."""
    with readable(setting, path):
        reader = tf.train.load_checkpoint(path)
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assign(session, variables, weights):
    """Give each variable its value of {variable name: array}, all in one run."""
    session.run([variable.initializer for variable in variables],
                {variable.initial_value: weights[variable.op.name] for variable in variables})


@contextlib.contextmanager
def readable(setting, path):
    """What goes wrong in reading a checkpoint is InputError; TensorFlow raises all kinds of errors on damaged ones."""
    try:
        yield
    except Exception as error:
        raise InputError("setting %s: found %s, expected checkpoints that can be read (%s)"
                         % (setting, path, (str(error) or type(error).__name__).splitlines()[0]))


@contextlib.contextmanager
def writable(setting, folder):
    """What goes wrong in writing there, a full disk for one, is InputError."""
    try:
        yield
    except (tf.errors.OpError, OSError, RuntimeError) as error:
        raise InputError("setting %s: found %s, which can no longer be written to (%s)"
                         % (setting, folder, str(error).splitlines()[0]))
