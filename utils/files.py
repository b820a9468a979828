"""Writing files and folders so that they are complete or not there."""

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile

from src.errors import InputError

PARTIAL = re.compile(r"(?:^|\.)partial-(\d+)")  # in the name of what is being written: the process that writes it

being_written = set()  # by this process; in a container, one before it may have had the same number


def read_file(what, path, advice=""):
    """The bytes of a file. Raises InputError if it cannot be read, or is a device or a pipe, which may never end."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"{what} {path}: found a device or a pipe, expected a file{advice}")
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise InputError(f"{what} {path}: cannot be read ({getattr(error, 'strerror', error)}){advice}") from error


def write_atomically(contents, make_way=None):
    """Write files, {path: text or bytes}; none of them takes its place before all are complete.

    Args:
        make_way: called when all are complete, before the first takes its place.

    Raises:
        InputError: they cannot be written; what was there before is then still there.
    """
    for path in contents:
        if os.path.exists(path) and not os.path.isfile(path):
            raise InputError(f"file {path}: found a folder, a device or a pipe, expected a file or none")
    partial = {path: f"{path}.partial-{os.getpid()}" for path in contents}
    being_written.update(map(os.path.abspath, partial.values()))
    try:
        for path, content in contents.items():
            with open(partial[path], "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())  # or a power failure could leave an empty file of that name
        if make_way:
            make_way()
        for path in contents:
            os.replace(partial[path], path)
    except OSError as error:
        raise InputError(f"file {path}: cannot be written ({error.strerror})") from error
    finally:
        for path in partial.values():
            if os.path.exists(path):
                os.remove(path)
        being_written.difference_update(map(os.path.abspath, partial.values()))


@contextlib.contextmanager
def atomic_folder(path):
    """Fill a folder that takes the name `path` only when it is complete; `path` must be free or empty.

    Raises:
        InputError: another process made `path` in the meantime.
    """
    remove_leftovers(os.path.dirname(path) or ".")
    partial = f"{path}.partial-{os.getpid()}"
    os.makedirs(partial)
    try:
        yield partial
        try:
            os.rename(partial, path)
        except OSError as error:
            raise InputError(f"folder {path}: found one that was not there at the start, expected none") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_leftovers(folder):
    """Remove what processes of this program were writing in a folder when they were killed."""
    if not os.path.isdir(folder):
        return
    for entry in os.scandir(folder):
        found = PARTIAL.search(entry.name)
        if not found or is_alive(int(found.group(1))) or os.path.abspath(entry.path) in being_written:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.remove(entry.path)


def is_alive(process):
    """Whether there is another process with that number."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return process != os.getpid()


def is_in(folder, path):
    """Whether a path, if there is one, is that of a file or folder in a folder."""
    parent, name = os.path.split(path or "")
    return name not in ("", os.curdir, os.pardir) and os.path.realpath(parent) == os.path.realpath(folder)


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


@contextlib.contextmanager
def locked(setting, folder):
    """Keep other trainings out of a folder. The operating system ends the lock with the process, however that ends.

    Raises:
        InputError: another training has it.
    """
    with open(os.path.join(folder, "lock"), "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            found = f"found {folder}, which another training is using (process {file.read().strip() or 'unknown'})"
            raise InputError(f"setting {setting}: {found}; wait for its end, or give another folder") from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
