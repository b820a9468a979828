"""Finding images in folders, in the same way for training, checking, evaluation, prediction and conversion.

Links are followed, and a file that is reached by two paths counts twice. Images are recognized by their extensions.
Hidden files and folders are ignored; other files are skipped, and counted in a note.
"""

import glob
import os
import unicodedata
from collections import Counter, namedtuple

import numpy as np

from src.archives import FILE, FOLDER, FORMATS
from src.console import print_note
from src.errors import InputError, did_you_mean
from src.folders import entries, identity, is_folder
from src.system import quote

EXTENSIONS = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".tif", ".tiff")
OUTSIDE = "image outside the class folders"
PLURALS = {
    "folder": "folders",
    "corrupt image": "corrupt images",
    "looping link": "looping links",
    "device or pipe": "devices or pipes",
    "link": "links",
    "sparse file": "sparse files",
    "path out of the archive": "paths out of the archive",
    OUTSIDE: "images outside the class folders",
}
SHOWN = 5  # classes listed in a note; the rest are counted

# The contents of a folder: paths of images, paths of folders, and a Counter of the kinds of other files.
Listing = namedtuple("Listing", "images folders others")

# The images of some classes: n paths; labels int [n], indices into the classes; a Counter of the kinds of other files;
# and notes, one line each, on classes that are not evaluated, or whose names may be confused.
ClassImages = namedtuple("ClassImages", "paths labels skipped notes")


def list_folder(folder):
    """The Listing of a folder without its subfolders, sorted by name. Raises InputError if it cannot be read."""
    images, folders, others = [], [], Counter()
    for name, path, kind in entries(folder):
        if kind == FOLDER:
            folders.append(path)
        elif kind != FILE and name.lower().endswith(EXTENSIONS):
            others[kind] += 1
        elif name.lower().endswith(EXTENSIONS):
            images.append(path)
        else:
            others[os.path.splitext(name)[1].lower() or "without extension"] += 1
    return Listing(images, folders, others)


def list_images(path):
    """(sorted paths of all images below a folder, Counter of the kinds of skipped files); for a file ([path], {}).

    Raises:
        InputError: a folder without images, or one that cannot be read.
    """
    if not is_folder(path):
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
        raise InputError(f"folder {path}", "no images", f"files ending in {' '.join(EXTENSIONS)}")
    return sorted(images, key=os.path.split), skipped


def images_at(paths):
    """The image files of list_images for each of these files and folders; prints notes on what was skipped."""
    images = []
    for path in paths:
        found, skipped = list_images(path)
        images += found
        for line in skipped_lines(path, skipped):
            print_note(line)
    return images


def skipped_lines(path, skipped):
    """One line on the skipped files in a folder, {kind: count}; none if there are none."""
    kinds = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    kinds = [f"{count} {PLURALS.get(kind, kind) if count > 1 else kind}" for kind, count in kinds if count]
    return [f"skipped in {path}: {', '.join(kinds)}"] if kinds else []


