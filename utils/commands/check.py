"""What is unusual about a data set: unreadable, corrupt and doubled images, sizes, colours, uneven classes."""

import functools
import hashlib
import os
import re
from collections import Counter, defaultdict, namedtuple

import cv2
import numpy as np

from src.console import capture_stderr, escape_control_characters, say, suppress_stderr
from src.errors import ExitCode, InputError
from utils.files import read_file
from utils.images.decode import decode, problem_of, read_image
from utils.images.formats import kind_of
from utils.images.image_folders import find_images, skipped_lines
from utils.images.loader import map_images
from utils.images.plots import check_output, draw_grid, escape_label
from utils.images.preprocess import resample

SETS = ("train_path", "valid_path", "test_path")
SHOWN = 10  # lines of each kind; the rest is counted
EXAMPLES = 3  # names, where one line tells of many files
COPIES = 4  # of the same image that are named
SAMPLES = 8  # images of each class in the picture
SAMPLED_CLASSES = 30
THUMBNAIL = 240  # pixels along the longer side, in the picture
UNEVEN = 3  # times as many images in the largest class as in the smallest: worth a warning
LONG = 3  # times as long as wide

RANGE = 64  # of 256 levels: a smaller one, from the darkest value to the brightest, is worth a line
HIDDEN = 32  # levels by which a colour differs from what is seen of it on white; in 1 % of the pixels

FEW_LEVELS = f"values within {RANGE} of the 256 levels, as read in 8 bit"
TRANSPARENT = "transparent where the colour is not white (the network sees that colour, people what is behind)"

# What libjpeg writes of a JPEG that it decodes all the same, mostly to grey or to noise.
CORRUPT = re.compile(r"Corrupt JPEG data: (.*)|(Premature end of JPEG file|Inconsistent progression sequence)")

# Of an image file: what is wrong with it, or None; a checksum of its pixels; height and width; its depth and colour;
# what is unusual about its pixels, such as FEW_LEVELS; whether a library may have complained of it.
Finding = namedtuple("Finding", "problem pixels shape kind unusual is_suspect")


def inspect(path, captured):
    """The Finding of an image file; threads share what is Captured, so that another file may be why it is_suspect."""
    length = captured.length()
    try:
        content = read_file("image", path)
        pixels = decode(path, content)
    except InputError as error:
        return unreadable(str(error))
    raw = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if raw is None:
        return unreadable(f"image {path}: found a file that OpenCV reads only in part")
    if kind_of(content) == "BMP" and raw.ndim == 3:
        raw = raw[..., :3]  # a fourth channel, which is mostly empty, is there or not as the version of OpenCV will
    channels = {2: "grey", 3: {1: "grey", 2: "grey", 4: "with transparency"}.get(raw.shape[-1], "colour")}[raw.ndim]
    checksum = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
    kind = f"{8 * raw.dtype.itemsize} bit, {channels}"
    return Finding(None, checksum, pixels.shape[:2], kind, unusual(pixels, raw), captured.length() != length)


def unreadable(problem):
    return Finding(problem, None, None, None, frozenset(), False)


def unusual(pixels, raw):
    """Which of FEW_LEVELS and TRANSPARENT fit an image; pixels: as the network gets them, raw: as the file has them."""
    found = set()
    if int(pixels.max()) - int(pixels.min()) < RANGE:
        found.add(FEW_LEVELS)
    if raw.ndim == 3 and raw.shape[2] == 4:
        raw = raw if raw.dtype == np.uint8 else (raw >> 8).astype(np.uint8)
        through = 255 - raw[raw[..., 3] < 255].astype(np.uint16)  # [n, 4]: how far colour and opacity are from full
        hidden = (through[:, :3] * through[:, 3:] > HIDDEN * 255).any(axis=1)
        if hidden.sum() > 0.01 * raw[..., 0].size:
            found.add(TRANSPARENT)
    return found


