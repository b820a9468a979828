"""Reading, resizing, normalizing and augmenting images."""

import contextlib
import os
import sys
import threading

import cv2
import numpy as np

from src.errors import InputError
from utils.files import read_file

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp")
MARGIN = 8  # augmentation shifts an image by up to this part of its size: 4 pixels of 32


def normalization_table(mean, std):
    """What each of the 256 levels of each channel becomes: float32 [1, 256, 3].

    (level / 255 - mean) / std. Looking a pixel up is six times faster than calculating it.
    """
    table = np.repeat(np.arange(256, dtype=np.float32).reshape(1, 256, 1), 3, axis=2)
    table *= np.float32(1.0 / 255.0)
    table -= np.array(mean, np.float32)
    table /= np.array(std, np.float32)
    return table


def read_image(path):
    """The image in a file as OpenCV reads colour: uint8 [H, W, 3], channels blue, green, red.

    Grey and palette images become colour, 16 bit become 8 bit, transparency is dropped.

    Raises:
        InputError: the file is not an image, or is not there.
    """
    image = None
    content = read_file("image", path)
    # OpenCV fills what is missing at the end of a JPEG with grey.
    if content and not (content.startswith(b"\xff\xd8") and b"\xff\xd9" not in content):
        with contextlib.suppress(cv2.error):  # too large, for one
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        problem = "found a file that OpenCV cannot read, or that is cut short"
        raise InputError(f"image {path}: {problem}, expected a PNG, JPEG or BMP image")
    return image


class Muting:
    """Hides what C libraries write of broken images, where our own errors do not go the same way."""

    def __init__(self):
        self._lock = threading.Lock()
        self._users = 0

    def __enter__(self):
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._stderr = os.dup(2) if are_errors_apart() else None
                if self._stderr is not None:
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, 2)
                    os.close(nowhere)

    def __exit__(self, *error):
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._stderr is not None:
                os.dup2(self._stderr, 2)
                os.close(self._stderr)


def are_errors_apart():
    """Whether Python's own errors are written elsewhere than to file number 2, as those of our command lines are."""
    try:
        return sys.stderr.fileno() != 2
    except (AttributeError, OSError, ValueError):  # a notebook's
        return False


muting = Muting()  # one for all threads


def normalize(images, channel_order, table):
    """Order and normalize channels; every image for the network comes through here.

    Args:
        images: uint8 [n, size, size, 3], channels blue, green, red.
        channel_order: "bgr" leaves the channels as they are, "rgb" swaps them first.
        table: what normalization_table made of mean and std; its channel c is for channel c of the results.

    Returns:
        float32 [n, size, size, 3].
    """
    tall = images.reshape(-1, *images.shape[2:])  # one image, for one call of OpenCV is quicker
    if channel_order == "rgb":
        tall = cv2.cvtColor(tall, cv2.COLOR_BGR2RGB)
    return cv2.LUT(tall, table).reshape(images.shape)


def resized(image, size):
    if image.shape[:2] == (size, size):
        return image
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)


def augmented(image, shift, mirror):
    """The image shifted by `shift` pixels (right, down) over its own reflection, and mirrored if `mirror`."""
    size, margin = len(image), int(np.abs(shift).max())
    right, down = shift
    image = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REFLECT_101)
    image = image[margin - down : margin - down + size, margin - right : margin - right + size]
    return image[:, ::-1] if mirror else image


def denormalized(images, config):
    """The inverse of normalize, for people to look at: uint8 [n, size, size, 3], channels red, green, blue."""
    images = images * np.array(config.image_normalize_std) + np.array(config.image_normalize_mean)
    images = np.clip(np.round(images * 255), 0, 255).astype(np.uint8)
    return images if config.channel_order == "rgb" else images[..., ::-1]


def unreadable(error):
    raise InputError(f"folder {error.filename}: cannot be read ({error.strerror})") from error


def list_images(path):
    """Image files: [path] itself, or all below a folder, sorted. Raises InputError if there are none."""
    if not os.path.isdir(path):
        return [path]
    files = [
        os.path.join(folder, name)
        for folder, _, names in sorted(os.walk(path, onerror=unreadable))
        for name in sorted(names)
        if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
    ]
    if not files:
        raise InputError(f"folder {path}: found no images, expected files ending in {' '.join(EXTENSIONS)}")
    return files
