"""What is said to the user when something that they gave is wrong."""

import difflib
import sys


class InputError(Exception):
    """A setting, a file or a folder that cannot be used.

    The message is one line that names it, says what was found and what was expected.
    run.py prints that line and ends with exit code 2.
    """


def did_you_mean(name, names, prefix=""):
    """The end of such a line: the one of `names` that is most like `name`, if one is like it at all."""
    nearest = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {prefix}{nearest[0]}?" if nearest else ""


def print_error(error):
    print(f"error: {escape_control_characters(str(error))}", file=sys.stderr)


def print_note(text):
    print(f"note: {escape_control_characters(text)}", file=sys.stderr)


def escape_control_characters(text):
    """The text with a newline, for one, as \\n: names of files can hold what breaks lines or upsets the terminal."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
