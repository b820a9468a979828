"""Keeping two trainings out of one folder."""

import contextlib
import errno
import fcntl
import os
import re
import stat

from src.console import print_note
from src.errors import InputError, reason

NOT_SUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # by the file system, such as that of a network drive
CONTENT = re.compile(rb"\d*\n?")  # of a lock file: the process that took it last

noted = set()  # folders without locks, of which that was said


@contextlib.contextmanager
def locked(setting, folder):
    """Keep other trainings out of a folder. The operating system ends the lock with the process, however that ends.

    Where the file system has no locks, that is said once, and nothing keeps them out.

    Raises:
        InputError: another training has it, or its file `lock` is none that training wrote.
    """
    path = os.path.join(folder, "lock")
    file = open_lock(setting, path)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            refuse(setting, folder, file, error)
        if not CONTENT.fullmatch(os.pread(file, 100, 0)):
            raise InputError(f"setting {setting}: found {path}, which training did not write, expected none; move it")
        os.ftruncate(file, 0)
        os.pwrite(file, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(file)


def open_lock(setting, path):
    """The number of the open file; it is made if need be. A link is refused: it leads to what may be anything."""
    expected = "expected a file of training's own, or none"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        found = "a symbolic link" if os.path.islink(path) else f"which cannot be opened ({reason(error)})"
        raise InputError(f"setting {setting}: found {path}, {found}, {expected}") from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise InputError(f"setting {setting}: found {path}, a device or a pipe, {expected}")
    return file


def refuse(setting, folder, file, error):
    """Say why a lock could not be taken; raise InputError unless it is that there are none."""
    if error.errno in NOT_SUPPORTED:
        if folder not in noted:
            print_note(f"{folder} is on a drive without locks ({reason(error)}): see that no other training uses it")
            noted.add(folder)
        return
    if error.errno != errno.EWOULDBLOCK:  # EAGAIN is another name of it
        raise InputError(f"setting {setting}: found {folder}, which cannot be locked ({reason(error)})") from error
    process = os.pread(file, 100, 0).decode("ascii", "replace").strip() or "unknown"
    found = f"found {folder}, which another training is using (process {process})"
    raise InputError(f"setting {setting}: {found}; wait for its end, or give another folder") from error
