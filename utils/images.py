"""Reading, resizing, normalizing and augmenting images."""

import contextlib
import functools
import os
import sys
import threading

import cv2
import numpy as np

from src.errors import InputError, OutOfMemoryError, naming_memory
from utils.files import read_file

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
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
    # OpenCV fills what is missing at the end of a JPEG with grey. A thumbnail in it has an end of its own.
    if content and not (content.startswith(b"\xff\xd8") and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda")):
        with contextlib.suppress(cv2.error), naming_memory(f"image {path}"):  # too large, for one
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        problem = "found a file that OpenCV cannot read, or that is cut short"
        raise InputError(f"image {path}: {problem}, expected a PNG, JPEG, BMP, WebP or TIFF image")
    return image


def problem_of(path):
    """What is wrong with an image file, an InputError; None if nothing is."""
    try:
        read_image(path)
    except OutOfMemoryError:
        raise  # the image may be in order
    except InputError as error:
        return error
    return None


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


def fitting(config):
    """The function that gives an image its size: uint8 [H, W, 3] -> uint8 [img_size, img_size, 3].

    Training, evaluation, prediction and converters all use it.

    Args:
        config: img_size, resize, and for the borders of "pad" image_normalize_mean and channel_order.
    """
    mean = config.image_normalize_mean if config.channel_order == "bgr" else config.image_normalize_mean[::-1]
    border = [float(np.clip(round(255 * level), 0, 255)) for level in mean]
    return functools.partial(resized, size=config.img_size, resize=config.resize, border=border)


def resized(image, size, resize="stretch", border=(0, 0, 0)):
    """The image in a square of that size.

    Args:
        resize: "stretch": whatever its shape; "crop": the middle of it, after its shorter side got the size; "pad": all
            of it, after its longer side got the size, with borders of the colour `border`, blue, green, red.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    if resize == "stretch":
        return scaled(image, size, size)
    if resize == "crop":
        # Without what is far from the middle, or a thin image would become a huge one.
        image = middle(image, min(height, 4 * width), min(width, 4 * height))
        scale = size / min(height, width)
        height, width = (round(side * scale) for side in image.shape[:2])
        return middle(scaled(image, width, height), size, size)
    scale = size / max(height, width)
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    image = scaled(image, width, height)
    top, left = (size - height) // 2, (size - width) // 2
    bottom, right = size - height - top, size - width - left
    return cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=border)


def middle(image, height, width):
    """The part of that size from the middle of an image."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def scaled(image, width, height):
    """The image in that size, by bilinear interpolation; one that is more than halved, by the means of areas.

    Bilinear interpolation looks at four pixels for each that it makes, so that it would pass over most of a photo.
    """
    factors = image.shape[0] / height, image.shape[1] / width
    is_halved = min(factors) >= 1 and max(factors) > 2
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if is_halved else cv2.INTER_LINEAR)


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
