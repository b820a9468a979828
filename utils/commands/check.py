"""The command check: report corrupt, duplicate and unusual images, and uneven classes."""

import functools
import hashlib
import os
import re
import sys
from collections import Counter, defaultdict, namedtuple

import cv2
import numpy as np

from src.console import capture_stderr, escape_control_characters, say, suppress_stderr
from src.errors import NO_FAULT_OF_THE_IMAGE, ExitCode, InputError
from src.folders import is_folder
from utils.images.decode import MIN_REDUCED, decode, find_problem, read_content, read_image
from utils.images.formats import jpeg_frame, kind_of
from utils.images.image_folders import find_images, skipped_lines
from utils.images.loader import map_images
from utils.images.plots import check_output, draw_grid, escape_label
from utils.images.preprocess import resample

SETS = ("train_path", "valid_path", "test_path")
MAX_LINES = 10  # of each kind; the rest are counted
MAX_EXAMPLES = 3  # file names in a line about many files
MAX_DUPLICATES = 4  # file names in a line about one image
SAMPLES = 8  # images of each class in the figure
SAMPLED_CLASSES = 30
THUMBNAIL = 240  # pixels of the longer side, in the figure
UNEVEN = 3  # ratio of the sizes of the largest and the smallest class that is reported
LONG = 3  # aspect ratio that is reported

CHECKSUM_BYTES = 16  # two of a million images have the same by chance with a probability of 1e-27
MIN_RANGE = 64  # of 256 levels: a smaller range, from the darkest value to the brightest, is reported
HIDDEN = 32  # difference, in levels, of a colour and its appearance on white; in 1 % of the pixels

FEW_LEVELS = f"values within {MIN_RANGE} of the 256 levels, as read in 8 bit"
TRANSPARENT = (
    "transparent where the colour is not white (the network sees that colour, while people see the background)"
)
WITH_ALPHA = "with transparency"

REMEDIES = {
    "corrupt": "delete or replace these files; --bad_images skip leaves out those that cannot be read",
    "small": "a smaller --img_size, or larger images: enlarging adds no detail",
    "long": "--resize crop or --resize pad, which keep the proportions, or crop these images to what matters",
    "same class": "delete all but one of each",
    "different sets": "keep each image in one set only, or evaluation measures what was learned by heart",
    "different classes": "keep each image in its true class only, or the network learns contradictions",
    FEW_LEVELS: "scale the values to 0 to 255 before training, for example with cv2.normalize",
    TRANSPARENT: "--transparency white, or black, puts images on that background",
}

# libjpeg's messages about a corrupt JPEG that it decodes anyway, mostly to grey or noise.
CORRUPT = re.compile(r"Corrupt JPEG data: (.*)|(Premature end of JPEG file|Inconsistent progression sequence)")

# Of an image file: the text of its error, or None; a checksum of its pixels; height and width; its depth and colour;
# what is unusual about its pixels, such as FEW_LEVELS; whether libjpeg may have reported it.
Finding = namedtuple("Finding", "problem checksum shape kind unusual is_suspect")


def inspect(path, captured, transparency):
    """The Finding of an image file. Threads share `captured`, so another file may be the reason that it is_suspect."""
    length = captured.length()
    try:
        content = read_content(path)
        pixels = decode(path, content, transparency=transparency)
    except NO_FAULT_OF_THE_IMAGE:
        raise
    except InputError as error:
        return corrupt(error)
    kind, raw = kind_of(content), pixels
    if kind == "JPEG":  # of 8 bits, without transparency: need not be decoded twice
        channels = "grey" if jpeg_frame(content)[0] == 1 else "colour"
    else:
        raw = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if raw is None:
            return corrupt(InputError(f"image {path}", "a file that OpenCV reads only in part"))
        if kind == "BMP" and raw.ndim == 3:
            raw = raw[..., :3]  # some versions of OpenCV add a fourth channel, mostly empty
        channels = {2: "grey", 3: {1: "grey", 2: "grey", 4: WITH_ALPHA}.get(raw.shape[-1], "colour")}[raw.ndim]
    checksum = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()[:CHECKSUM_BYTES]
    description = sys.intern(f"{8 * raw.dtype.itemsize} bit, {channels}")  # once in memory for all images
    found = unusual(pixels, raw, transparency)
    return Finding(None, checksum, pixels.shape[:2], description, found, captured.length() != length)


def corrupt(error):
    return Finding(str(error), None, None, None, (), False)


