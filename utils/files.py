"""Files that are whole or not there."""
import contextlib
import os
import shutil
import tempfile

from src.errors import InputError


@contextlib.contextmanager
def whole_file(path, mode="w"):
    """Open a file for writing that takes the place of `path` once it is complete, and not before."""
    partial = path + ".partial"
    try:
        with open(partial, mode) as file:
            yield file
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.remove(partial)


def make_writable(setting, folder):
    """Make `folder` if need be. Raises InputError, naming the setting, if nothing can be written there."""
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError("setting %s: found %s, expected a folder that can be written to (%s)"
                         % (setting, folder, error.strerror))


@contextlib.contextmanager
def whole_folder(path):
    """Fill a folder that takes the name `path` once it is complete, and not before; `path` must be free or empty."""
    partial = path + ".partial"
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
    os.makedirs(partial)
    try:
        yield partial
        os.rename(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
