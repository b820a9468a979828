"""The images that benchmark.py measures with."""

import os

import cv2
import numpy as np

CLASSES = 10


def write_images(path, count, size=32, extension="png"):
    """Class folders of smooth images with some noise; of 32 px they are PNG files of about 2.3 kB, like CIFAR-10's."""
    random = np.random.RandomState(0)
    for number in range(count):
        folder = os.path.join(path, str(number % CLASSES))
        os.makedirs(folder, exist_ok=True)
        image = cv2.resize(random.randint(0, 256, (6, 6, 3)).astype(np.uint8), (size, size)) / 2
        image += random.randint(0, 32, image.shape)
        cv2.imwrite(os.path.join(folder, f"{number:05d}.{extension}"), image.astype(np.uint8))
    return path


def write_photos(path, count, width, height):
    """The same for JPEGs with little noise, as large as those of a camera: one in each class, and links to it."""
    random = np.random.RandomState(0)
    for number in range(count):
        folder = os.path.join(path, str(number % CLASSES))
        if number >= CLASSES:
            os.link(os.path.join(folder, f"{number % CLASSES:05d}.jpg"), os.path.join(folder, f"{number:05d}.jpg"))
            continue
        os.makedirs(folder, exist_ok=True)
        image = cv2.resize(random.randint(0, 256, (60, 80, 3)).astype(np.uint8), (width, height)) // 2
        image += np.repeat(random.randint(0, 12, (height, width, 1)), 3, axis=2).astype(np.uint8)
        cv2.imwrite(os.path.join(folder, f"{number:05d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return path


def write_copies(folder, path, count):
    """A data set of so many links to the files of another one, 1,000 in each class."""
    files = [os.path.join(above, name) for above, _, names in os.walk(folder) for name in names]
    for number in range(count):
        target = os.path.join(path, f"class{number // 1000:04d}")
        if number % 1000 == 0:
            os.makedirs(target)
        os.link(files[number % len(files)], os.path.join(target, f"{number:07d}.png"))
    return path