def unusual(pixels, raw, transparency):
    """Which of FEW_LEVELS and TRANSPARENT apply to an image: its pixels as the network gets them, and as stored."""
    found = []
    if int(pixels.max()) - int(pixels.min()) < MIN_RANGE:
        found.append(FEW_LEVELS)
    if transparency == "drop" and raw.ndim == 3 and raw.shape[2] == 4:
        raw = raw if raw.dtype == np.uint8 else (raw >> 8).astype(np.uint8)
        through = 255 - raw[raw[..., 3] < 255].astype(np.uint16)  # [n, 4]: darkness of the colours, and transparency
        hidden = (through[:, :3] * through[:, 3:] > HIDDEN * 255).any(axis=1)
        if hidden.sum() > 0.01 * raw[..., 0].size:
            found.append(TRANSPARENT)
    return tuple(found)


def inspect_all(paths, name, transparency="drop"):
    """The Finding of each image file; those that libjpeg may have reported are decoded again, one at a time."""
    with suppress_stderr, capture_stderr() as captured:
        findings = map_images(functools.partial(inspect, captured=captured, transparency=transparency), paths, name)
        for number, path in enumerate(paths):
            if findings[number].is_suspect:
                length = captured.length()
                find_problem(path)
                message = CORRUPT.search(captured.text_since(length))
                if message:
                    found = f"a corrupt JPEG ({message.group(1) or message.group(2)})"
                    findings[number] = corrupt(InputError(f"image {path}", found, "one that decodes without errors"))
    return findings


def run(config, overrides, output="samples.png"):
    """Print the report; returns the ExitCode."""
    sets, notes, faults = {}, [], []
    for name in SETS:
        # Folders that only src/config.py names need not exist.
        if name == "train_path" or overrides.get(name) or is_folder(getattr(config, name) or ""):
            try:
                found = find_images(name, getattr(config, name), config.classes)
                sets[name] = found.paths, found.labels
                notes += found.notes + skipped_lines(getattr(config, name), found.skipped)
            except InputError as error:
                if name == "train_path":
                    raise
                faults.append(str(error))
        elif getattr(config, name):
            notes.append(f"setting {name}: found no folder {getattr(config, name)}, so not checked")
    check_output(output, [path for paths, _ in sets.values() for path in paths])
    findings = {name: inspect_all(paths, name, config.transparency) for name, (paths, _) in sets.items()}
    lines, problems = report(sets, findings, config.classes, config.img_size, config.transparency)
    for line in [*lines, *(f"note: {note}" for note in notes), *faults]:
        say(escape_control_characters(line))
    with suppress_stderr:
        shown = draw_samples(output, sets, findings, config.classes, config.transparency)
    say(escape_control_characters(f"some images of {shown}: {output}"))
    return ExitCode.PROBLEMS_FOUND if problems or faults else ExitCode.OK


def report(sets, findings, classes, img_size, transparency="drop"):
    """(lines to print, number of problems) of the images.

    Args:
        sets: {name: (paths, labels)}, such as {"train_path": ...}.
        findings: {name: a Finding for each path}.
    """
    lines, problems = [], 0
    for name, (paths, labels) in sets.items():
        lines.append(f"{name}: {len(paths)} images of {len(classes)} classes")
        lines += class_lines(labels, classes, name == "train_path")
        lines += unusual_lines(paths, findings[name], img_size, transparency)
        faults = [finding.problem for finding in findings[name] if finding.problem]
        lines += with_remedy(faults, "corrupt")
        problems += len(faults)
    duplicates, groups = duplicate_lines(sets, findings)
    lines += duplicates or ["no duplicate images"]
    return lines, problems + groups


def class_lines(labels, classes, is_training):
    counts = np.bincount(labels, minlength=len(classes))
    few, many = counts.argmin(), counts.argmax()
    if counts[few] == counts[many]:
        return [f"  {counts[few]} images in each class"]
    text = f"  {counts[few]} ({classes[few]}) to {counts[many]} ({classes[many]}) images in a class"
    uneven = is_training and counts[many] > UNEVEN * counts[few]
    return [text + ("; uneven: --class_weights balanced may help" if uneven else "")]


def unusual_lines(paths, findings, img_size, transparency):
    """Sizes, depths and colours, the most common first, and images of unusual shape or values."""
    readable = [(path, finding) for path, finding in zip(paths, findings) if not finding.problem]
    lines = []
    for what, values in (
        ("sizes", Counter("x".join(map(str, finding.shape[::-1])) for _, finding in readable)),
        ("kinds", Counter(finding.kind for _, finding in readable)),
    ):
        common = values.most_common(3)
        rest = f" and {len(values) - 3} others" if len(values) > 3 else ""
        lines.append(f"  {what}: " + ", ".join(f"{value} ({count})" for value, count in common) + rest)
    lines[1:1] = size_lines([finding.shape for _, finding in readable])
    small = [path for path, finding in readable if max(finding.shape) * 4 < img_size]
    long = [path for path, finding in readable if max(finding.shape) > LONG * min(finding.shape)]
    lines += with_remedy([f"{path}: is less than a quarter of img_size" for path in small], "small")
    lines += transparency_lines([finding.kind for _, finding in readable], transparency)
    for what in (FEW_LEVELS, TRANSPARENT):
        found = [path for path, finding in readable if what in finding.unusual]
        if found:
            text = f"{what}: {len(found)} image{'s' * (len(found) > 1)}, such as {', '.join(found[:MAX_EXAMPLES])}"
            lines += with_remedy([text], what)
    return lines + with_remedy([f"{path}: is more than {LONG} times as long as wide" for path in long], "long")


