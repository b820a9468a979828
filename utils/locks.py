"""A lock against two trainings in one folder."""

import contextlib
import errno
import fcntl
import os
import re
import stat

from src.console import print_note
from src.errors import InputError, reason

NOT_SUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # by the file system, such as a network drive's
CONTENT = re.compile(rb"\d*\n?")  # of a lock file: the last process that locked it

noted = set()  # folders for which the missing support was reported


@contextlib.contextmanager
def locked(setting, folder):
    """Lock a folder against other trainings. The operating system releases the lock when the process ends.

    Where the file system does not support locks, this is only noted, once.

    Raises:
        InputError: another training has the lock, or the file `lock` was not written by training.
    """
    path = os.path.join(folder, "lock")
    file = open_lock(setting, path)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            refuse(setting, folder, file, error)
        if not CONTENT.fullmatch(os.pread(file, 100, 0)):
            raise InputError(f"setting {setting}", f"{path}, which training did not write", "none", "move it")
        os.ftruncate(file, 0)
        os.pwrite(file, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(file)


def open_lock(setting, path):
    """The descriptor of the lock file, created if necessary. Symbolic links are rejected: they may lead anywhere."""
    subject, expected = f"setting {setting}", "a file of training's own, or none"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        found = "a symbolic link" if os.path.islink(path) else f"which cannot be opened ({reason(error)})"
        raise InputError(subject, f"{path}, {found}", expected) from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise InputError(subject, f"{path}, a device or a pipe", expected)
    return file


def refuse(setting, folder, file, error):
    """Raise InputError about a lock that failed; only a note if locks are not supported."""
    if error.errno in NOT_SUPPORTED:
        if folder not in noted:
            print_note(
                f"{folder} is on a drive without locks ({reason(error)}): make sure that no other training uses it"
            )
            noted.add(folder)
        return
    if error.errno != errno.EWOULDBLOCK:  # the same number as EAGAIN
        raise InputError(f"setting {setting}", f"{folder}, which cannot be locked ({reason(error)})") from error
    process = os.pread(file, 100, 0).decode("ascii", "replace").strip() or "unknown"
    found = f"{folder}, which another training is using (process {process})"
    raise InputError(f"setting {setting}", found, hint="wait for its end, or give another folder") from error
