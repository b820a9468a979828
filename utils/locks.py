"""A lock against two trainings in one folder."""

import contextlib
import os
import re
import stat

from src.console import print_note
from src.errors import InputError, reason
from src.system import BINARY, NO_LOCKS, NOFOLLOW, NONBLOCK, WOULD_BLOCK, lock, release
from utils.owner_file import RENEWAL, owned

CONTENT = re.compile(rb"\d*\n?")  # of a lock file: the last process that locked it
FLAGS = NOFOLLOW | NONBLOCK | BINARY

noted = set()  # folders for which the missing support was reported


@contextlib.contextmanager
def locked(setting, folder):
    """Lock a folder against other trainings. The operating system releases the lock when the process ends.

    Where the file system does not support locks, which is noted once, the file lock.owner in the folder is the lock.

    Raises:
        InputError: another training has the lock, or the file `lock` was not written by training.
    """
    path = os.path.join(folder, "lock")
    file, is_writable = open_lock(setting, path)
    with contextlib.ExitStack() as stack:
        stack.callback(release, file)
        try:
            lock(file)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                refuse(setting, folder, file, error)
            note(folder, error)
            stack.enter_context(owned(setting, folder))
        if not CONTENT.fullmatch(read(file)):
            raise InputError(f"setting {setting}", f"{path}, which training did not write", "none", "move it")
        if is_writable:
            os.ftruncate(file, 0)
            os.lseek(file, 0, os.SEEK_SET)
            os.write(file, b"%d\n" % os.getpid())
        yield


def read(file):
    """The content of a lock file, or what shows that it is none."""
    os.lseek(file, 0, os.SEEK_SET)
    return os.read(file, 100)


def open_lock(setting, path):
    """The descriptor of the lock file, created if necessary, and whether it can be written to.

    Symbolic links are rejected: they may lead anywhere. Another user's file can mostly be read, which is enough to lock
    it; in a sticky folder Linux does not open it for writing, even if its permissions allow that.
    """
    subject, expected = f"setting {setting}", "a file of training's own, or none"
    is_writable, hint = True, ""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.islink(path):
            raise InputError(subject, f"{path}, a symbolic link", expected)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | FLAGS, 0o666)
        except PermissionError:
            if not os.path.exists(path):
                raise
            hint = f"give another folder by --{setting}, or let the owner of this one allow you to read and write there"
            file, is_writable = os.open(path, os.O_RDONLY | FLAGS), False
    except OSError as error:
        found = f"{path}, which cannot be opened ({reason(error)})"
        raise InputError(subject, found, expected, hint) from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise InputError(subject, f"{path}, a device or a pipe", expected)
    return file, is_writable


def note(folder, error):
    """Report, once, that a folder is on a drive without locks."""
    if folder not in noted:
        noted.add(folder)
        print_note(
            f"{folder} is on a drive without locks ({reason(error)}): its file lock.owner, renewed every {RENEWAL} s, "
            "keeps other trainings out instead"
        )


def refuse(setting, folder, file, error):
    """Raise InputError about a lock that failed."""
    if error.errno not in WOULD_BLOCK:
        raise InputError(f"setting {setting}", f"{folder}, which cannot be locked ({reason(error)})") from error
    process = read(file).decode("ascii", "replace").strip() or "unknown"
    found = f"{folder}, which another training is using (process {process})"
    raise InputError(f"setting {setting}", found, hint="wait for its end, or give another folder") from error
