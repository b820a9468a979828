"""Which images a folder holds: one walk over folders for training, checking, evaluation, prediction and conversion.

Links to files and folders are followed, and a file that is reached by two paths counts twice. Images are told by the
endings of their names. Hidden files and folders do not count; what else is there is skipped, and counted in a note.
"""

import glob
import os
import shlex
import unicodedata
from collections import Counter, namedtuple

import numpy as np

from src.console import print_note
from src.errors import InputError, did_you_mean, reason
from src.folders import entries

EXTENSIONS = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".tif", ".tiff")
OUTSIDE = "image outside the class folders"
PLURALS = {
    "folder": "folders",
    "corrupt image": "corrupt images",
    "looping link": "looping links",
    "device or pipe": "devices or pipes",
    OUTSIDE: "images outside the class folders",
}
SHOWN = 5  # classes in a note; the rest is counted

# What a folder holds: paths of images, paths of folders, and kinds of what else is there, {kind: count}.
Listing = namedtuple("Listing", "images folders others")

# The images of some classes: n paths; labels int [n], indices into the classes; what else is there, {kind: count}; and
# notes, a line each, on classes that are not judged.
ClassImages = namedtuple("ClassImages", "paths labels skipped notes")


def list_folder(folder):
    """The Listing of what is directly in a folder, sorted by name. Raises InputError if it cannot be read."""
    images, folders, others = [], [], Counter()
    for entry in entries(folder):
        if os.path.isdir(entry.path):
            folders.append(entry.path)
        elif not entry.name.lower().endswith(EXTENSIONS):
            others[os.path.splitext(entry.name)[1].lower() or "without extension"] += 1
        elif entry.is_symlink() or entry.is_file():  # a link to nowhere is told when it is read
            images.append(entry.path)
        else:
            others["device or pipe"] += 1
    return Listing(images, folders, others)


def list_images(path):
    """Image files and what was skipped: ([path], {}) for a file; all below a folder, sorted, and {kind: count}.

    Raises:
        InputError: a folder without images, or one that cannot be read.
    """
    if not os.path.isdir(path):
        return [path], Counter()
    images, skipped, waiting = [], Counter(), [(path, ())]
    while waiting:
        folder, above = waiting.pop()
        this = identity(folder)
        if this in above:
            skipped["looping link"] += 1
            continue
        found = list_folder(folder)
        images += found.images
        skipped += found.others
        waiting += [(below, (*above, this)) for below in found.folders]
    if not images:
        raise InputError(f"folder {path}: found no images, expected files ending in {' '.join(EXTENSIONS)}")
    return sorted(images, key=os.path.split), skipped


def images_at(paths):
    """The image files at paths of files and folders, as list_images gives them; a note says what was skipped."""
    images = []
    for path in paths:
        found, skipped = list_images(path)
        images += found
        for line in skipped_lines(path, skipped):
            print_note(line)
    return images


def skipped_lines(path, skipped):
    """What else was found in a folder, {kind: count}, in a line, if there was anything."""
    kinds = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    kinds = [f"{count} {PLURALS.get(kind, kind) if count > 1 else kind}" for kind, count in kinds if count]
    return [f"skipped in {path}: {', '.join(kinds)}"] if kinds else []


def find_images(setting, path, classes):
    """The ClassImages of a data set, by class and file name.

    Under train_path there must be images of each class. In other sets a class may lack them, and there may be other
    classes: notes tell of both.

    Args:
        setting: "train_path", "valid_path" or "test_path".
        path: its value: a folder of class folders.
        classes: names of class folders.

    Raises:
        InputError: no such folder, fewer than two classes, two names of one folder, a class without images.
    """
    check_layout(setting, path, classes)
    top = list_folder(path)
    there = [os.path.basename(folder) for folder in top.folders]
    folders = [class_folder(path, name, there) for name in classes]
    check_different(setting, path, dict(zip(classes, folders)))
    paths, labels, problems = [], [], {}
    skipped = top.others + Counter({OUTSIDE: len(top.images)})
    for label, (name, folder) in enumerate(zip(classes, folders)):
        if not os.path.isdir(folder):
            hint = did_you_mean(name, there)
            problems[name] = f"found no folder {folder}, expected one with images of that class{hint and '; ' + hint}"
            continue
        found = list_folder(folder)
        if not found.images:
            problems[name] = f"found no images in class folder {folder}, {expected_images(found.folders)}"
        paths += found.images
        labels += [label] * len(found.images)
        skipped += found.others
        skipped["folder"] += len(found.folders)
    notes = check_complete(setting, path, problems, len(classes)) + unknown_classes(setting, path, folders, there)
    return ClassImages(paths, np.array(labels), skipped, notes)


