"""Contents of folders, by one rule for all commands: links are followed, hidden entries ignored."""

import os

from src.errors import InputError


def entries(folder):
    """A folder's os.DirEntry objects, sorted by name. Raises InputError if it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"folder {folder}: cannot be read ({error.strerror})") from error


def class_folders(path):
    """Names of the subfolders of `path`, in plain string order; [] if it is not a folder."""
    if not isinstance(path, str) or not os.path.isdir(path):
        return []
    # entry.is_dir() raises an error on a looping link.
    return [entry.name for entry in entries(path) if os.path.isdir(entry.path)]
