"""Reading files that may be anything; writing files and folders so that they are complete or not there."""

import contextlib
import json
import math
import os
import re
import shutil
import socket
import stat
import tempfile
import time
import uuid

from src.errors import InputError, reason

# The name of what is being written: a code for the host, the process there, and a random number.
PARTIAL = re.compile(r"\.partial-([0-9a-f]{12})-(\d{1,10})-([0-9a-f]{32})")
WEEK = 7 * 24 * 3600  # seconds, after which what another host was writing is taken to be left over
DEEPEST = 20  # levels of lists and dicts in a JSON file of this program, at most

being_written = set()  # names, by this process; in a container, one before it may have had the same number


def open_file(what, path, advice=""):
    """A file, open for reading bytes. Raises InputError if it cannot be read, or is a device or a pipe, which may never
    end."""
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise InputError(f"{what} {path}: cannot be read ({reason(error)}){advice}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InputError(f"{what} {path}: found a device or a pipe, expected a file{advice}")
    return file


def read_file(what, path, advice=""):
    """The bytes of a file. Raises InputError as open_file does."""
    with open_file(what, path, advice) as file:
        try:
            return file.read()
        except OSError as error:
            raise InputError(f"{what} {path}: cannot be read ({reason(error)}){advice}") from error


def read_json(what, path, advice=""):
    """What is in a JSON file in UTF-8. Raises InputError if it cannot be read, or is nested too deeply to be."""
    try:
        return json.loads(read_file(what, path, advice).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} {path}: found a file that is not JSON{advice}") from error


def is_plain(value, levels=DEEPEST):
    """Whether a value from a JSON file has finite numbers, text that can name a file, and at most so many levels.

    JSON can also hold NaN, Inf, and halves of letters (lone surrogates), which no file and no terminal takes.
    """
    if isinstance(value, str):
        return can_be_name(value)
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return levels > 0 and all(is_plain(part, levels - 1) for part in value)
    return not isinstance(value, float) or math.isfinite(value)


def can_be_name(text):
    """Whether text can be the name of a file. Python has U+DC80 to U+DCFF for bytes that are not UTF-8."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def check_replaceable(path):
    """Raise InputError if there is something of that name that is no file."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"file {path}: found a folder, a device or a pipe, expected a file or none")


def write_atomically(contents, before_replace=None):
    """Write files, {path: text or bytes}; none of them takes its place before all are complete.

    A symbolic link of that name is replaced; what it leads to stays as it is.

    Args:
        before_replace: called when all are complete, before the first takes its place.

    Raises:
        InputError: they cannot be written; what was there before is then still there.
    """
    for path in contents:
        check_replaceable(path)
    partial = {path: partial_name(os.path.dirname(path)) for path in contents}
    try:
        for path, content in contents.items():
            with open(partial[path], "xb") as file:
                file.write(content if isinstance(content, bytes) else content.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())  # or a power failure could leave an empty file of that name
        if before_replace:
            before_replace()
        for path in contents:
            os.replace(partial[path], path)
    except OSError as error:
        raise InputError(f"file {path}: cannot be written ({reason(error)})") from error
    finally:
        for path in partial.values():
            with contextlib.suppress(OSError):
                os.remove(path)
            being_written.discard(os.path.basename(path))


@contextlib.contextmanager
def partial_folder(folder):
    """A folder in a folder, for what is not complete yet; it goes in the end, with all that is then in it.

    Raises:
        InputError: nothing can be written there.
    """
    path = partial_name(folder)
    try:
        os.makedirs(path)
    except OSError as error:
        raise InputError(f"folder {folder or os.curdir}: cannot be written to ({reason(error)})") from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        being_written.discard(os.path.basename(path))


@contextlib.contextmanager
def atomic_folder(path):
    """Fill a folder that takes the name `path` only when it is complete; `path` must be free or empty.

    Raises:
        InputError: nothing can be written there, or another process made `path` in the meantime.
    """
    remove_leftovers(os.path.dirname(path) or ".")
    with partial_folder(os.path.dirname(path)) as partial:
        yield partial
        try:
            os.rename(partial, path)
        except OSError as error:
            raise InputError(f"folder {path}: found one that was not there at the start, expected none") from error


def partial_name(folder):
    """The path of what is to be written in a folder, until it is complete."""
    name = f".partial-{host()}-{os.getpid()}-{uuid.uuid4().hex}"
    being_written.add(name)
    return os.path.join(folder, name)


def host():
    """A code for where a process number means this process: the machine since it was started, and the container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not on every system
        parts.append(os.readlink("/proc/self/ns/pid"))
        with open("/proc/sys/kernel/random/boot_id") as file:
            parts.append(file.read())
    return uuid.uuid5(uuid.NAMESPACE_DNS, " ".join(parts)).hex[:12]


def remove_leftovers(folder):
    """Remove what processes of this program were writing in a folder when they were killed."""
    try:
        entries = list(os.scandir(folder))
    except OSError:  # it is not there, or is not to be read
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            if is_leftover(entry):
                is_folder = entry.is_dir(follow_symlinks=False)
                shutil.rmtree(entry.path, ignore_errors=True) if is_folder else os.remove(entry.path)


def is_leftover(entry):
    """Whether an os.DirEntry is what a process was writing that is no more."""
    found = PARTIAL.fullmatch(entry.name)
    if not found or entry.name in being_written:
        return False
    if found.group(1) == host():
        return not is_alive(int(found.group(2)))
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > WEEK


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
    """Whether a path, if there is one, is that of a file or folder in a folder, and no link to elsewhere."""
    parent, name = os.path.split(path or "")
    is_name = name not in ("", os.curdir, os.pardir) and not os.path.islink(path)
    return is_name and os.path.realpath(parent) == os.path.realpath(folder)


def make_writable(setting, folder):
    """Make `folder` if need be. Raises InputError, naming the setting, if nothing can be written there."""
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, ValueError) as error:
        expected = f"expected a folder that can be written to ({reason(error)})"
        raise InputError(f"setting {setting}: found {folder}, {expected}") from error
