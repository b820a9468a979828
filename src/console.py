"""Console output.

C libraries write to file descriptor 2, and so does sys.stderr by default. In a command, standard_streams() gives
sys.stderr a descriptor of its own. Only then does suppress_stderr hide output to descriptor 2: our own errors would be
hidden as well.
"""

import contextlib
import io
import locale
import os
import subprocess
import sys
import tempfile
import threading
import unicodedata

from src.system import read_at

UTF8_LOCALES = ("C.UTF-8", "C.utf8", "UTF-8", "en_US.UTF-8")  # every system has one of them


def say(text):
    """Print a line; training continues when the reader of its output is gone."""
    try:
        print(text, flush=True)
    except OSError:
        drop_output()


def drop_output():
    """Send all further standard output to /dev/null."""
    with contextlib.suppress(OSError, ValueError):  # a notebook's output is not a file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def print_error(error):
    """Print an error, or the text of one, as one line on standard error."""
    say_error(f"error: {escape_control_characters(str(error))}")


def print_note(text):
    """Print a note as one line on standard error."""
    say_error(f"note: {escape_control_characters(text)}")


def say_error(text):
    """Print a line on standard error; if that fails, the exit code must still be right."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def is_interactive():
    """Whether Python statements are typed in, in a notebook or at a prompt."""
    return hasattr(sys, "ps1")


def escape_control_characters(text):
    """The text with control characters, which file names may contain, as escapes such as \\n."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def display_width(text):
    """The number of columns that a terminal needs: two for a Chinese, Japanese or Korean letter or an emoji, none for
    a combining mark."""
    letters = unicodedata.normalize("NFC", text)
    return sum(
        0 if unicodedata.category(letter) in ("Mn", "Me") else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in letters
    )


def ljust(text, width):
    """As str.ljust, but for a width in columns of a terminal."""
    return text + " " * (width - display_width(text))


def rjust(text, width):
    """As str.rjust, but for a width in columns of a terminal."""
    return " " * (width - display_width(text)) + text


@contextlib.contextmanager
def redirected_stderr(target):
    """Within the block, output to file descriptor 2 goes to the descriptor `target`."""
    before = os.dup(2)
    os.dup2(target, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


@contextlib.contextmanager
def quiet():
    """Hide output to file descriptor 2, such as what TensorFlow 2.x writes during its import, before it reads its log
    level. Outside of a command, our own errors are hidden as well."""
    with open(os.devnull, "wb") as nowhere, redirected_stderr(nowhere.fileno()):
        yield


class SuppressStderr:
    """Hides C libraries' messages about corrupt images while any thread is in the block, except where our own errors
    share the descriptor."""

    def __init__(self):
        self._lock = threading.Lock()
        self._users = 0
        self._hidden = contextlib.ExitStack()

    def __enter__(self):
        with self._lock:
            self._users += 1
            if self._users == 1 and is_stderr_apart():
                self._hidden.enter_context(quiet())

    def __exit__(self, *error):
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._hidden.close()


suppress_stderr = SuppressStderr()  # one for all threads


def is_stderr_apart():
    """Whether sys.stderr has a file descriptor other than 2, as within standard_streams()."""
    try:
        return sys.stderr.fileno() != 2
    except (AttributeError, OSError, ValueError):  # a notebook's
        return False


@contextlib.contextmanager
def capture_stderr():
    """Within the block, all output of any thread to file descriptor 2 goes to a Captured."""
    with tempfile.TemporaryFile() as file, redirected_stderr(file.fileno()):
        yield Captured(file.fileno())


class Captured:
    """The output so far."""

    def __init__(self, number):
        self._number = number

    def length(self):
        """In bytes."""
        return os.fstat(self._number).st_size

    def text_since(self, length):
        """The output since length() had that value."""
        return read_at(self._number, 2**16, length).decode("utf-8", "replace")


@contextlib.contextmanager
def standard_streams():
    """Within the block, sys.stdout and sys.stderr accept every character, and sys.stderr has a descriptor of its own.

    Closed standard streams are opened on /dev/null, or the next file to be opened would get their number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = [tolerant(stream, number) for number, stream in enumerate(before, 1)]
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = before


def tolerant(stream, number):
    """A copy of a stream of the process that escapes what it cannot encode; any other stream as it is."""
    if stream is not None and type(stream) is not io.TextIOWrapper:
        return stream  # a notebook's or a test's
    encoding, by_line = (stream.encoding, stream.line_buffering) if stream else ("utf-8", True)
    copy = os.fdopen(os.dup(number), "wb")
    return io.TextIOWrapper(copy, encoding, "backslashreplace", line_buffering=by_line or number == 2)


def restart_in_utf8():
    """Restart the program in a UTF-8 locale if Python decodes file names as something else.

    Python 3.6 does so in the C locale, all versions in a Latin-1 locale: class names would come out wrong.
    """
    if sys.getfilesystemencoding() in ("utf-8", "mbcs") or "tensorflow" in sys.modules:
        return  # called from another program
    main = sys.modules["__main__"].__spec__
    words = ["-m", main.name] if main else sys.argv[:1]
    for name in UTF8_LOCALES:
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, name)
            if locale.nl_langinfo(locale.CODESET) == "UTF-8":
                os.environ["LC_ALL"] = name
                flags = subprocess._args_from_interpreter_flags()  # as multiprocessing does
                os.execv(sys.executable, [sys.executable, *flags, *words, *sys.argv[1:]])
