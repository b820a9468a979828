"""What differs between operating systems. No other module asks which of them it runs on.

Windows lacks the modules fcntl and resource, and many names of os and signal; only Linux has /proc.
"""

import contextlib
import errno
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import threading
import time

try:
    import fcntl
    import resource

    SYSTEM = {"darwin": "macos"}.get(sys.platform, "linux")
except ImportError:
    import msvcrt

    SYSTEM = "windows"

ON_WINDOWS = SYSTEM == "windows"
# What a lock fails with: because another process has it, or because the file system has no locks.
WOULD_BLOCK = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP) + (errno.EINVAL,) * ON_WINDOWS
LOCKED_BYTE = 2**30  # on Windows: beyond the content, as no other process can read a byte that is locked
PATIENCE = 3  # seconds, for which Windows is asked again to replace a file that another program has open
# Flags of os.open: no waiting for the writer of a pipe; no symbolic link; no conversion of line ends.
NONBLOCK, NOFOLLOW, BINARY = (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_BINARY"))
# Characters of paths that are wildcards to TensorFlow, which on Windows takes a backslash as a separator.
WILDCARDS = "*?[]" if ON_WINDOWS else "*?[]\\"
PROGRAM_FILE = "{}.exe" if ON_WINDOWS else "{}"
ACTIVATE = ".venv\\3.11\\Scripts\\activate" if ON_WINDOWS else ". .venv/3.11/bin/activate"
CPUINFO = "/proc/cpuinfo"  # of Linux
PF_AVX_INSTRUCTIONS_AVAILABLE = 39  # of Windows
READING = threading.Lock()  # of read_at on Windows
PLAIN_WORD = re.compile(r"[\w.:=/\\+-]+", re.ASCII)  # means itself in PowerShell and in cmd


def lock(file, wait=False):
    """Lock an open file against other processes, until release() or the end of the process.

    Args:
        file: its descriptor.
        wait: until another process releases it; else that is an error.

    Raises:
        OSError: with one of WOULD_BLOCK, NO_LOCKS or another number.
    """
    if not ON_WINDOWS:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    os.lseek(file, LOCKED_BYTE, os.SEEK_SET)
    while True:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            return
        except OSError as error:
            if not wait or error.errno not in WOULD_BLOCK:
                raise
            time.sleep(0.1)


def release(file):
    """Close a file, by its descriptor, and release its lock if it is locked."""
    if ON_WINDOWS:  # where it may stay locked for a while
        with contextlib.suppress(OSError):
            os.lseek(file, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_UNLCK, 1)
    os.close(file)


def open_to_lock(folder):
    """The descriptor of what is locked for a folder: itself; on Windows, which opens no folders, a file in it."""
    if ON_WINDOWS:
        return os.open(os.path.join(folder, ".lock"), os.O_RDWR | os.O_CREAT)
    return os.open(folder, os.O_RDONLY)


def read_at(file, size, position):
    """Up to so many bytes of an open file, by its descriptor, from a position, in any thread. Its own does not move."""
    if hasattr(os, "pread"):
        return os.pread(file, size, position)
    with READING:
        before = os.lseek(file, 0, os.SEEK_CUR)
        try:
            os.lseek(file, position, os.SEEK_SET)
            return os.read(file, size)
        finally:
            os.lseek(file, before, os.SEEK_SET)


def replace(source, target):
    """As os.replace. Windows refuses it while another program, such as a virus scanner, has one of them open."""
    patiently(os.replace, source, target)


def rename_folder(source, target):
    """As os.rename on POSIX, where the target may be an empty folder."""
    if ON_WINDOWS:
        with contextlib.suppress(OSError):
            os.rmdir(target)
    patiently(os.rename, source, target)


def patiently(function, *arguments):
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return function(*arguments)
        except PermissionError:
            if not ON_WINDOWS or time.monotonic() > until:
                raise
            time.sleep(0.05)


def can_replace(path):
    """Whether this user may replace a file: in a sticky folder, such as /tmp, only its owner and the folder's may."""
    if ON_WINDOWS or not os.path.lexists(path):
        return True
    folder = os.stat(os.path.dirname(path) or os.curdir)
    return not folder.st_mode & stat.S_ISVTX or os.geteuid() in (0, folder.st_uid, os.lstat(path).st_uid)


def is_alive(process):
    """Whether another process has this number."""
    try:
        if ON_WINDOWS:  # where os.kill(process, 0) would end it
            import psutil

            return psutil.pid_exists(process) and process != os.getpid()
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return process != os.getpid()


def is_launcher_gone(launcher):
    """Whether the process of that number, which has started this one, has ended.

    On Windows a process keeps the number of its parent, which is another one in a virtual environment.
    """
    return not is_alive(launcher) if ON_WINDOWS else os.getppid() != launcher


def forward(process, number):
    """Send a signal to a Popen. On Windows, Ctrl-C has reached it already, and there is no other to send."""
    if not ON_WINDOWS:
        process.send_signal(number)


def end_on_broken_pipe():
    """Let the process end without an error when its reader is gone, as in `| head`, which Windows cannot do."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def cores():
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def free_memory():
    """Bytes of memory that are available, where no file in /proc says so; None on Linux."""
    if SYSTEM == "linux":
        return None
    import psutil

    return psutil.virtual_memory().available


def has_avx():
    """Whether an x86 processor has AVX, as the system says; True if it says nothing."""
    if ON_WINDOWS:
        import ctypes

        return bool(ctypes.windll.kernel32.IsProcessorFeaturePresent(PF_AVX_INSTRUCTIONS_AVAILABLE))
    try:
        if SYSTEM == "macos":
            command = ["sysctl", "-n", "machdep.cpu.features"]
            features = subprocess.check_output(command, stderr=subprocess.DEVNULL, universal_newlines=True)
        else:
            with open(CPUINFO, encoding="utf-8", errors="replace") as file:
                features = re.search(r"^flags\s*:(.*)", file.read(), re.MULTILINE).group(1)
    except (OSError, subprocess.CalledProcessError, AttributeError):  # the last one: no line with flags
        return True
    return re.search(r"\bavx(1\.0)?\b", features.lower()) is not None


def ulimits():
    """[(limit in bytes, the field of /proc/self/status that it limits)] of the limits that ulimit has set."""
    if ON_WINDOWS:
        return []
    limits = [(resource.getrlimit(kind)[0], name) for kind, name in
              ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData"))]  # fmt: skip
    return [(limit, name) for limit, name in limits if limit != resource.RLIM_INFINITY]


def quote(word):
    """A word for the command line of a shell: on Windows, of PowerShell and, unless it has a $ or `, of cmd."""
    if not ON_WINDOWS:
        return shlex.quote(word)
    if PLAIN_WORD.fullmatch(word):
        return word
    return "'{}'".format(word.replace("'", "''")) if set(word) & set("$`") else f'"{word}"'