def find_images(setting, path, classes):
    """The ClassImages of a data set, sorted by class and file name.

    Under train_path each class must have images. In other sets classes without images, and other classes, are noted.

    Args:
        setting: "train_path", "valid_path" or "test_path".
        path: its value, a folder of class folders.
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
        if not is_folder(folder):
            problems[name] = InputError(
                f"setting {setting}", f"no folder {folder}", "one with images of that class", did_you_mean(name, there)
            )
            continue
        found = list_folder(folder)
        if not found.images:
            problems[name] = no_images(setting, folder, found.folders)
        paths += found.images
        labels += [label] * len(found.images)
        skipped += found.others
        skipped["folder"] += len(found.folders)
    notes = check_complete(setting, path, problems, len(classes)) + unknown_classes(setting, path, folders, there)
    notes += differ_in_case(setting, path, classes)
    return ClassImages(paths, np.array(labels), skipped, notes)


def check_layout(setting, path, classes):
    """Raise InputError unless `path` is a folder of class folders, and there are two classes."""
    if os.path.isfile(path) and not is_folder(path):
        raise InputError(f"setting {setting}", f"{path}, a file", f"a folder, {FORMATS}, with class folders")
    if not is_folder(path):
        expected = "one with a folder of images per class"
        raise InputError(f"setting {setting}", f"no folder {path}", expected, suggested_folder(setting))
    if is_folder(os.path.join(path, "train")) and not list_folder(os.path.join(path, "train")).images:
        parts = [os.path.join(path, part) for part in (setting.split("_")[0], "train")]
        below = next(filter(is_folder, parts))
        raise InputError(f"setting {setting}", path, "one with class folders", f"did you mean {below}?")
    if len(classes) < 2:
        found = f"one class, {classes[0]}," if classes else "no class folder"
        expected = "a folder of images for each of two or more classes"
        raise InputError(f"setting {setting}", f"{found} in {path}", expected)


def class_folder(path, name, there):
    """The path of a class folder; an existing one whose name differs only in its Unicode normalization.

    macOS stores é as two characters, e and an accent; most keyboards produce one.
    """
    folder, normal = os.path.join(path, name), unicodedata.normalize("NFC", name)
    same = [other for other in there if unicodedata.normalize("NFC", other) == normal]
    return folder if is_folder(folder) or not same else os.path.join(path, same[0])


def check_different(setting, path, folders):
    """Raise InputError if two classes, {name: folder}, share a folder, by links or on a case-insensitive disk."""
    names = {}
    for name, folder in folders.items():
        if is_folder(folder):
            other = names.setdefault(identity(folder), name)
            if other != name:
                found = f"{other} and {name}, two names of one folder, in {path}"
                raise InputError(f"setting {setting}", found, "a folder of its own for each class")


def differ_in_case(setting, path, classes):
    """A note on classes of train_path that a disk which ignores case would have as one; none if there are none."""
    names = Counter(name.lower() for name in classes)
    same = [name for name in sorted(classes, key=str.lower) if names[name.lower()] > 1]
    if not same or setting != "train_path":
        return []
    why = "which differ only in case: most disks on Windows and macOS take them for one"
    return [f"setting {setting}: found classes {listed(same)} in {path}, {why}"]


def no_images(setting, folder, subfolders):
    """The InputError about a class folder without images."""
    subject, found = f"setting {setting}", f"no images in class folder {folder}"
    for below in subfolders:
        if list_folder(below).images:
            return InputError(subject, f"{found}, but in {below}", "them directly in the class folder")
    hint = "delete the folder, or name the others by --classes"
    return InputError(subject, found, f"files ending in {' '.join(EXTENSIONS)}", hint)


def check_complete(setting, path, problems, count):
    """A note on classes without images, {name: InputError}; none if there are none.

    Raises:
        InputError: a class of train_path, or all `count` classes, have none.
    """
    if not problems:
        return []
    problem = next(iter(problems.values()))
    if setting == "train_path" or len(problems) == count:
        raise problem
    why = "; ".join(filter(None, (problem.found, problem.hint)))
    return [f"setting {setting}: found no images of {listed(problems)} in {path}, so not evaluated ({why})"]


def unknown_classes(setting, path, folders, there):
    """A note on images of other classes; none if there are none, or for train_path, where classes may be left out."""
    if setting == "train_path":
        return []
    known = {identity(folder) for folder in folders if is_folder(folder)}
    others = [name for name in there if identity(os.path.join(path, name)) not in known]
    counts = {name: len(list_folder(os.path.join(path, name)).images) for name in others}
    counts = {name: count for name, count in counts.items() if count}
    if not counts:
        return []
    found = f"found {sum(counts.values())} images in {path} of classes that are not learned, so not evaluated"
    return [f"setting {setting}: {found}: {listed(f'{name} ({count})' for name, count in counts.items())}"]


def listed(names):
    """The first names, and the number of others."""
    names = list(names)
    rest = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join(names[:SHOWN] + rest)


def suggested_folder(setting):
    """A hint: the data sets under data/, or how to make one."""
    part = setting.split("_")[0]
    there = sorted(glob.glob(os.path.join("data", "*", part)))
    if not there:
        return "python run.py prepare makes one"
    options = f"--{setting} {quote(there[0])}"
    if part == "train":
        options += f" --test_path {quote(os.path.join(os.path.dirname(there[0]), 'test'))}"
    return f"there {'is' if len(there) == 1 else 'are'} {', '.join(there)}: {options}"
