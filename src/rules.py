"""Rules for the values of settings: how they are parsed from text, which are valid, and how that is described."""

import ast
import json
import os
import unicodedata
from collections import namedtuple

from src.system import WILDCARDS

# `parse` converts command-line text to a value, `is_valid` checks a value, `expected` describes the valid ones, and
# `choices` has them if they are a few words.
Rule = namedtuple("Rule", "parse is_valid expected choices")
Rule.__new__.__defaults__ = ((),)  # of choices

LARGEST = 2**31 - 1  # integer
HUGE = 1e30  # limit for floats
MOST_CLASSES = 10**5  # ImageNet's largest set has 21,841
LONGEST = 200  # characters of a value in a message
BREAKS = ("Cc", "Zl", "Zp")  # Unicode categories of control characters and line breaks


def _literal(text):
    try:
        return ast.literal_eval(text) if len(text) < 200 else text
    except (TypeError, ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _class_names(text):
    """Comma-separated names, or a JSON list of names, which may contain commas themselves."""
    if not text.startswith("["):
        return None if text == "None" else text.split(",")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < HUGE


def _is_integer(value, at_least, at_most=LARGEST):
    return isinstance(value, int) and not isinstance(value, bool) and at_least <= value <= at_most


def _is_path(value):
    """Whether a file can have that name; lone surrogates, which JSON can hold, are one reason why not."""
    if not isinstance(value, str) or value.strip() == "":
        return False
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def _is_utf8_path(value):
    """Whether it is a path in UTF-8, which file names need not be."""
    return _is_path(value) and value == value.encode("utf-8", "ignore").decode("utf-8")


def _is_class_name(value):
    """Whether it is a folder's name. A line break would start another class in labels.txt; an escape sequence would
    garble the terminal."""
    is_text = _is_utf8_path(value) and not any(unicodedata.category(letter) in BREAKS for letter in value)
    return is_text and "/" not in value and value not in (os.curdir, os.pardir)


def _are_class_names(value):
    return (
        isinstance(value, (list, tuple))
        and 0 < len(value) <= MOST_CLASSES
        and all(map(_is_class_name, value))
        and len(set(value)) == len(value)
    )


def are_networks(value):
    """Whether it has the form of MODEL_ARCHS in src/config.py."""
    return isinstance(value, dict) and all(
        isinstance(name, str)
        and isinstance(row, dict)
        and set(row) == {"min_img_size", "img_size", "weight_decay"}
        and _is_integer(row["min_img_size"], 1)
        for name, row in value.items()
    )


def integer(at_least, at_most=LARGEST):
    limits = f"{at_least} or more" if at_most == LARGEST else f"{at_least} to {at_most}"
    return Rule(_literal, lambda value: _is_integer(value, at_least, at_most), f"a whole number, {limits}")


def number(is_valid, expected):
    return Rule(_literal, lambda value: _is_number(value) and is_valid(value), expected)


def channel_numbers(at_least, at_most, limits):
    def parse(text):
        value = _literal(text)
        return [value] if _is_number(value) else value

    def is_valid(value):
        return isinstance(value, (list, tuple)) and len(value) in (1, 3) and all(map(is_valid_part, value))

    def is_valid_part(part):
        return _is_number(part) and at_least <= part <= at_most

    return Rule(parse, is_valid, f"three numbers {limits}, such as 0.485,0.456,0.406, or one for numchannels 1")


def one_of(*names):
    return Rule(str, lambda value: isinstance(value, str) and value in names, " or ".join(names), names)


def or_none(rule):
    return Rule(
        lambda text: None if text == "None" else rule.parse(text),
        lambda value: value is None or rule.is_valid(value),
        f"{rule.expected}, or None",
    )


BOOLEAN = Rule(
    lambda text: {"true": True, "false": False}.get(text.lower(), text),
    lambda value: isinstance(value, bool),
    "True or False",
    ("True", "False"),
)
POSITIVE = number(lambda value: value > 0, "a number above 0")
NOT_NEGATIVE = number(lambda value: value >= 0, "a number, 0 or more")
MEAN = channel_numbers(-1e6, 1e6, "from -1000000 to 1000000")
STD = channel_numbers(1e-6, 1e6, "from 0.000001 to 1000000")
CHANNELS = Rule(_literal, lambda value: _is_integer(value, 1, 3) and value != 2, "3 or 1")
CLASS_NAMES = Rule(
    _class_names,
    _are_class_names,
    'a list of different names of folders, such as ["cat", "dog"], in UTF-8, without / or line breaks',
)
FOLDER = Rule(str, _is_path, "the path of a folder")
OUTPUT_FOLDER = Rule(str, _is_utf8_path, "the path of a folder, in UTF-8")
CHECKPOINT_FOLDER = Rule(
    str,
    lambda value: _is_utf8_path(value) and not set(value) & set(WILDCARDS),
    f"the path of a folder, with no {' '.join(WILDCARDS[:-1])} or {WILDCARDS[-1]} in it (wildcards to TensorFlow)",
)
CHECKPOINT = FOLDER._replace(
    expected="a checkpoint, a folder of checkpoints, or a file from Keras with a MobileNetV2 (.h5, .keras)"
)


def shortened(value):
    """The repr of a value, on one line, truncated if it is long."""
    if isinstance(value, int) and abs(value) >= HUGE:  # may have more digits than Python converts
        return "a huge number"
    try:
        text = " ".join(repr(value).split())
    except ValueError:
        return "huge numbers"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def expected_of(rule, value):
    """What a rule expects, in words; with the upper limit, left out elsewhere, if `value` exceeds it."""
    if isinstance(value, (int, float)) and value > LARGEST:
        if rule.expected.startswith("a whole number"):
            return rule.expected.replace(" or more", f" to {LARGEST}")
        if value >= HUGE and rule.expected in (POSITIVE.expected, NOT_NEGATIVE.expected):
            return f"{rule.expected}, below {HUGE:g}"
    if isinstance(value, (list, tuple)) and len(value) > MOST_CLASSES:
        return f"{rule.expected}, at most {MOST_CLASSES}"
    return rule.expected
