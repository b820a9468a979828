"""What is odd about a data set: broken and doubled images, odd sizes and colours, classes of uneven size."""

import hashlib
import os
from collections import Counter, defaultdict, namedtuple

import cv2
import numpy as np

from src.errors import InputError, escape_control_characters
from utils.decode import read_image
from utils.images import scaled
from utils.loader import map_images
from utils.plots import draw_grid, escape_label

SHOWN = 10  # lines of each kind; the rest is counted
SAMPLES = 8  # images of each class in the picture
SAMPLED_CLASSES = 30
THUMBNAIL = 240  # pixels along the longer side, in the picture
UNEVEN = 3  # times as many images in the largest class as in the smallest: worth a warning
LONG = 3  # times as long as wide

# Of an image file: what is wrong with it, or None; a checksum of its pixels; height and width; its depth and colour.
Finding = namedtuple("Finding", "problem pixels shape kind")


def inspect(path):
    """The Finding of an image file."""
    try:
        pixels = read_image(path)
    except InputError as error:
        return Finding(str(error), None, None, None)
    with open(path, "rb") as file:
        raw = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if raw is None:
        return Finding(f"image {path}: found a file that OpenCV reads only in part", None, None, None)
    channels = {2: "grey", 3: {1: "grey", 2: "grey", 4: "with transparency"}.get(raw.shape[-1], "colour")}[raw.ndim]
    checksum = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
    return Finding(None, checksum, pixels.shape[:2], f"{8 * raw.dtype.itemsize} bit, {channels}")


def check_data(sets, classes, img_size, picture):
    """Look at every image, and write a picture with some of each class.

    Args:
        sets: {name: (paths, labels)}, such as {"train": ...}.
        picture: where to write it.

    Returns:
        (lines to print, how many of them tell of something that is wrong).
    """
    findings = {name: map_images(inspect, paths, name) for name, (paths, _) in sets.items()}
    lines, problems = [], 0
    for name, (paths, labels) in sets.items():
        lines.append(f"{name}: {len(paths)} images of {len(classes)} classes")
        lines += class_lines(labels, classes)
        lines += odd_lines(paths, findings[name], img_size)
        broken = [finding.problem for finding in findings[name] if finding.problem]
        lines += shortened(broken)
        problems += len(broken)
    doubled = doubled_lines(sets, findings, classes)
    lines += doubled or ["no image is there twice"]
    shown = draw_samples(picture, sets, findings, classes)
    lines.append(f"some images of {shown}: {picture}")
    return [escape_control_characters(line) for line in lines], problems + len(doubled)


def class_lines(labels, classes):
    counts = np.bincount(labels, minlength=len(classes))
    few, many = counts.argmin(), counts.argmax()
    if counts[few] == counts[many]:
        return [f"  {counts[few]} images in each class"]
    text = f"  {counts[few]} ({classes[few]}) to {counts[many]} ({classes[many]}) images in a class"
    uneven = counts[many] > UNEVEN * counts[few]
    return [text + ("; uneven: --class_weights balanced may help" if uneven else "")]


def odd_lines(paths, findings, img_size):
    """Sizes, depths and colours, the most common first, and images of odd shape."""
    sound = [(path, finding) for path, finding in zip(paths, findings) if not finding.problem]
    lines = []
    for what, values in (
        ("sizes", Counter("x".join(map(str, finding.shape[::-1])) for _, finding in sound)),
        ("kinds", Counter(finding.kind for _, finding in sound)),
    ):
        common = values.most_common(3)
        rest = f" and {len(values) - 3} others" if len(values) > 3 else ""
        lines.append(f"  {what}: " + ", ".join(f"{value} ({count})" for value, count in common) + rest)
    small = [path for path, finding in sound if max(finding.shape) * 4 < img_size]
    long = [path for path, finding in sound if max(finding.shape) > LONG * min(finding.shape)]
    lines += shortened([f"{path}: is less than a quarter of img_size" for path in small])
    return lines + shortened([f"{path}: is more than {LONG} times as long as wide" for path in long])


def doubled_lines(sets, findings, classes):
    """A line for each group of files with the same pixels."""
    groups = defaultdict(list)
    for name, (paths, labels) in sets.items():
        for path, label, finding in zip(paths, labels, findings[name]):
            if finding.pixels:
                groups[finding.pixels].append((name, path, label))
    lines = []
    for group in groups.values():
        if len(group) > 1:
            across = " in different sets" if len({name for name, _, _ in group}) > 1 else ""
            across += " in different classes" if len({label for _, _, label in group}) > 1 else ""
            lines.append(f"the same image{across}: " + ", ".join(path for _, path, _ in group))
    return shortened(sorted(lines, key=lambda line: " in different" not in line), "")


def shortened(lines, indent="  "):
    """The first lines, and how many there are beside."""
    rest = [f"{indent}and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [f"{indent}{line}" for line in lines[:SHOWN]] + rest


def thumbnail(path):
    """A small copy of an image, red, green, blue: photos at full size would fill the memory."""
    image = read_image(path)
    scale = min(1, THUMBNAIL / max(image.shape[:2]))
    height, width = (max(1, round(scale * side)) for side in image.shape[:2])
    return cv2.cvtColor(scaled(image, width, height), cv2.COLOR_BGR2RGB)


def draw_samples(picture, sets, findings, classes):
    """A row for each class, of the first SAMPLED_CLASSES; returns, in words, of which."""
    shown = "each class" if len(classes) <= SAMPLED_CLASSES else f"the first {SAMPLED_CLASSES} classes"
    name = next(iter(sets))
    paths, labels = sets[name]
    images, titles = [], []
    for label in range(min(len(classes), SAMPLED_CLASSES)):
        sound = [
            path for path, of, finding in zip(paths, labels, findings[name]) if of == label and not finding.problem
        ]
        chosen = sound[:: max(1, len(sound) // SAMPLES)][:SAMPLES]
        images += [thumbnail(path) for path in chosen]
        images += [np.full((1, 1, 3), 255, np.uint8)] * (SAMPLES - len(chosen))
        titles += [escape_label(os.path.basename(path), 16) for path in chosen[1:]]
        titles.insert(len(images) - SAMPLES, escape_label(f"{classes[label]}:", 16))
        titles += [""] * (len(images) - len(titles))
    draw_grid(picture, images, titles, f"some images of {shown} in {name}", columns=SAMPLES)
    return shown