def check_layout(setting, path, classes):
    """Raise InputError unless `path` is a folder of class folders, and there are two classes."""
    if not os.path.isdir(path):
        raise InputError(f"setting {setting}: found no folder {path}, {expected_folder(setting)}")
    if os.path.isdir(os.path.join(path, "train")) and not list_folder(os.path.join(path, "train")).images:
        parts = [os.path.join(path, part) for part in (setting.split("_")[0], "train")]
        below = next(filter(os.path.isdir, parts))
        raise InputError(f"setting {setting}: found {path}, expected one with class folders; did you mean {below}?")
    if len(classes) < 2:
        found = f"one class, {classes[0]}," if classes else "no class folder"
        expected = "expected a folder of images for each of two or more classes"
        raise InputError(f"setting {setting}: found {found} in {path}, {expected}")


def class_folder(path, name, there):
    """The path of a class folder; one of those that are there, if the name is but in another form of Unicode.

    A Mac writes é as e and an accent, two characters; most keyboards give one.
    """
    folder, normal = os.path.join(path, name), unicodedata.normalize("NFC", name)
    same = [other for other in there if unicodedata.normalize("NFC", other) == normal]
    return folder if os.path.isdir(folder) or not same else os.path.join(path, same[0])


def check_different(setting, path, folders):
    """Raise InputError if two classes, of {name: folder}, have the same folder: by links, or as a Mac's disk takes CAT
    for cat."""
    names = {}
    for name, folder in folders.items():
        if os.path.isdir(folder):
            other = names.setdefault(identity(folder), name)
            if other != name:
                found = f"found {other} and {name}, two names of one folder, in {path}"
                raise InputError(f"setting {setting}: {found}, expected a folder of its own for each class")


def identity(folder):
    """What tells whether two paths lead to one folder: its device and inode."""
    try:
        status = os.stat(folder)
    except OSError as error:
        raise InputError(f"folder {folder}: cannot be read ({reason(error)})") from error
    return status.st_dev, status.st_ino


def expected_images(folders):
    """The end of an error on a class folder that holds no images, but those folders."""
    for below in folders:
        if list_folder(below).images:
            return f"but in {below}; expected them directly in the class folder"
    return f"expected files ending in {' '.join(EXTENSIONS)}; delete the folder, or name the others by --classes"


def check_complete(setting, path, problems, count):
    """A note on classes without images, {name: problem}, if there are some.

    Raises:
        InputError: images are needed of each class, or all `count` classes have none.
    """
    if not problems:
        return []
    problem = next(iter(problems.values()))
    if setting == "train_path" or len(problems) == count:
        raise InputError(f"setting {setting}: {problem}")
    found = f"found no images of {listed(problems)} in {path}, so not judged"
    return [f"setting {setting}: {found} ({problem})"]


def unknown_classes(setting, path, folders, there):
    """A note on images in folders of other classes than those, if there are some. Training may leave out classes."""
    if setting == "train_path":
        return []
    known = {identity(folder) for folder in folders if os.path.isdir(folder)}
    others = [name for name in there if identity(os.path.join(path, name)) not in known]
    counts = {name: len(list_folder(os.path.join(path, name)).images) for name in others}
    counts = {name: count for name, count in counts.items() if count}
    if not counts:
        return []
    found = f"found {sum(counts.values())} images in {path} of classes that are not learned, so not judged"
    return [f"setting {setting}: {found}: {listed(f'{name} ({count})' for name, count in counts.items())}"]


def listed(names):
    """Some names, and how many there are beside."""
    names = list(names)
    rest = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join(names[:SHOWN] + rest)


def expected_folder(setting):
    """What is to be done where there is no data: the end of an error."""
    part = setting.split("_")[0]
    there = sorted(glob.glob(os.path.join("data", "*", part)))
    if not there:
        return "expected one with a folder of images per class, such as python run.py prepare makes"
    options = f"--{setting} {shlex.quote(there[0])}"
    if part == "train":
        options += f" --test_path {shlex.quote(os.path.join(os.path.dirname(there[0]), 'test'))}"
    return f"expected one with a folder of images per class; there is {' and '.join(there)}: {options}"
