"""The metadata of a run: run.json in its checkpoint folder."""

import json
import os
import re
import time
from collections import namedtuple

from src.errors import InputError
from utils.files import is_plain, read_json, write_atomically

METADATA_FILE = "run.json"
RUN_FOLDER = re.compile(r"\d{8}-\d{6}-")  # how the name of a run's folder begins
TICK = 0.001  # minimum seconds between the times of two runs
MAX_TIME = 1e11  # seconds since 1970: the year 5138

# entries: {checkpoint name: its metadata}, oldest first.
# history: that of the run, as in Trainer.history; [] if an earlier version wrote it.
# time: when it was written, in seconds since 1970; 0 if an earlier version wrote it. Always later than that of the runs
#     beside it that were saved before, even if the clock was set back: it orders the runs.
# corrupt: names of the run folders beside it whose metadata could not be read at that time ("damaged" in the file).
RunMetadata = namedtuple("RunMetadata", "entries history time corrupt")


def read_run_metadata(folder):
    """The RunMetadata of a run's folder; what cannot be read is empty, an invalid entry None."""
    metadata = read_unvalidated(folder)
    entries = {name: entry if is_plain(entry) else None for name, entry in metadata.entries.items()}
    return metadata._replace(entries=entries, history=metadata.history if is_plain(metadata.history) else [])


def read_unvalidated(folder):
    """The same in a fifth of the time; entries and history may hold any JSON value."""
    try:
        content = read_json("metadata", os.path.join(folder, METADATA_FILE))
    except InputError:
        content = None
    content = content if isinstance(content, dict) else {}
    written, history, corrupt = [content.pop(name, None) for name in ("time", "history", "damaged")]
    written = written if isinstance(written, float) and 0 < written < MAX_TIME else 0.0
    entries = {name: entry for name, entry in content.items() if is_file_name(name)}
    history, corrupt = [value if isinstance(value, list) else [] for value in (history, corrupt)]
    return RunMetadata(entries, history, written, corrupt)


def write_run_metadata(folder, entries, history):
    """Write the metadata of a run, which makes it the latest; returns its RunMetadata.

    Raises:
        InputError: it cannot be written.
    """
    runs = {folder_name(run): read_unvalidated(run) for run in run_folders(os.path.dirname(folder))}
    now = max([time.time(), *(run.time + TICK for run in runs.values())])
    corrupt = [name for name, run in runs.items() if is_corrupt(run) and name != folder_name(folder)]
    content = dict(entries, history=history, time=now, **({"damaged": corrupt} if corrupt else {}))
    write_atomically({os.path.join(folder, METADATA_FILE): json.dumps(content, indent=1)})
    return RunMetadata(entries, history, now, corrupt)


def is_corrupt(metadata):
    """Whether this is what a file that cannot be read gives: not even its time is known."""
    return not metadata.entries and not metadata.time


def folder_name(folder):
    """The name of a run's folder within checkpoint_dir."""
    return os.path.basename(os.path.abspath(folder))


def run_folders(checkpoint_dir):
    """The folders of runs in checkpoint_dir, and checkpoint_dir itself if an earlier version has written there."""
    try:
        names = sorted(entry.name for entry in os.scandir(checkpoint_dir or os.curdir) if entry.is_dir())
    except OSError:
        return []
    folders = [checkpoint_dir] + [os.path.join(checkpoint_dir, name) for name in names if is_file_name(name)]
    return [folder for folder in folders if is_run(folder)]


def is_run(folder):
    """Whether a folder belongs to a run: it has metadata, readable or not, or checkpoints that have lost theirs."""
    has_run_name = RUN_FOLDER.match(folder_name(folder)) is not None
    try:
        names = os.listdir(folder)
    except OSError:  # no permission
        return has_run_name
    return METADATA_FILE in names or has_run_name and any(name.endswith(".index") for name in names)


def is_file_name(name):
    """Whether a name, perhaps from a file of unknown origin, is a plain file name as this program gives them."""
    return name.isprintable() and name == os.path.basename(name) and name not in ("", os.curdir, os.pardir)
