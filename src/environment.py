"""Environment variables that libraries read: an invalid value crashes the process without naming the variable."""

import os
import re

from src.errors import InputError

# Integers that TensorFlow and OpenCV parse: the smallest and the largest value.
WHOLE_NUMBERS = {
    "OPENCV_IO_MAX_IMAGE_PIXELS": (1, 2**40),
    "OPENCV_IO_MAX_IMAGE_WIDTH": (1, 2**40),
    "OPENCV_IO_MAX_IMAGE_HEIGHT": (1, 2**40),
    "OPENCV_FOR_THREADS_NUM": (0, 1024),
    "TF_CPP_MIN_LOG_LEVEL": (0, 9),
    "TF_CPP_MAX_VLOG_LEVEL": (0, 9),
    "TF_CPP_MIN_VLOG_LEVEL": (0, 9),
    "TF_NUM_INTRAOP_THREADS": (0, 1024),
    "TF_NUM_INTEROP_THREADS": (0, 1024),
}


def check_environment():
    """Raise InputError if one of them is not such an integer; an empty one counts as unset."""
    for name, (least, most) in WHOLE_NUMBERS.items():
        text = os.environ.get(name)
        if text == "":
            del os.environ[name]
        elif text is not None and not (re.fullmatch("[0-9]{1,19}", text) and least <= int(text) <= most):
            raise InputError(f"environment variable {name}", repr(text[:50]), f"a whole number, {least} to {most}")
