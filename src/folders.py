"""Contents of folders, and of archives as folders, by one rule: links are followed, hidden entries ignored."""

import os
import sys
from collections import namedtuple
from operator import attrgetter

from src.archives import FILE, FOLDER, locate_current
from src.errors import InputError, reason

Entry = namedtuple("Entry", "name path kind")  # of what a folder contains: FOLDER, FILE, or in words what else it is


def is_folder(path):
    """Whether it is a folder, an archive, or a folder in one. Raises InputError for an archive that cannot be read."""
    return os.path.isdir(path) or in_archive(path) is not None


def in_archive(path):
    """(Archive, name in it) of a folder in an archive, or of the archive itself; None for other paths."""
    found = None if os.path.isdir(path) else locate_current(path)
    return found if found and found[0].is_folder(found[1]) else None


def entries(folder):
    """Yield the Entry objects of a folder, sorted by name. Raises InputError if it cannot be read.

    One at a time: Python looks through all objects of the process again and again when many tuples are kept.
    """
    found = in_archive(folder)
    if found:
        archive, below = found
        for name in sorted(name for name in archive.names(below) if not name.startswith(".")):
            yield Entry(name, os.path.join(folder, name), archive.kind(below, name))
        return
    try:
        with os.scandir(folder) as scanned:
            listed = sorted((entry for entry in scanned if not entry.name.startswith(".")), key=attrgetter("name"))
        for entry in listed:
            yield Entry(entry.name, entry.path, kind_of(entry))
    except OSError as error:
        raise InputError(f"folder {folder}: cannot be read ({reason(error)})") from error


def kind_of(entry):
    """What an os.DirEntry is, without another look at the disk. A broken link is reported when it is read."""
    if entry.is_symlink():
        return FOLDER if os.path.isdir(entry.path) else FILE
    if entry.is_dir():
        return FOLDER
    return FILE if entry.is_file() else "device or pipe"


def identity(folder):
    """What all paths to a folder have in common, and no other: (device, inode), or (archive, name in it).

    Raises InputError if it cannot be read.
    """
    found = in_archive(folder)
    if found:
        return found[0].path, found[1]
    try:
        status = os.stat(folder)
    except OSError as error:
        raise InputError(f"folder {folder}: cannot be read ({reason(error)})") from error
    return status.st_dev, status.st_ino


def class_folders(path):
    """Names of the subfolders of `path`, in plain string order; [] if it is not a folder.

    Raises:
        InputError: the folder cannot be read, or Python does not take its names for UTF-8.
    """
    if not isinstance(path, str) or not is_folder(path):
        return []
    names = [entry.name for entry in entries(path) if entry.kind == FOLDER]
    for name in names:
        check_decoded(name)
    return names


def check_decoded(name):
    """Raise InputError if Python could not decode the name of a folder, and may with another locale."""
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8" and any("\udc80" <= letter <= "\udcff" for letter in name):
        found = f"{encoding}, which cannot decode the name of the folder {os.fsencode(name).decode('utf-8', 'replace')}"
        raise InputError("locale", found, "one with UTF-8", "set LC_ALL=C.UTF-8 before Python starts")
