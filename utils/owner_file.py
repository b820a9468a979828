"""A lock for drives without locks: the file lock.owner, which is there as long as a process trains in its folder."""

import contextlib
import json
import os
import socket
import tempfile
import threading
import time
import uuid

from src.errors import InputError, reason
from src.system import BINARY, is_alive
from utils.files import host, is_plain, read_file, write_atomically

NAME = "lock.owner"
RENEWAL = 20  # seconds between two renewals of the file's time of modification
STALE = 15 * RENEWAL  # seconds without a renewal, after which its process counts as ended
SETTLING = 1  # seconds in which processes that take over the same stale file at the same time overwrite each other

owned_here = set()  # contents of the files of this process; an earlier process may have had the same number


@contextlib.contextmanager
def owned(setting, folder):
    """Keep other trainings out of a folder within the block.

    Raises:
        InputError: another training has written the file, and renews it; or it cannot be written.
    """
    path = os.path.join(folder, NAME)
    owner = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    content = json.dumps(dict(owner, scope=host(), id=uuid.uuid4().hex)).encode()
    take(setting, path, content)
    owned_here.add(content)
    ended = threading.Event()
    threading.Thread(target=renew, args=(path, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        owned_here.discard(content)
        with contextlib.suppress(InputError, OSError):
            if read_file("lock", path) == content:
                os.remove(path)


def renew(path, ended):
    while not ended.wait(RENEWAL):
        with contextlib.suppress(OSError):
            os.utime(path)


def take(setting, path, content):
    """Write the file, which must not exist or must be stale. Raises InputError as owned()."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666)
    except FileExistsError:
        check_stale(setting, path)
        write_atomically({path: content})
        time.sleep(SETTLING)
        if read_file("lock", path) != content:
            check_stale(setting, path)
    except OSError as error:
        raise InputError(f"file {path}: cannot be written ({reason(error)})") from error
    else:
        with open(file, "wb") as opened:
            opened.write(content)


def check_stale(setting, path):
    """Raise InputError unless the process that wrote the file has ended, or has not renewed it for STALE seconds."""
    content = read_file("lock", path)
    try:
        owner = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        owner = None
    if not isinstance(owner, dict) or not is_plain(owner):  # being written, or not by training
        owner = {}
    process, seconds = owner.get("process"), age(path)
    if owner.get("scope") == host() and type(process) is int and not (is_alive(process) or content in owned_here):
        return
    if seconds < STALE:
        who = f"process {process} on {owner.get('host')}, since {owner.get('since')}" if owner else "process unknown"
        found = f"{os.path.dirname(path)}, which another training is using ({who}; renewed {seconds:.0f} s ago)"
        hint = f"wait for its end, or give another folder; without a renewal for {STALE} s it counts as ended"
        hint += f"; if there is no such process, delete {path}" * (seconds < 0)  # of a clock that was wrong
        raise InputError(f"setting {setting}", found, hint=hint)


def age(path):
    """Seconds since the file was modified, by the clock of its drive, which another machine may have."""
    with tempfile.TemporaryFile(dir=os.path.dirname(path)) as now:
        return os.fstat(now.fileno()).st_mtime - os.stat(path).st_mtime
