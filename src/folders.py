"""Contents of folders, by one rule for all commands: links are followed, hidden entries ignored."""

import os
import sys

from src.errors import InputError


def entries(folder):
    """A folder's os.DirEntry objects, sorted by name. Raises InputError if it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"folder {folder}: cannot be read ({error.strerror})") from error


def class_folders(path):
    """Names of the subfolders of `path`, in plain string order; [] if it is not a folder.

    Raises:
        InputError: the folder cannot be read, or Python does not take its names for UTF-8.
    """
    if not isinstance(path, str) or not os.path.isdir(path):
        return []
    # entry.is_dir() raises an error on a looping link.
    names = [entry.name for entry in entries(path) if os.path.isdir(entry.path)]
    for name in names:
        check_decoded(name)
    return names


def check_decoded(name):
    """Raise InputError if Python could not decode the name of a folder, and may with another locale."""
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8" and any("\udc80" <= letter <= "\udcff" for letter in name):
        found = f"{encoding}, which cannot decode the name of the folder {os.fsencode(name).decode('utf-8', 'replace')}"
        raise InputError("locale", found, "one with UTF-8", "set LC_ALL=C.UTF-8 before Python starts")
