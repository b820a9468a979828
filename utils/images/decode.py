"""Decoding image files, alike with every version of OpenCV, which reads their pixels."""

import contextlib
import os

import cv2
import numpy as np

from src.errors import InputError, OutOfMemoryError, naming_memory
from utils.files import read_file
from utils.images.formats import (
    EXAMINE,
    declare_upright,
    describe_other,
    is_cut_short,
    kind_of,
    orientation_of,
    size_of,
)

EXPECTED = "expected a PNG, JPEG, BMP, WebP or TIFF image"
LONGEST_SIDE = 10**6  # pixels; libpng's limit

UPRIGHT = {  # by orientation: what makes the stored image upright
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.flip(image, -1),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def read_image(path):
    """The image in a file as OpenCV reads colour, upright: uint8 [H, W, 3], channels blue, green, red.

    Grey and palette images become colour, 16 bit become 8 bit, transparency is dropped.

    Raises:
        InputError: the file is not an image, or is not there.
    """
    return decode(path, read_file("image", path))


def problem_of(path):
    """What is wrong with an image file, an InputError; None if nothing is."""
    try:
        read_image(path)
    except OutOfMemoryError:
        raise  # the image may be in order
    except InputError as error:
        return error
    return None


def decode(path, content):
    """As read_image, of the bytes that the file holds.

    What OpenCV makes of a format other than the five, and whether it turns an image upright, depends on its version:
    here it never decides either.
    """
    kind = kind_of(content)
    if kind is None:
        raise InputError(f"image {path}: found {describe_other(content)}, {EXPECTED}")
    exif, problem = EXAMINE[kind](content)
    if problem:
        raise InputError(f"image {path}: found {problem}, {EXPECTED}{' of 8 or 16 bits' * (kind == 'TIFF')}")
    orientation = orientation_of(exif) if exif else 1
    if kind == "TIFF" and orientation != 1:
        content = declare_upright(content)  # OpenCV would turn it whatever it is told, and tiles wrongly
    image = None
    with contextlib.suppress(cv2.error), naming_memory(f"image {path}"):  # too large, for one
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise InputError(f"image {path}: found {describe_unread(kind, content)}")
    return image if orientation == 1 else UPRIGHT[orientation](image)


def describe_unread(kind, content):
    """In words, what is wrong with a file of these formats that OpenCV does not read, and what is expected."""
    width, height = size_of(kind, content)
    limit = os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"]  # that of src/__init__.py, or the user's
    limit = int(limit) if limit.isdigit() else 2**30
    if width * height > limit:
        return f"a {kind} of {width}x{height} pixels, expected at most {limit // 10**6} million"
    if max(width, height) > LONGEST_SIDE:
        return f"a {kind} of {width}x{height} pixels, expected at most {LONGEST_SIDE} a side"
    if is_cut_short(kind, content):
        return f"a {kind} that is cut short, {EXPECTED}"
    return f"a {kind} that is corrupt, or of a kind that OpenCV does not read, {EXPECTED}"
