"""What is printed, and where it goes.

C libraries write to file descriptor 2, and so does sys.stderr at first. In a command, standard_streams() gives
sys.stderr a descriptor of its own. Only then does suppress_stderr hide what is written to descriptor 2: our own errors
would be hidden as well.
"""

import contextlib
import io
import locale
import os
import signal
import subprocess
import sys
import tempfile
import threading

UTF8_LOCALES = ("C.UTF-8", "C.utf8", "UTF-8", "en_US.UTF-8")  # one of them is on every system


def say(text):
    """Print a line of a training, which goes on when nobody reads its output any more."""
    try:
        print(text, flush=True)
    except OSError:
        drop_output()


def drop_output():
    """Let what is printed from now on go nowhere."""
    with contextlib.suppress(OSError, ValueError):  # a notebook's output is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def print_error(error):
    """Print an error, or a text that tells of one, as one line."""
    say_error(f"error: {escape_control_characters(str(error))}")


def print_note(text):
    """Print, as one line, what is no error but worth knowing."""
    say_error(f"note: {escape_control_characters(text)}")


def say_error(text):
    """Print a line on standard error; where that cannot be written, the exit code is there all the same."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def escape_control_characters(text):
    """The text with a newline, for one, as \\n: names of files can hold what breaks lines or upsets the terminal."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


@contextlib.contextmanager
def redirected_stderr(target):
    """Within it, what is written to file descriptor 2 goes to another one, `target`."""
    before = os.dup(2)
    os.dup2(target, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


@contextlib.contextmanager
def quiet():
    """Hide all that is written to file descriptor 2, such as by TensorFlow 2.x while it is imported, before it looks at
    its log level. Outside of a command, our own errors are hidden as well."""
    with open(os.devnull, "wb") as nowhere, redirected_stderr(nowhere.fileno()):
        yield


class SuppressStderr:
    """Hides what C libraries write of corrupt images, as long as a thread is within it; nothing where our own errors go
    the same way."""

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
    """Whether sys.stderr writes elsewhere than to file descriptor 2, as within standard_streams()."""
    try:
        return sys.stderr.fileno() != 2
    except (AttributeError, OSError, ValueError):  # a notebook's
        return False


@contextlib.contextmanager
def capture_stderr():
    """Within it, what any thread writes to file descriptor 2 is Captured."""
    with tempfile.TemporaryFile() as file, redirected_stderr(file.fileno()):
        yield Captured(file.fileno())


class Captured:
    """What was written so far."""

    def __init__(self, number):
        self._number = number

    def length(self):
        """Its bytes."""
        return os.fstat(self._number).st_size

    def text_since(self, length):
        """What was written since length() was that."""
        return os.pread(self._number, 2**16, length).decode("utf-8", "replace")


@contextlib.contextmanager
def standard_streams():
    """Output and errors that take every character; errors through a descriptor of their own.

    A stream that is closed becomes an open file, or its number would be given to the next file that is opened.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
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
    """The stream; if it is that of the process itself, a copy that writes what it cannot encode as \\x and digits."""
    if stream is not None and type(stream) is not io.TextIOWrapper:
        return stream  # of a notebook or a test
    encoding, by_line = (stream.encoding, stream.line_buffering) if stream else ("utf-8", True)
    copy = os.fdopen(os.dup(number), "wb")
    return io.TextIOWrapper(copy, encoding, "backslashreplace", line_buffering=by_line or number == 2)


def restart_in_utf8():
    """Start the program again, in a locale with UTF-8, if Python takes the names of files for something else.

    That is what 3.6 does in the C locale, and all of them in one with Latin-1: a class would get another name.
    """
    if sys.getfilesystemencoding() in ("utf-8", "mbcs") or "tensorflow" in sys.modules:
        return  # in somebody else's process, TensorFlow may be there already
    main = sys.modules["__main__"].__spec__
    words = ["-m", main.name] if main else sys.argv[:1]
    for name in UTF8_LOCALES:
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, name)
            if locale.nl_langinfo(locale.CODESET) == "UTF-8":
                os.environ["LC_ALL"] = name
                flags = subprocess._args_from_interpreter_flags()  # as multiprocessing takes them
                os.execv(sys.executable, [sys.executable, *flags, *words, *sys.argv[1:]])


def exit_quietly_on_sigpipe():
    """Let the process end quietly when nobody reads its output any more, as behind `| head`."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
