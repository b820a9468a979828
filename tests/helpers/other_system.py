"""Runs commands of run.py in a process as on another system, as far as Python's own libraries show which it is.

    python tests/helpers/other_system.py windows train --num_epoch 1 THEN evaluate

What these libraries lack there is removed; what they do there in another way, such as refusing to rename an open file,
is imitated. TensorFlow, OpenCV and the file system remain those of this system.
"""

import builtins
import ctypes
import errno
import io
import multiprocessing  # noqa: F401, as all that decides on which system it is when it is imported
import os
import pathlib  # noqa: F401, before os.stat is replaced: Python 3.7's makes a method of it, which would be given a self
import platform
import runpy
import shutil
import signal
import subprocess  # noqa: F401
import sys
import tempfile
import types

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NOT_ON_WINDOWS = """
    O_NONBLOCK O_NOFOLLOW O_CLOEXEC O_DIRECTORY O_SYNC fork forkpty getuid geteuid getgid getegid getpgid killpg setsid
    pread pwrite preadv pwritev mkfifo mknod sched_getaffinity sched_setaffinity statvfs nice chown lchown
    fchown initgroups openpty getloadavg posix_fallocate posix_fadvise sync lockf
    """.split()  # noqa: SIM905
NOT_ON_MACOS = """
    sched_getaffinity sched_setaffinity memfd_create eventfd pipe2 posix_fadvise posix_fallocate O_TMPFILE O_PATH
    getrandom copy_file_range setns unshare
    """.split()  # noqa: SIM905
WINDOWS_SIGNALS = [signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGINT, signal.SIGSEGV, signal.SIGTERM]


def remove(module, names):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)


def instead(module, name, check):
    """Call check(*arguments) before a function of a module."""
    function = getattr(module, name)

    def call(*arguments, **options):
        check(*arguments)
        return function(*arguments, **options)

    setattr(module, name, call)


def imitate_windows():
    import fcntl

    def locking(file, mode, count):
        assert os.lseek(file, 0, os.SEEK_CUR) >= 2**30  # else no other process could read the content
        try:
            fcntl.flock(file, fcntl.LOCK_UN if mode == msvcrt.LK_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "Permission denied") from None

    ctypes.windll = types.SimpleNamespace(kernel32=types.SimpleNamespace(IsProcessorFeaturePresent=lambda number: 1))
    msvcrt = types.SimpleNamespace(LK_NBLCK=2, LK_UNLCK=0, locking=locking)
    platform.uname()  # whose result is kept
    add_psutil()
    sys.modules.update(dict.fromkeys(["fcntl", "resource", "pwd", "grp", "termios", "pty"]))
    import_system(msvcrt=msvcrt)
    refuse_open_files()
    for module in (builtins, io):
        decode_as_western_europe(module)
    instead(os, "kill", lambda *_: os.write(2, b"os.kill ends a process on Windows\n") and os._exit(99))
    instead(signal, "signal", lambda number, handler: WINDOWS_SIGNALS.index(number))
    shutil._use_fd_functions, tempfile.TemporaryFile = False, tempfile.NamedTemporaryFile
    remove(os, NOT_ON_WINDOWS)
    remove(signal, ["SIGPIPE", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGSTOP", "setitimer"])


def imitate_macos():
    add_psutil()
    before, sys.platform = sys.platform, "darwin"
    import_system()
    sys.platform = before

    def hide(path, *_):
        if isinstance(path, str) and path.startswith(("/proc", "/sys/")):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    for module, name in (*((os, name) for name in ("open", "listdir", "scandir", "stat", "readlink")), (io, "open")):
        instead(module, name, hide)
    builtins.open = io.open
    remove(os, NOT_ON_MACOS)
    tempfile.TemporaryFile = tempfile.NamedTemporaryFile


def import_system(**modules):
    """Import src.system, with modules that only it may find: others would take this for the other system."""
    sys.modules.update(modules)
    import src.system  # noqa: F401

    for name in modules:
        del sys.modules[name]


def add_psutil():
    kill = os.kill

    def pid_exists(process):
        try:
            kill(process, 0)
        except ProcessLookupError:
            return False
        return True

    memory = types.SimpleNamespace(available=8 * 2**30)
    sys.modules["psutil"] = types.SimpleNamespace(pid_exists=pid_exists, virtual_memory=lambda: memory)


def open_files():
    """The paths of the files that this process has open or in its memory."""
    files = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    with open("/proc/self/maps") as maps:
        mapped = [line.split(None, 5)[5].strip() for line in maps if len(line.split(None, 5)) > 5]
    return [os.readlink(file) for file in files if os.path.lexists(file)] + mapped


def refuse_open_files():
    """No open file is renamed, replaced or deleted, no folder is opened or replaced, and there are no links."""

    def not_open(*paths):
        for path in filter(lambda path: isinstance(path, str), paths):
            used = [name for name in open_files() if (name + os.sep).startswith(os.path.realpath(path) + os.sep)]
            if used:
                raise PermissionError(errno.EACCES, f"another program has it open: {used}", path)

    def not_there(source, target):
        not_open(source, target)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)

    def no_folder(path, *_):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    def no_links(*_):
        raise OSError(errno.EPERM, "a required privilege is not held by the client")

    for name, check in (("replace", not_open), ("remove", not_open), ("unlink", not_open), ("rename", not_there),
                        ("open", no_folder), ("symlink", no_links)):  # fmt: skip
        instead(os, name, check)


def decode_as_western_europe(module):
    """Text files are, unless their encoding is given, in the code page of Western Europe."""
    function = module.open

    def open_text(file, mode="r", buffering=-1, encoding=None, *arguments, **options):
        encoding = encoding or (None if "b" in mode else "cp1252")
        return function(file, mode, buffering, encoding, *arguments, **options)

    module.open = open_text


def main(system, *words):
    sys.path.insert(0, REPOSITORY)
    {"windows": imitate_windows, "macos": imitate_macos}[system]()
    words = list(words)
    while words:
        end = words.index("THEN") if "THEN" in words else len(words)
        sys.argv, words = [os.path.join(REPOSITORY, "run.py"), *words[:end]], words[end + 1 :]
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as ended:
            if ended.code or not words:
                raise


if __name__ == "__main__":
    main(*sys.argv[1:])
