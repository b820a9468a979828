"""What is said to the user when something that they gave is wrong."""

import contextlib
import difflib
import os
import sys
import traceback


class InputError(Exception):
    """A setting, a file or a folder that cannot be used.

    The message is one line that names it, says what was found and what was expected.
    run.py prints that line and ends with exit code 2.
    """


class OutOfMemoryError(InputError):
    """What is to be done takes more memory than there is: the file that was read may be in order."""


def did_you_mean(name, names, prefix=""):
    """The end of such a line: the one of `names` that is most like `name`, if one is like it at all."""
    nearest = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {prefix}{nearest[0]}?" if nearest else ""


def first_line(error):
    """The first line of an error's message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Today's TensorFlow tells at length where in the graph it was; the last of that is a line with the node's name.
    nodes = [number for number, line in enumerate(lines) if line.startswith("Node: ")]
    lines = lines[nodes[-1] + 1 :] if nodes else lines
    if len(lines) > 1 and lines[0].startswith("From /job:"):  # says which worker of a cluster it was
        lines = lines[1:]
    return lines[0] if lines else type(error).__name__


def reason(error):
    """What was wrong, in some words: not every OSError has those of the operating system."""
    return getattr(error, "strerror", None) or first_line(error)


def is_out_of_memory(error):
    """Whether an error, of whatever library, says that there is no memory left, or no room for another thread."""
    kinds = [kind.__name__ for kind in type(error).__mro__]  # none of the libraries is imported here
    text = str(error).lower()
    return (
        "MemoryError" in kinds
        or "error" in kinds
        and "insufficient memory" in text  # OpenCV's
        or "RuntimeError" in kinds
        and "can't start new thread" in text
        or "OpError" in kinds
        and any(word in text for word in ("oom when", "memory", "alloc"))  # TensorFlow's
    )


@contextlib.contextmanager
def naming_memory(what, advice="expected less, or more memory"):
    """Within it, running out of memory is OutOfMemoryError, in a line that names what it was for."""
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"{what}: memory ran out ({first_line(error)}), {advice}") from error


def in_config(error):
    """An error that src/config.py raised, as a line that says where in it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith("config.py")]
    number = getattr(error, "lineno", None) or (frames[-1].lineno if frames else None)
    where = f", line {number}" if number else ""
    return f"src/config.py{where}: {getattr(error, 'msg', None) or first_line(error)}"


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
    with contextlib.suppress(OSError):  # the exit code is there all the same
        print(f"error: {escape_control_characters(str(error))}", file=sys.stderr, flush=True)


def print_note(text):
    with contextlib.suppress(OSError):
        print(f"note: {escape_control_characters(text)}", file=sys.stderr, flush=True)


def escape_control_characters(text):
    """The text with a newline, for one, as \\n: names of files can hold what breaks lines or upsets the terminal."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
