"""Writing files and folders so that they are complete or not there."""

import contextlib
import os
import shutil
import tempfile

from src.errors import InputError


def write_atomically(contents):
    """Write files, {path: text or bytes}; none of them takes its place before all are complete.

    Raises:
        InputError: they cannot be written; what was there before is then still there.
    """
    partial = {path: f"{path}.partial-{os.getpid()}" for path in contents}
    try:
        for path, content in contents.items():
            with open(partial[path], "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode("utf-8"))
        for path in contents:
            os.replace(partial[path], path)
    except OSError as error:
        raise InputError(f"file {path}: cannot be written ({error.strerror})") from error
    finally:
        for path in partial.values():
            if os.path.exists(path):
                os.remove(path)


@contextlib.contextmanager
def atomic_folder(path):
    """Fill a folder that takes the name `path` only when it is complete; `path` must be free or empty.

    Raises:
        InputError: another process made `path` in the meantime.
    """
    partial = f"{path}.partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    try:
        yield partial
        try:
            os.rename(partial, path)
        except OSError as error:
            raise InputError(f"folder {path}: found one that was not there at the start, expected none") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def make_writable(setting, folder):
    """Make `folder` if need be. Raises InputError, naming the setting, if nothing can be written there."""
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise InputError(
            f"setting {setting}: found {folder}, expected a folder that can be written to ({reason})"
        ) from error
