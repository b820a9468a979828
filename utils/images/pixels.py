"""Images in memory: NumPy arrays and Pillow images. (Pillow and OpenCV may decode a JPEG with other levels.)"""

import os

import numpy as np

from src import folders
from src.errors import InputError, first_line, is_out_of_memory, naming_memory
from utils.images.decode import on_background

EXPECTED = "uint8 levels of shape [height, width], [height, width, 3] or [height, width, 4]"


def is_path(image):
    return isinstance(image, (str, bytes, os.PathLike))


def is_folder(image):
    """Whether it is the path of a folder."""
    try:
        return is_path(image) and folders.is_folder(os.fsdecode(image))
    except ValueError:  # of Python 3.6, for what can be no path
        return False


def is_pillow(image):
    return hasattr(image, "convert") and hasattr(image, "mode")  # Pillow itself need not be installed


def is_single(images):
    """Whether it is one image, or no image at all, but not a list of images or an array [n, height, width, 3]."""
    is_list = hasattr(images, "__iter__") and not hasattr(images, "read")  # an open file
    return is_path(images) or is_pillow(images) or not is_list or hasattr(images, "ndim") and images.ndim < 4


def pixels_of(image, rgb, name, preprocess):
    """The pixels of an image: uint8 [H, W, 3], channels blue, green, red; grey becomes colour.

    Args:
        image: a path; a Pillow image, which is rotated as its EXIF orientation says; or an array, uint8 [H, W] or
            [H, W, 1, 3 or 4], such as OpenCV's.
        rgb: whether the channels of an array are red, green, blue.
        name: of an image that is no path, in errors.
        preprocess: the Preprocess that they are for, which says what becomes of transparency.

    Raises:
        InputError: the file is not a valid image, or the object is not such an image.
    """
    if is_path(image):
        if not os.fsdecode(image):
            raise InputError(name, "an empty path", "that of an image file")
        return preprocess.read(os.fsdecode(image))
    with naming_memory(name):
        if is_pillow(image):
            return from_array(from_pillow(image, name), True, name, preprocess.transparency)
        return from_array(image, rgb, name, preprocess.transparency)


def from_pillow(image, name):
    """A Pillow image as an array, uint8 [H, W, 4], channels red, green, blue, alpha."""
    if image.mode[0] in "IF":
        raise InputError(name, f"a Pillow image of mode {image.mode}", "8 bits a channel, such as mode RGB")
    try:
        return np.array(upright(image).convert("RGBA"))
    except Exception as error:  # Pillow reads the file only now, and raises all kinds of errors
        if is_out_of_memory(error):
            raise
        raise InputError(name, f"a Pillow image that cannot be read ({first_line(error)})", "a valid one") from error


def upright(image):
    """The image, rotated as its EXIF data says."""
    from PIL import ImageOps  # it is installed where such an image comes from

    try:
        return ImageOps.exif_transpose(image)
    except AttributeError:  # Pillow 8 closes a TIFF's file after its first use, and does not rotate TIFFs in any case
        return image


def from_array(array, rgb, name, transparency):
    """An array as uint8 [H, W, 3], channels blue, green, red."""
    if not hasattr(array, "__array__"):
        raise InputError(name, f"an object of type {type(array).__name__}", "a path, an array or a Pillow image")
    array = np.asarray(array)
    shape = array.shape
    if array.dtype != np.uint8 or 0 in shape or not (len(shape) == 2 or len(shape) == 3 and shape[2] in (1, 3, 4)):
        raise InputError(name, f"an array of {array.dtype} and shape {list(shape)}", EXPECTED)
    array = array.reshape(*shape[:2], -1)
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    array = on_background(array, transparency) if array.shape[2] == 4 else array
    return np.ascontiguousarray(array[:, :, ::-1] if rgb else array)
