"""The command prepare: write a data set as class folders of PNG files. It is renamed to its name only when complete."""

import hashlib
import http.client
import os
import tarfile
import urllib.request

import cv2
import numpy as np

from src.console import say
from src.errors import InputError, first_line, reason
from utils.files import atomic_folder, open_file
from utils.progress import progress

DIGITS_PATH = os.path.join("data", "digitspng")
CIFAR10_PATH = os.path.join("data", "cifar10png")
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_PARTS = dict({f"data_batch_{number}.bin": "train" for number in range(1, 6)}, **{"test_batch.bin": "test"})
SIDE = 32
BLOCK = 1 << 20  # bytes read at a time
RECORD_BYTES = 1 + 3 * SIDE * SIDE  # the class, then the red, the green and the blue plane


def prepare_digits(path=DIGITS_PATH):
    """Write scikit-learn's 1,797 handwritten digits, 8x8 pixels; four fifths are for training."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16.0)).astype(np.uint8)  # 0..16 -> 0..255
    train, test = train_test_split(np.arange(len(pixels)), test_size=0.2, stratify=digits.target, random_state=0)
    with atomic_folder(path) as folder:
        for part, chosen in (("train", train), ("test", test)):
            for index in np.sort(chosen):
                write_image(folder, part, str(digits.target[index]), index, pixels[index])


def prepare_cifar10(path=CIFAR10_PATH, archive=None, url=CIFAR10_URL, md5=CIFAR10_MD5):
    """Write the 60,000 images of CIFAR-10 (Krizhevsky 2009) from its binary archive.

    Args:
        archive: a local copy of the archive; None: download it from `url`.
        md5: expected checksum of the archive.

    Raises:
        InputError: the download failed, or the archive differs from the official one.
    """
    with atomic_folder(path) as folder:
        if archive is None:
            archive = os.path.join(folder, "archive.tar.gz")
            download(url, archive)
        check_md5(archive, md5)
        for part, number, label, image in cifar10_images(archive):
            write_image(folder, part, CIFAR10_CLASSES[label], number, image)
        for part in ("train", "test"):
            if not os.path.isdir(os.path.join(folder, part)):
                raise InputError(f"archive {archive}", f"no images for {part}", "CIFAR-10's binary archive")
        if os.path.dirname(archive) == folder:
            os.remove(archive)


def cifar10_images(archive):
    """Yield ("train" or "test", number in that part, label, image: uint8 [32, 32, 3], channels blue, green, red)."""
    numbers = {"train": 0, "test": 0}
    with tarfile.open(archive, "r:gz") as members, progress(60000) as bar:
        for member in members:
            part = CIFAR10_PARTS.get(os.path.basename(member.name))
            if part is None:
                continue
            records = np.frombuffer(members.extractfile(member).read(), np.uint8).reshape(-1, RECORD_BYTES)
            for record in records:
                rgb_planes = record[1:].reshape(3, SIDE, SIDE)
                numbers[part] += 1
                yield part, numbers[part], record[0], rgb_planes[::-1].transpose(1, 2, 0)
                bar.update()


def check_md5(archive, expected):
    """Raise InputError unless the file has this checksum."""
    found = hashlib.md5()
    with open_file("archive", archive) as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            found.update(block)
    if found.hexdigest() != expected:
        hint = "it is another file, corrupt or truncated"
        expected += ", that of CIFAR-10's binary archive"
        raise InputError(f"archive {archive}", f"MD5 {found.hexdigest()}", expected, hint)


def download(url, path):
    """Download a file. Raises InputError if that fails or is incomplete."""
    try:
        with urllib.request.urlopen(url, timeout=60) as response, open(path, "wb") as file:
            size = int(response.headers.get("Content-Length", 0))
            with progress(size, "download", unit="B") as bar:
                for block in iter(lambda: response.read(BLOCK), b""):
                    file.write(block)
                    bar.update(len(block))
            received = file.tell()
    except (OSError, http.client.HTTPException) as error:  # no connection, a full disk
        problem = first_line(getattr(error, "reason", error))
    else:
        if received == size or not size:
            return
        problem = f"it ended after {received} of {size} bytes"
    raise InputError(f"download of {url}: {problem}", hint="--archive FILE takes a local copy instead")


def write_image(folder, part, class_name, number, image):
    """Write a PNG. Raises InputError if that fails, where cv2.imwrite would only return False."""
    path = os.path.join(folder, part, class_name, f"{number:05d}.png")
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(cv2.imencode(".png", image)[1].tobytes())
    except OSError as error:
        raise InputError(f"file {path}: cannot be written ({reason(error)})") from error


PREPARE = {"digits": (prepare_digits, DIGITS_PATH), "cifar10": (prepare_cifar10, CIFAR10_PATH)}


def run(config, overrides, dataset, **options):
    """Make the data set unless it exists, and print its path."""
    make, path = PREPARE[dataset]
    if all(os.path.isdir(os.path.join(path, part)) for part in ("train", "test")):
        say(f"data set: {path} (already there; delete it to recreate it)")
        return
    if os.path.exists(path) and os.listdir(path):
        found = "a folder without train and test in it"
        raise InputError(f"data set {path}", found, "none", "move it away or delete it")
    make(path, **options)
    say(f"data set: {path}")
