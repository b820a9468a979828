"""Decoding image files with OpenCV, with the same result in all of its versions."""

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
    is_truncated,
    kind_of,
    orientation_of,
    size_of,
)

EXPECTED = "a PNG, JPEG, BMP, WebP or TIFF image"
LONGEST_SIDE = 10**6  # pixels; libpng's limit

TO_UPRIGHT = {  # by EXIF orientation
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.flip(image, -1),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def read_image(path):
    """Read an image file as upright colour: uint8 [H, W, 3], channels blue, green, red.

    Grey and palette images become colour, 16 bits become 8, transparency is dropped.

    Raises:
        InputError: the file does not exist or is not a valid image.
    """
    return decode(path, read_file("image", path))


def find_problem(path):
    """The InputError of reading an image file, or None."""
    try:
        read_image(path)
    except OutOfMemoryError:
        raise  # the image may be valid
    except InputError as error:
        return error
    return None


def decode(path, content):
    """As read_image, from the content of the file.

    Which other formats OpenCV reads, and whether it applies the EXIF orientation, depends on its version; so neither is
    left to it.
    """
    kind = kind_of(content)
    if kind is None:
        raise InputError(f"image {path}", describe_other(content), EXPECTED)
    exif, problem = EXAMINE[kind](content)
    if problem:
        expected = EXPECTED + " of 8 or 16 bits" * (kind == "TIFF")
        raise InputError(f"image {path}", problem, "a complete one" if "truncated" in problem else expected)
    orientation = orientation_of(exif) if exif else 1
    if kind == "TIFF" and orientation != 1:
        content = declare_upright(content)  # OpenCV would rotate it despite the flag, and wrongly if it is tiled
    image = None
    with contextlib.suppress(cv2.error), naming_memory(f"image {path}"):  # such as of a size above its limit
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise InputError(f"image {path}", *describe_undecodable(kind, content))
    return image if orientation == 1 else TO_UPRIGHT[orientation](image)


def describe_undecodable(kind, content):
    """(found, expected) for an InputError about a file that OpenCV cannot decode."""
    width, height = size_of(kind, content)
    limit = os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"]  # set in src/__init__.py or by the user
    limit = int(limit) if limit.isdigit() else 2**30
    if width * height > limit:
        return f"a {kind} of {width}x{height} pixels", f"at most {limit // 10**6} million"
    if max(width, height) > LONGEST_SIDE:
        return f"a {kind} of {width}x{height} pixels", f"at most {LONGEST_SIDE} a side"
    if is_truncated(kind, content):
        return f"a truncated {kind}", "a complete one"
    return f"a {kind} that is corrupt, or of a variant that OpenCV cannot decode", EXPECTED
