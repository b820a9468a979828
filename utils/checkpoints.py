"""Which checkpoints a folder holds, and the record of the runs that wrote them.

TensorFlow keeps the list of files (`checkpoint`); beside it `run.json` holds for each checkpoint the settings it was
trained with and what validation found.
"""
import contextlib
import json
import os
from collections import OrderedDict

from src.errors import InputError
from src.tf1 import tf
from utils.files import write_whole

RECORD = "run.json"


def write_record(checkpoint_dir, record):
    """record: {checkpoint's file name: {"settings", "run_folder", "epoch", "global_step", "val_acc", "val_loss"}}."""
    write_whole({os.path.join(checkpoint_dir, RECORD): json.dumps(record, indent=1)})


def read_record(checkpoint_dir):
    """What write_record wrote, the oldest first; {} if there is none that can be read."""
    try:
        with open(os.path.join(checkpoint_dir, RECORD), encoding="utf-8") as file:
            record = json.load(file, object_pairs_hook=OrderedDict)
    except (OSError, ValueError, RecursionError):
        return OrderedDict()
    return record if isinstance(record, dict) else OrderedDict()


def described(prefix):
    """What the record says of a checkpoint: settings, run_folder, val_acc, val_loss; None if that is not all there.

    So it is if training was killed before it had written the record.
    """
    entry = read_record(os.path.dirname(prefix)).get(os.path.basename(prefix))
    kinds = {"settings": dict, "run_folder": (str, type(None)), "val_acc": (float, type(None)),
             "val_loss": (float, type(None))}
    if not isinstance(entry, dict) or not all(name in entry and isinstance(entry[name], kind)
                                              for name, kind in kinds.items()):
        return None
    return {name: entry[name] for name in kinds}


def newest(checkpoint_dir):
    """The prefix of the newest checkpoint in a folder that its record describes. Raises InputError if there is none."""
    for prefix in reversed(prefixes_in(checkpoint_dir)):
        if described(prefix):
            return prefix
    raise InputError("setting checkpoint_dir: found no checkpoint in %s, expected one written by training, described "
                     "in its %s" % (checkpoint_dir, RECORD))


def best(checkpoint_dir, run_folder):
    """The prefix of the checkpoint of that run with the highest validation accuracy, None if none was validated.

    The lower validation loss decides between equals, then the earlier epoch.
    """
    found = []
    for prefix in prefixes_in(checkpoint_dir):
        entry = described(prefix)
        if entry and entry["run_folder"] == run_folder and None not in (entry["val_acc"], entry["val_loss"]):
            found.append((entry["val_acc"], -entry["val_loss"], prefix))
    return max(found, key=lambda entry: entry[:2])[-1] if found else None


def prefixes_in(checkpoint_dir):
    """The prefixes of the checkpoints in a folder, the newest last, and before all others those without a record.

    TensorFlow's list lacks the best of a run, which is taken from it so as not to be deleted in its turn.
    """
    with readable("setting checkpoint_dir", checkpoint_dir):
        state = tf.train.get_checkpoint_state(checkpoint_dir)
        listed = [os.path.basename(prefix) for prefix in (state.all_model_checkpoint_paths if state else [])]
    recorded = list(read_record(checkpoint_dir))
    prefixes = [os.path.join(checkpoint_dir, name)
                for name in [name for name in listed if name not in recorded] + recorded]
    return [prefix for prefix in prefixes if os.path.exists(prefix + ".index")]


def read_weights(what, path):
    """{variable name: array} of the checkpoint with that prefix, or of the newest in that folder."""
    with readable(what, path):
        reader = tf.train.load_checkpoint(path)
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assign(session, variables, weights):
    """Give each variable its value of {variable name: array}, all in one run."""
    session.run([variable.initializer for variable in variables],
                {variable.initial_value: weights[variable.op.name] for variable in variables})


@contextlib.contextmanager
def readable(what, path):
    """What goes wrong in reading a checkpoint is InputError; TensorFlow raises all kinds of errors on damaged ones."""
    try:
        yield
    except Exception as error:
        raise InputError("%s: found %s, expected checkpoints that can be read (%s)"
                         % (what, path, (str(error) or type(error).__name__).splitlines()[0]))


@contextlib.contextmanager
def writable(setting, folder):
    """What goes wrong in writing there, a full disk for one, is InputError."""
    try:
        yield
    except (tf.errors.OpError, OSError, RuntimeError) as error:
        raise InputError("setting %s: found %s, which can no longer be written to (%s)"
                         % (setting, folder, str(error).splitlines()[0]))
