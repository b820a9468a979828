"""Decoding image files with OpenCV, with the same result in all of its versions."""

import contextlib
import os
import tempfile

import cv2
import numpy as np

from src.archives import locate
from src.errors import NO_FAULT_OF_THE_IMAGE, InputError, naming_memory
from utils.files import read_file
from utils.images.formats import (
    EXAMINE,
    declare_upright,
    describe_other,
    has_multiplied_alpha,
    is_truncated,
    kind_of,
    orientation_of,
    size_of,
)

EXPECTED = "a PNG, JPEG, BMP, WebP or TIFF image"
SMALL = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1]
IMDECODE_REDUCES = len(cv2.imdecode(SMALL, cv2.IMREAD_REDUCED_COLOR_2)) == 4  # not in OpenCV 4.1, whose imread does
LONGEST_SIDE = 10**6  # pixels; libpng's limit
COLOUR = cv2.IMREAD_COLOR
REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
MIN_REDUCED = 4  # a JPEG is decoded to at least this many times the size that it will be resized to

TO_UPRIGHT = {  # by EXIF orientation
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.flip(image, -1),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def read_image(path, img_size=None, transparency="drop"):
    """Read an image file as upright colour: uint8 [H, W, 3], channels blue, green, red.

    Grey and palette images become colour, 16 bits become 8.

    Args:
        img_size: the size that the image will be resized to: a JPEG that is much larger is decoded at a half, a quarter
            or an eighth of its size, see colour_mode; None: at its own size.
        transparency: the setting of that name.

    Raises:
        InputError: the file does not exist or is not a valid image.
    """
    return decode(path, read_content(path), img_size, transparency)


def read_content(path):
    """The bytes of an image file, which may be in an archive. Raises InputError if it cannot be read."""
    found = locate(path)
    return found[0].read(found[1]) if found else read_file("image", path)


def find_problem(path):
    """The InputError of reading an image file, or None."""
    try:
        read_image(path, img_size=1)  # at an eighth of the size, all of a JPEG's data is read as well
    except NO_FAULT_OF_THE_IMAGE:
        raise
    except InputError as error:
        return error
    return None


def decode(path, content, img_size=None, transparency="drop"):
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
        image = None if transparency == "drop" else decode_transparent(kind, content, transparency)
        if image is None:
            image = imdecode(content, colour_mode(kind, content, img_size))
    if image is None:
        raise InputError(f"image {path}", *describe_undecodable(kind, content))
    return image if orientation == 1 else TO_UPRIGHT[orientation](image)


def imdecode(content, mode):
    """OpenCV's image, None if it cannot decode it."""
    if mode in REDUCED.values() and not IMDECODE_REDUCES:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "copy.jpg")
            with open(path, "wb") as file:
                file.write(content)
            return cv2.imread(path, mode | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.imdecode(np.frombuffer(content, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)


def decode_transparent(kind, content, transparency):
    """An image on a white or black background, uint8 [H, W, 3]; None if it has no transparency."""
    raw = imdecode(content, cv2.IMREAD_UNCHANGED) if kind in ("PNG", "WebP", "TIFF") else None
    if raw is None or raw.ndim < 3 or raw.shape[2] < 4:
        return None
    is_deep = raw.dtype == np.uint16
    # By alpha: libtiff does so with 8 bits, with 16 it leaves them as they are stored.
    is_multiplied = kind == "TIFF" and (not is_deep or has_multiplied_alpha(content))
    return on_background((raw >> 8).astype(np.uint8) if is_deep else raw, transparency, is_multiplied)


def on_background(image, transparency, is_multiplied=False):
    """uint8 [H, W, 4], the last channel alpha -> uint8 [H, W, 3], as the setting transparency says."""
    colours, alpha = np.ascontiguousarray(image[:, :, :3]), image[:, :, 3:]
    if transparency == "drop" or alpha.min() == 255:
        return colours
    alpha = alpha.astype(np.float32) / 255
    background = (1 - alpha) * (255 if transparency == "white" else 0)
    return np.round(background + (colours if is_multiplied else colours * alpha)).astype(np.uint8)


def colour_mode(kind, content, img_size):
    """OpenCV's flag to decode a file as colour; a large JPEG at a half, a quarter or an eighth of its size.

    Only where that divides both sides, or libjpeg would round them up, which shifts the image; and only as far as both
    remain MIN_REDUCED times img_size: docs/benchmarks.md shows how little networks notice.
    """
    if kind == "JPEG" and img_size:
        width, height = size_of(kind, content)
        most = min(width, height) // (MIN_REDUCED * img_size)
        if most > 1 and width * height <= pixel_limit():
            return next((REDUCED[by] for by in REDUCED if by <= most and not (width % by or height % by)), COLOUR)
    return COLOUR


def pixel_limit():
    """OpenCV's limit of the pixels of an image, set in src/__init__.py or by the user."""
    limit = os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"]
    return int(limit) if limit.isdigit() else 2**30


def describe_undecodable(kind, content):
    """(found, expected) for an InputError about a file that OpenCV cannot decode."""
    width, height = size_of(kind, content)
    limit = pixel_limit()
    if width * height > limit:
        return f"a {kind} of {width}x{height} pixels", f"at most {limit // 10**6} million"
    if max(width, height) > LONGEST_SIDE:
        return f"a {kind} of {width}x{height} pixels", f"at most {LONGEST_SIDE} a side"
    if is_truncated(kind, content):
        return f"a truncated {kind}", "a complete one"
    return f"a {kind} that is corrupt, or of a variant that OpenCV cannot decode", EXPECTED
