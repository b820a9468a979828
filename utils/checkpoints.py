"""Which checkpoints a folder holds, and the record of the run that wrote them.

TensorFlow keeps the list of files (`checkpoint`); beside it `run.json` holds the run's settings and, for each
checkpoint, what validation found.
"""
import json
import os

from src.errors import InputError
from src.tf1 import tf
from utils.files import whole_file

RECORD = "run.json"


def write_record(config, results):
    """results: {checkpoint's file name: {"global_step", "epoch", "val_acc", "val_loss"}}."""
    with whole_file(os.path.join(config.checkpoint_dir, RECORD)) as file:
        json.dump({"settings": vars(config), "checkpoints": results}, file, indent=1, sort_keys=True)


def newest(checkpoint_dir):
    """The newest checkpoint in a folder: (prefix of its files, settings of its run, its results).

    Raises:
        InputError: there is none, or not one that this program wrote.
    """
    prefix = tf.train.latest_checkpoint(checkpoint_dir)
    if prefix is None:
        raise InputError("setting checkpoint_dir: found no checkpoint in %s, expected one written by training"
                         % checkpoint_dir)
    record = os.path.join(checkpoint_dir, RECORD)
    try:
        with open(record) as file:
            content = json.load(file)
        return prefix, content["settings"], content["checkpoints"][os.path.basename(prefix)]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError("record %s: found none that describes %s, expected the one that training writes with it"
                         % (record, os.path.basename(prefix)))


def open_checkpoint(setting, path):
    """A reader of the checkpoint with that prefix, or of the newest in that folder.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    try:
        return tf.train.load_checkpoint(path)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise InputError("setting %s: found %s, expected a checkpoint that can be read (%s)"
                         % (setting, path, str(error).splitlines()[0]))


def assign(session, variables, weights):
    """Give each variable its value of {variable name: array}, all in one run."""
    session.run([variable.initializer for variable in variables],
                {variable.initial_value: weights[variable.op.name] for variable in variables})