def inspect_all(paths, name):
    """The Finding of each image file; those that libjpeg may have complained of are decoded once more, alone."""
    with suppress_stderr, capture_stderr() as captured:
        findings = map_images(functools.partial(inspect, captured=captured), paths, name)
        for number, path in enumerate(paths):
            if findings[number].is_suspect:
                length = captured.length()
                problem_of(path)
                complaint = CORRUPT.search(captured.text_since(length))
                if complaint:
                    what = f"found a corrupt JPEG ({complaint.group(1) or complaint.group(2)})"
                    findings[number] = unreadable(f"image {path}: {what}, expected one that decodes without errors")
    return findings


def run(config, given, output="samples.png"):
    """Print what is unusual about the data sets; returns the ExitCode."""
    sets, notes, faults = {}, [], []
    for name in SETS:
        # Those of src/config.py need not be there.
        if name == "train_path" or given.get(name) or os.path.isdir(getattr(config, name) or ""):
            try:
                found = find_images(name, getattr(config, name), config.classes)
                sets[name] = found.paths, found.labels
                notes += found.notes + skipped_lines(getattr(config, name), found.skipped)
            except InputError as error:
                if name == "train_path":
                    raise
                faults.append(str(error))
    lines, problems = check_data(sets, config.classes, config.img_size, output)
    lines += [escape_control_characters(line) for line in [f"note: {note}" for note in notes] + faults]
    say("\n".join(lines))
    return ExitCode.PROBLEMS_FOUND if problems or faults else ExitCode.OK


def check_data(sets, classes, img_size, picture):
    """Look at every image, and write a picture with some of each class.

    Args:
        sets: {name: (paths, labels)}, such as {"train": ...}.
        picture: where to write it.

    Returns:
        (lines to print, how many of them tell of something that is wrong).
    """
    check_output(picture, [path for paths, _ in sets.values() for path in paths])
    findings = {name: inspect_all(paths, name) for name, (paths, _) in sets.items()}
    lines, problems = [], 0
    for name, (paths, labels) in sets.items():
        lines.append(f"{name}: {len(paths)} images of {len(classes)} classes")
        lines += class_lines(labels, classes, name == "train_path")
        lines += odd_lines(paths, findings[name], img_size)
        faults = [finding.problem for finding in findings[name] if finding.problem]
        lines += shortened(faults)
        problems += len(faults)
    doubled = doubled_lines(sets, findings, classes)
    lines += doubled or ["no image is there twice"]
    with suppress_stderr:
        shown = draw_samples(picture, sets, findings, classes)
    lines.append(f"some images of {shown}: {picture}")
    return [escape_control_characters(line) for line in lines], problems + len(doubled)


def class_lines(labels, classes, is_training):
    counts = np.bincount(labels, minlength=len(classes))
    few, many = counts.argmin(), counts.argmax()
    if counts[few] == counts[many]:
        return [f"  {counts[few]} images in each class"]
    text = f"  {counts[few]} ({classes[few]}) to {counts[many]} ({classes[many]}) images in a class"
    uneven = is_training and counts[many] > UNEVEN * counts[few]
    return [text + ("; uneven: --class_weights balanced may help" if uneven else "")]


def odd_lines(paths, findings, img_size):
    """Sizes, depths and colours, the most common first, and images of unusual shape or values."""
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
    for what in (FEW_LEVELS, TRANSPARENT):
        found = [path for path, finding in sound if what in finding.unusual]
        if found:
            lines.append(f"  {what}: {len(found)} image{'s' * (len(found) > 1)}, such as {', '.join(found[:EXAMPLES])}")
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
            more = f" and {len(group) - COPIES} more" if len(group) > COPIES else ""
            lines.append(f"the same image{across}: " + ", ".join(path for _, path, _ in group[:COPIES]) + more)
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
    return cv2.cvtColor(resample(image, width, height), cv2.COLOR_BGR2RGB)


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
