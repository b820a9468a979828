"""Variables of the environment that libraries read: nonsense in them ends a process, and nobody says of which."""

import os
import re

from src.errors import InputError

# What TensorFlow and OpenCV take for whole numbers: the smallest and the largest.
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
    """Raise InputError if one of them is no such number; an empty one counts as not set."""
    for name, (least, most) in WHOLE_NUMBERS.items():
        text = os.environ.get(name)
        if text == "":
            del os.environ[name]
        elif text is not None and not (re.fullmatch("[0-9]{1,19}", text) and least <= int(text) <= most):
            raise InputError(f"environment variable {name}", repr(text[:50]), f"a whole number, {least} to {most}")