def size_lines(shapes):
    """The smallest, the median and the largest of these sizes, (height, width), by their number of pixels."""
    if not shapes:
        return []
    ordered = sorted(shapes, key=lambda shape: (shape[0] * shape[1], shape))
    named = zip(("smallest", "median", "largest"), (ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1]))
    return ["  width x height: " + ", ".join(f"{name} {width}x{height}" for name, (height, width) in named)]


def transparency_lines(kinds, transparency):
    count = sum(kind.endswith(WITH_ALPHA) for kind in kinds)
    if not count:
        return []
    then = f"the network sees them on a {transparency} background"
    if transparency == "drop":
        then = "it is dropped, so the network sees the colours alone; --transparency white puts them on white"
    return [f"  {count} image{'s' * (count > 1)} with transparency: {then}"]


def duplicate_lines(sets, findings):
    """(a line for each group of files with the same pixels, with remedies; the number of groups)."""
    counts = Counter(finding.checksum for found in findings.values() for finding in found)
    groups = defaultdict(list)
    for name, (paths, labels) in sets.items():
        for path, label, finding in zip(paths, labels, findings[name]):
            if finding.checksum and counts[finding.checksum] > 1:
                groups[finding.checksum].append((name, path, label))
    lines = {"different sets": [], "different classes": [], "same class": []}
    for group in groups.values():
        names, paths, labels = zip(*group)
        kinds = [kind for kind, of in (("different sets", names), ("different classes", labels)) if len(set(of)) > 1]
        across = "".join(f" in {kind}" for kind in kinds)
        more = f" and {len(group) - MAX_DUPLICATES} more" if len(group) > MAX_DUPLICATES else ""
        line = f"duplicate images{across}: {', '.join(paths[:MAX_DUPLICATES])}{more}"
        lines[kinds[0] if kinds else "same class"].append(line)
    found = [line for kind, of_kind in lines.items() for line in with_remedy(of_kind, kind, "")]
    return found, sum(map(len, lines.values()))


def with_remedy(lines, problem, indent="  "):
    """The first lines, the number of others, and what to do about them; nothing if there are none."""
    shown = lines[:MAX_LINES]
    if len(lines) > MAX_LINES:
        shown.append(f"and {len(lines) - MAX_LINES} more")
    return [f"{indent}{line}" for line in shown] + ([f"{indent}  remedy: {REMEDIES[problem]}"] if lines else [])


def thumbnail(path, transparency):
    """A small copy of an image, red, green, blue: photos at full size would fill memory."""
    image = read_image(path, THUMBNAIL // MIN_REDUCED, transparency)
    scale = min(1, THUMBNAIL / max(image.shape[:2]))
    height, width = (max(1, round(scale * side)) for side in image.shape[:2])
    return cv2.cvtColor(resample(image, width, height), cv2.COLOR_BGR2RGB)


def draw_samples(output, sets, findings, classes, transparency):
    """Draw a row for each of the first SAMPLED_CLASSES; returns, in words, which they are."""
    shown = "each class" if len(classes) <= SAMPLED_CLASSES else f"the first {SAMPLED_CLASSES} classes"
    name = next(iter(sets))
    paths, labels = sets[name]
    images, titles = [], []
    for label in range(min(len(classes), SAMPLED_CLASSES)):
        of_class = np.flatnonzero(labels == label)
        readable = [paths[index] for index in of_class if not findings[name][index].problem]
        chosen = readable[:: max(1, len(readable) // SAMPLES)][:SAMPLES]
        images += [thumbnail(path, transparency) for path in chosen]
        images += [np.full((1, 1, 3), 255, np.uint8)] * (SAMPLES - len(chosen))
        titles += [escape_label(os.path.basename(path), 16) for path in chosen[1:]]
        titles.insert(len(images) - SAMPLES, escape_label(f"{classes[label]}:", 16))
        titles += [""] * (len(images) - len(titles))
    draw_grid(output, images, titles, f"some images of {shown} in {name}", columns=SAMPLES)
    return shown
