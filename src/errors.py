"""User errors and exit codes."""

import contextlib
import difflib
import traceback
from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ends; docs/commands.md explains each. Above 127, Kubernetes' TFJob starts the process again."""

    OK = 0
    PROBLEMS_FOUND = 1
    BAD_INPUT = 2
    INTERRUPTED = 130  # 128 and the number of SIGINT, Ctrl-C, as shells have it
    PEER_LOST = 138
    TERMINATED = 143  # SIGTERM


class InputError(Exception):
    """A setting, a file or a folder that cannot be used. run.py prints it as one line and ends with ExitCode.BAD_INPUT.

    The line is "SUBJECT: found FOUND, expected EXPECTED; HINT", without those that are not given:

        InputError("setting lr", found=0, expected="a number above 0")
        InputError("unknown argument --epochs", hint="did you mean --num_epoch?")

    Args:
        subject: what cannot be used; or the whole line.
        found, expected: in words, or a value.
        hint: what to do.
    """

    def __init__(self, subject, found=None, expected=None, hint=""):
        super().__init__(subject, found, expected, hint)  # which an error that is pickled is made of again
        self.subject, self.found, self.expected, self.hint = subject, found, expected, hint

    def __str__(self):
        parts = [("found", self.found), ("expected", self.expected)]
        problem = ", ".join(f"{word} {what}" for word, what in parts if what is not None)
        line = f"{self.subject}: {problem}" if problem else self.subject
        return f"{line}; {self.hint}" if self.hint else line


class OutOfMemoryError(InputError):
    """What is to be done takes more memory than there is: the file that was read may be in order."""


def did_you_mean(name, names, prefix=""):
    """A hint: the one of `names` that is most like `name`; "" if none is like it at all."""
    nearest = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {prefix}{nearest[0]}?" if nearest else ""


def first_line(error):
    """The first line of an error's message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Today's TensorFlow tells at length where in the graph it was; the last of that is a line with the node's name.
    nodes = [number for number, line in enumerate(lines) if line.startswith("Node: ")]
    lines = lines[nodes[-1] + 1 :] if nodes else lines
    if len(lines) > 1 and lines[0].startswith("From /job:"):  # says which member of a cluster it was
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
