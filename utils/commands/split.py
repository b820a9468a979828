"""The command split: divide a folder of class folders into one for training and one for testing."""

import hashlib
import os
import random
from collections import Counter, defaultdict

from src.console import escape_control_characters, print_note, say
from src.errors import InputError, reason
from src.folders import class_folders
from src.system import quote
from utils.files import atomic_folder
from utils.images.decode import read_content
from utils.images.image_folders import find_images, skipped_lines
from utils.progress import progress


def run(config, overrides, folder, output=None, test_size=0.2):
    """Write `output`, with the folders train and test, and print what is in them.

    Args:
        config: of which seed is used.
        folder: a folder of class folders, or an archive. Images are linked if that is possible, else copied.
        output: must not exist; None: a folder of that name in data.
        test_size: fraction of the images of each class for testing.

    Raises:
        InputError: no such folder, a class without two different images, an output that exists or cannot be written.
    """
    name = os.path.basename(os.path.abspath(folder))
    name = os.path.splitext(name)[0] if os.path.isfile(folder) else name
    output = os.path.normpath(output or os.path.join("data", name))
    is_inside = os.path.join(os.path.realpath(output), "").startswith(os.path.join(os.path.realpath(folder), ""))
    if os.path.lexists(output) or is_inside:
        problem = "which exists" if os.path.lexists(output) else f"a folder in {folder}"
        raise InputError("--output", f"{output}, {problem}", "a new folder elsewhere")
    classes = class_folders(folder)
    try:
        found = find_images("train_path", folder, classes)
    except InputError as error:
        raise InputError("split", error.found or str(error), error.expected) from error
    parts = split(found.paths, [classes[label] for label in found.labels], test_size, config.seed)
    with atomic_folder(output) as partial:
        for part, files in parts.items():
            for path, name in files:
                put(path, os.path.join(partial, part, name, os.path.basename(path)))
    for line in skipped_lines(folder, found.skipped):
        print_note(line)
    train, test = (os.path.join(output, part) for part in ("train", "test"))
    counts = f"{len(parts['train'])} images to train on, {len(parts['test'])} to test on"
    say(escape_control_characters(f"data set: {output}: {counts}, of {len(classes)} classes"))
    words = f"--train_path {quote(train)} --test_path {quote(test)}"
    say(escape_control_characters(f"to train on it: python run.py {words}"))


def split(paths, names, test_size, seed):
    """{"train": [(path, class)], "test": [(path, class)]}, a function of the files' contents and the seed alone.

    Files with the same content stay together; if they are in several classes, they are all for training.

    Args:
        paths, names: the images, and the name of the class of each.
        test_size: fraction of the images of each class.
    """
    groups = defaultdict(list)  # by content
    with progress(len(paths), "read") as bar:
        for path, name in zip(paths, names):
            groups[hashlib.sha256(read_content(path)).hexdigest()].append((path, name))
            bar.update()
    own, contents = defaultdict(dict), Counter()  # of each class, the groups in no other one, and the number of all
    for digest, files in groups.items():
        in_classes = {name for _, name in files}
        contents.update(in_classes)
        if len(in_classes) == 1:
            own[files[0][1]][digest] = files
    test = set()
    for name, count in Counter(names).items():
        size = min(max(1, round(count * test_size)), count - 1)  # at least one image for each part
        chosen = choose(own[name], size, f"{seed} {ascii(name)}")
        if not 0 < len(chosen) < contents[name]:
            found = f"{len(own[name])} different image{'s' * (len(own[name]) != 1)} of {name} that no other class has"
            raise InputError("split", found, "two or more")
        test.update(chosen)
    parts = {"train": [], "test": []}
    for digest, files in groups.items():
        parts["test" if digest in test else "train"] += files
    return parts


def choose(groups, count, seed):
    """The digests of random groups of files, {digest: files}, of at most `count` files in all, or of the smallest."""
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    chosen, size = [], 0
    for digest in order:
        if size + len(groups[digest]) <= count:
            chosen.append(digest)
            size += len(groups[digest])
    return chosen or sorted(order, key=lambda digest: len(groups[digest]))[:1]


def put(path, copy):
    """Make a hard link to a file, or a copy where that is not possible, as of a file in an archive."""
    os.makedirs(os.path.dirname(copy), exist_ok=True)
    if os.path.lexists(copy):  # on a disk that takes cat and Cat for one name
        expected = "names that differ in more than case, as this disk ignores it"
        raise InputError(f"image {path}", f"{copy}, which is another image's", expected)
    try:
        os.link(os.path.realpath(path), copy)
    except OSError:  # another disk, or one without links
        content = read_content(path)
        try:
            with open(copy, "xb") as file:
                file.write(content)
        except OSError as error:
            raise InputError(f"image {path}: cannot be copied ({reason(error)})") from error
