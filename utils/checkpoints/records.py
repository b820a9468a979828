"""The records of runs: the file run.json in the folder of each."""

import json
import os
import re
import time
from collections import namedtuple

from src.errors import InputError
from utils.files import is_plain, read_json, write_atomically

RECORD = "run.json"
RUN = re.compile(r"\d{8}-\d{6}-")  # how the name of a run's folder begins
TICK = 0.001  # seconds between the times of two runs, at least
LATEST = 1e11  # seconds since 1970, in the year 5138

# entries: {checkpoint's name: what is to be known of it}, the oldest first.
# history: of the run, as in Trainer.history; [] in one of an earlier version.
# time: of writing, in seconds since 1970; 0 in one of an earlier version. It is later than that of every run beside it
#     that was saved before, even if the clock has been set back since: so the times count the runs.
# damaged: names of the folders beside it whose records could not be read at that time.
Record = namedtuple("Record", "entries history time damaged")


def read_record(folder):
    """The Record of the run in a folder; what cannot be read of it is empty, or None."""
    record = read_unchecked(folder)
    entries = {name: entry if is_plain(entry) else None for name, entry in record.entries.items()}
    return record._replace(entries=entries, history=record.history if is_plain(record.history) else [])


def read_unchecked(folder):
    """The same in a fifth of the time; entries and history may be whatever JSON can say."""
    try:
        record = read_json("record", os.path.join(folder, RECORD))
    except InputError:
        record = None
    record = record if isinstance(record, dict) else {}
    written, history, damaged = [record.pop(name, None) for name in ("time", "history", "damaged")]
    written = written if isinstance(written, float) and 0 < written < LATEST else 0.0
    entries = {name: entry for name, entry in record.items() if is_file_name(name)}
    history, damaged = [value if isinstance(value, list) else [] for value in (history, damaged)]
    return Record(entries, history, written, damaged)


def write_record(folder, entries, history):
    """Write the record of the run in a folder, as that of the run which was saved last; returns the Record.

    Raises:
        InputError: it cannot be written.
    """
    records = {name_of(beside): read_unchecked(beside) for beside in run_folders(os.path.dirname(folder))}
    latest = max([time.time(), *(record.time + TICK for record in records.values())])
    damaged = [name for name, record in records.items() if is_damaged(record) and name != name_of(folder)]
    content = dict(entries, history=history, time=latest, **({"damaged": damaged} if damaged else {}))
    write_atomically({os.path.join(folder, RECORD): json.dumps(content, indent=1)})
    return Record(entries, history, latest, damaged)


def is_damaged(record):
    """Whether a Record is that of a file that cannot be read: then it does not even say when it was written."""
    return not record.entries and not record.time


def name_of(folder):
    """The name of a run's folder in that of all."""
    return os.path.basename(os.path.abspath(folder))


def run_folders(checkpoint_dir):
    """The folders of runs in checkpoint_dir; and that itself, if an earlier version has written there."""
    try:
        names = sorted(entry.name for entry in os.scandir(checkpoint_dir or os.curdir) if entry.is_dir())
    except OSError:
        return []
    folders = [checkpoint_dir] + [os.path.join(checkpoint_dir, name) for name in names if is_file_name(name)]
    return [folder for folder in folders if is_run(folder)]


def is_run(folder):
    """Whether a folder is that of a run: it has a record, whatever that is; or checkpoints that have lost theirs."""
    has_name = RUN.match(name_of(folder)) is not None
    try:
        names = os.listdir(folder)
    except OSError:  # it is not to be read
        return has_name
    return RECORD in names or has_name and any(name.endswith(".index") for name in names)


def is_file_name(name):
    """Whether it is one, as this program gives them: files from elsewhere may say anything."""
    return name.isprintable() and name == os.path.basename(name) and name not in ("", os.curdir, os.pardir)
