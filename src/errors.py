"""User errors and exit codes."""

import contextlib
import difflib
import re
import traceback
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes, explained in docs/commands.md. Kubernetes' TFJob restarts a process on those above 127."""

    OK = 0
    PROBLEMS_FOUND = 1
    BAD_INPUT = 2
    INTERRUPTED = 130  # 128 + SIGINT, as shells report Ctrl-C
    PEER_LOST = 138
    TERMINATED = 143  # SIGTERM


class InputError(Exception):
    """An invalid setting, file or folder. run.py prints it as one line and exits with ExitCode.BAD_INPUT.

    The line is "SUBJECT: found FOUND, expected EXPECTED; HINT", without the parts that are None or empty:

        InputError("setting lr", found=0, expected="a number above 0")
        InputError("unknown argument --epochs", hint="did you mean --num_epoch?")

    Args:
        subject: what is invalid; or the whole message, such as "file a: cannot be read (Permission denied)".
        found, expected: words, or a value.
        hint: what to do about it.
    """

    def __init__(self, subject, found=None, expected=None, hint=""):
        super().__init__(subject, found, expected, hint)  # what unpickling passes to __init__
        self.subject, self.found, self.expected, self.hint = subject, found, expected, hint

    def __str__(self):
        parts = [("found", self.found), ("expected", self.expected)]
        problem = ", ".join(f"{word} {what}" for word, what in parts if what is not None)
        line = f"{self.subject}: {problem}" if problem else self.subject
        return f"{line}; {self.hint}" if self.hint else line


# In an error of TensorFlow, in lower case; the last is about copying to a GPU whose memory is full.
TOO_LITTLE_MEMORY = ("oom when", "memory", "alloc", "dst tensor is not initialized")


class OutOfMemoryError(InputError):
    """Too little memory for an operation; its input may be valid."""


class ChangedError(InputError):
    """An archive of images has changed since it was indexed; the images in it may be valid."""


NO_FAULT_OF_THE_IMAGE = (OutOfMemoryError, ChangedError)


def did_you_mean(name, names, prefix=""):
    """A hint that suggests the one of `names` closest to `name`; "" if none is close."""
    nearest = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {prefix}{nearest[0]}?" if nearest else ""


def first_line(error):
    """The first line of an error's message that says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # TensorFlow 2.x prints the node's traceback first; its last line names the node.
    nodes = [number for number, line in enumerate(lines) if line.startswith("Node: ")]
    lines = lines[nodes[-1] + 1 :] if nodes else lines
    # "2 root error(s) found.", then "(0) Internal: MESSAGE"; "From /job:..." names the worker of a cluster.
    if len(lines) > 1 and re.match(r"From /job:|\d+ root error\(s\) found", lines[0]):
        lines = lines[1:]
    return re.sub(r"^\(0\) [A-Za-z_ ]+: *", "", lines[0]) if lines else type(error).__name__


def reason(error):
    """Why an operation failed: the operating system's words, which not every OSError has, or first_line."""
    return getattr(error, "strerror", None) or first_line(error)


def is_out_of_memory(error):
    """Whether an error of any library means that memory, or room for another thread, ran out."""
    kinds = [kind.__name__ for kind in type(error).__mro__]  # by name, so that no library is imported here
    text = without_stack_traces(str(error)).lower()
    return (
        "MemoryError" in kinds
        or "error" in kinds
        and "insufficient memory" in text  # OpenCV's
        or "RuntimeError" in kinds
        and "can't start new thread" in text
        or "OpError" in kinds
        and any(word in text for word in TOO_LITTLE_MEMORY)
        and "illegal memory access" not in text  # a failure of the GPU
    )


def gpu_memory_hint(error):
    """What to do besides if the memory that ran out may be a GPU's, which other processes use as well; else ""."""
    is_of_gpu = re.search("GPU|CUDA|Dst tensor", without_stack_traces(str(error)))
    return "nvidia-smi shows what else uses the GPU, --device cpu does without it" if is_of_gpu else ""


def without_stack_traces(text):
    """An error's message without what TensorFlow adds on where the node was made: our memory.py may be among it."""
    text = text.split("Original stack trace for")[0]
    return re.sub(r'^ *File ".*|\(defined at [^)]*\)', "", text, flags=re.MULTILINE)


@contextlib.contextmanager
def naming_memory(what):
    """Convert any library's out-of-memory error within the block to an OutOfMemoryError about `what`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or not is_out_of_memory(error):
            raise
        found = f"too little memory ({first_line(error)})"
        raise OutOfMemoryError(what, found, "a smaller one, or more memory", gpu_memory_hint(error)) from error


def in_config(error):
    """The message of an error that src/config.py raised, with its line number."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith("config.py")]
    number = getattr(error, "lineno", None) or (frames[-1].lineno if frames else None)
    where = f", line {number}" if number else ""
    return f"src/config.py{where}: {getattr(error, 'msg', None) or first_line(error)}"
