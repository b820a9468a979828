"""Reading untrusted files; atomic writes of files and folders."""

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
from src.system import NONBLOCK, can_replace, is_alive, rename_folder, replace

# The name of a file or folder while it is written: host code, process, random number.
PARTIAL = re.compile(r"\.partial-([0-9a-f]{12})-(\d{1,10})-([0-9a-f]{32})")
WEEK = 7 * 24 * 3600  # seconds, after which another host's partial file counts as abandoned
MAX_NESTING = 20  # levels of lists and dicts in a JSON file of this program

being_written = set()  # names used by this process; in a container, an earlier process may have had the same number


def open_file(what, path, hint=""):
    """Open a file to read bytes. Raises InputError if that fails, or for a device or a pipe, which may never end."""
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | NONBLOCK))  # noqa: SIM115
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise InputError(f"{what} {path}: cannot be read ({reason(error)})", hint=hint) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InputError(f"{what} {path}", "a device or a pipe", "a file", hint)
    return file


def read_file(what, path, hint=""):
    """The bytes of a file. Raises InputError as open_file does."""
    with open_file(what, path, hint) as file:
        try:
            return file.read()
        except OSError as error:
            raise InputError(f"{what} {path}: cannot be read ({reason(error)})", hint=hint) from error


def read_json(what, path, hint=""):
    """The content of a JSON file in UTF-8. Raises InputError if it cannot be read or parsed."""
    try:
        return json.loads(read_file(what, path, hint).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} {path}", "a file that is not JSON", hint=hint) from error


def is_plain(value, levels=MAX_NESTING):
    """Whether a JSON value is free of NaN, Inf and lone surrogates, and at most so deeply nested."""
    if isinstance(value, str):
        return can_be_name(value)
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return levels > 0 and all(is_plain(part, levels - 1) for part in value)
    return not isinstance(value, float) or math.isfinite(value)


def can_be_name(text):
    """Whether text can be a file name. Python represents bytes that are not UTF-8 as U+DC80 to U+DCFF."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def check_replaceable(path):
    """Raise InputError if the path exists but is not a file, or is one that this user may not replace."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"file {path}", "a folder, a device or a pipe", "a file or none")
    if not can_replace(path):
        found = "one of another user, in a sticky folder, where only that user may replace it"
        raise InputError(f"file {path}", found, "one of your own or none", "give another folder")


def write_atomically(contents, before_replace=None):
    """Write files, {path: text or bytes}; none is replaced before all are complete.

    Symbolic links are replaced, not followed.

    Args:
        before_replace: called when all are complete, before the first is replaced.

    Raises:
        InputError: they cannot be written; existing files are then unchanged.
    """
    for path in contents:
        check_replaceable(path)
    partial = {path: partial_name(os.path.dirname(path)) for path in contents}
    try:
        for path, content in contents.items():
            with open(partial[path], "xb") as file:
                file.write(content if isinstance(content, bytes) else content.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())  # or a power failure could leave an empty file
        if before_replace:
            before_replace()
        for path in contents:
            replace(partial[path], path)
    except OSError as error:
        raise InputError(f"file {path}: cannot be written ({reason(error)})") from error
    finally:
        for path in partial.values():
            with contextlib.suppress(OSError):
                os.remove(path)
            being_written.discard(os.path.basename(path))


@contextlib.contextmanager
def partial_folder(folder):
    """A temporary folder in `folder`, deleted at the end of the block unless it was renamed.

    Raises:
        InputError: it cannot be created.
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
    """A temporary folder to fill, renamed to `path` at the end of the block; `path` must not exist, or be empty.

    Raises:
        InputError: it cannot be created, or another process created `path` in the meantime.
    """
    path = os.path.normpath(path)
    remove_leftovers(os.path.dirname(path) or ".")
    with partial_folder(os.path.dirname(path)) as partial:
        yield partial
        try:
            rename_folder(partial, path)
        except OSError as error:
            if os.path.lexists(path):
                raise InputError(f"folder {path}", "one that was not there at the start", "none") from error
            raise InputError(f"folder {path}: cannot be written ({reason(error)})") from error


def partial_name(folder):
    """A path in a folder, for a file or folder that is not complete yet."""
    name = f".partial-{host()}-{os.getpid()}-{uuid.uuid4().hex}"
    being_written.add(name)
    return os.path.join(folder, name)


def host():
    """A code for the scope of process numbers: the machine since it booted, and the container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not on every system
        parts.append(os.readlink("/proc/self/ns/pid"))
        with open("/proc/sys/kernel/random/boot_id") as file:
            parts.append(file.read())
    return uuid.uuid5(uuid.NAMESPACE_DNS, " ".join(parts)).hex[:12]


def remove_leftovers(folder):
    """Delete the partial files and folders that killed processes of this program left in a folder."""
    try:
        entries = list(os.scandir(folder))
    except OSError:  # it does not exist or cannot be read
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            if is_leftover(entry):
                is_folder = entry.is_dir(follow_symlinks=False)
                shutil.rmtree(entry.path, ignore_errors=True) if is_folder else os.remove(entry.path)


def is_leftover(entry):
    """Whether an os.DirEntry is a partial file or folder of a process that has ended."""
    found = PARTIAL.fullmatch(entry.name)
    if not found or entry.name in being_written:
        return False
    if found.group(1) == host():
        return not is_alive(int(found.group(2)))
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > WEEK


def is_in(folder, path):
    """Whether a path, which may be None, is directly in a folder, and not a symbolic link."""
    parent, name = os.path.split(path or "")
    is_name = name not in ("", os.curdir, os.pardir) and not os.path.islink(path)
    return is_name and os.path.realpath(parent) == os.path.realpath(folder)


def make_writable(setting, folder):
    """Create `folder` if necessary. Raises InputError, naming the setting, if it is not writable."""
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, ValueError) as error:
        raise InputError(f"setting {setting}", folder, f"a folder that can be written to ({reason(error)})") from error
