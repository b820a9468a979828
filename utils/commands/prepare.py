"""Data sets to start with, written as PNG class folders: python run.py prepare digits|cifar10.

A data set appears under its name only when it is whole: it is written under another name and renamed at the end.
"""

import hashlib
import http.client
import os
import tarfile
import urllib.request

import cv2
import numpy as np
from tqdm import tqdm

from src.console import say
from src.errors import InputError, first_line, reason
from utils.files import atomic_folder, open_file

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
    """Write the 1,797 handwritten digits, 8x8 pixels, that come with scikit-learn; four fifths of them to train."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16.0)).astype(np.uint8)  # 0..16 -> 0..255
    train, test = train_test_split(np.arange(len(pixels)), test_size=0.2, stratify=digits.target, random_state=0)
    with atomic_folder(path) as folder:
        for part, chosen in (("train", train), ("test", test)):
            for index in tqdm(np.sort(chosen), desc=part, unit="images", disable=None, leave=False):
                write_image(folder, part, str(digits.target[index]), index, pixels[index])


def prepare_cifar10(path=CIFAR10_PATH, archive=None, url=CIFAR10_URL, md5=CIFAR10_MD5):
    """Write the 60,000 images of CIFAR-10 (Krizhevsky 2009) from its binary archive.

    Args:
        archive: a copy of the archive; downloaded from `url` if None.
        md5: checksum that the archive must have.

    Raises:
        InputError: no connection, or an archive that is not the official one, byte for byte.
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
                raise InputError(f"archive {archive}: found no images for {part}, expected CIFAR-10's binary archive")
        if os.path.dirname(archive) == folder:
            os.remove(archive)


def cifar10_images(archive):
    """Yield (train or test, number in that part, label, uint8 [32, 32, 3] in OpenCV's channel order)."""
    numbers = {"train": 0, "test": 0}
    with tarfile.open(archive, "r:gz") as members, tqdm(total=60000, unit="images", disable=None, leave=False) as bar:
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
    """Raise InputError unless the file has that checksum."""
    found = hashlib.md5()
    with open_file("archive", archive) as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            found.update(block)
    if found.hexdigest() != expected:
        raise InputError(
            f"archive {archive}: found MD5 {found.hexdigest()}, expected {expected}, that of CIFAR-10's binary "
            "archive: it is another file, or broken or cut short"
        )


def download(url, path):
    """Fetch a file. Raises InputError if that cannot be done, or not to the end."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, open(path, "wb") as file:
            size = int(answer.headers.get("Content-Length", 0))
            with tqdm(total=size, desc="download", unit="B", unit_scale=True, disable=None, leave=False) as bar:
                for block in iter(lambda: answer.read(BLOCK), b""):
                    file.write(block)
                    bar.update(len(block))
            received = file.tell()
    except (OSError, http.client.HTTPException) as error:  # no connection, a full disk
        problem = first_line(getattr(error, "reason", error))
    else:
        if received == size or not size:
            return
        problem = f"it broke off after {received} of {size} bytes"
    raise InputError(f"download of {url}: {problem}; a copy you already have can be given with --archive FILE")


def write_image(folder, part, class_name, number, image):
    """Write one PNG. Raises InputError if it cannot be written in full; cv2.imwrite would only return False."""
    path = os.path.join(folder, part, class_name, f"{number:05d}.png")
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(cv2.imencode(".png", image)[1].tobytes())
    except OSError as error:
        raise InputError(f"file {path}: cannot be written ({reason(error)})") from error


PREPARE = {"digits": (prepare_digits, DIGITS_PATH), "cifar10": (prepare_cifar10, CIFAR10_PATH)}


def run(config, given, dataset, **options):
    """Make the data set of that name unless it is there, and print where it is."""
    make, path = PREPARE[dataset]
    if all(os.path.isdir(os.path.join(path, part)) for part in ("train", "test")):
        say(f"data set: {path} (already there; delete it to make it again)")
        return
    if os.path.exists(path) and os.listdir(path):
        raise InputError(
            f"data set {path}: found a folder without train and test in it, expected none; move it away or delete it"
        )
    make(path, **options)
    say(f"data set: {path}")
