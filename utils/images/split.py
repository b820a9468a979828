"""Which images are trained on, validated on and tested on."""

import hashlib
import os
from collections import Counter, namedtuple

import numpy as np

from src.console import print_note
from src.errors import InputError
from utils.images.decode import find_problem
from utils.images.image_folders import ClassImages, check_complete, find_images, skipped_lines
from utils.images.loader import map_images

# n paths; labels int [n]; sorted indices of the training and of the validation images; notes on what else was found,
# one line each; and the fingerprint of all of them.
Split = namedtuple("Split", "paths labels train valid notes fingerprint")


def find_split(config):
    """The Split of the training images under config.train_path.

    The validation images are those under config.valid_path, or if that is None a fraction, config.validation_size, of
    the training images. This split is stratified, and a function of the file names and config.seed alone.

    Raises:
        InputError: no such folder, fewer than two classes, a class without training images, an empty training or
            validation set.
    """
    paths, labels, notes = find_usable_images("train_path", config)
    if config.valid_path is None:
        train, valid = split(labels, config.validation_size, config.seed)
        if len(train) == 0 or len(valid) == 0:
            split_up = f"which leaves {len(train)} training and {len(valid)} validation images of {len(paths)}"
            raise InputError("setting validation_size", f"{config.validation_size}, {split_up}", "some of each")
    else:
        valid_paths, valid_labels, valid_notes = find_usable_images("valid_path", config)
        train = np.arange(len(paths))
        paths, labels, notes = paths + valid_paths, np.concatenate([labels, valid_labels]), notes + valid_notes
        valid = np.arange(len(train), len(paths))
    return Split(paths, labels, train, valid, notes, fingerprint(paths, labels))


def find_test_images(source):
    """(paths, labels, where they are, for a heading) of the images to evaluate on; prints notes on what is skipped.

    Where the test images cannot be used, and test_path was not given for this evaluation, these are the validation
    images of the run.

    Args:
        source: an ImageSource, or the settings of a run.

    Raises:
        InputError: no such folder, two names of one folder, no image of any class.
    """
    try:
        return (*find_and_note("test_path", source), source.test_path)
    except InputError as error:
        if getattr(source, "is_test_path_given", False) or error.found is None:
            raise
        try:
            paths, labels = validation_images(source)
        except InputError:
            raise error from None
        where = f"the validation images of {source.valid_path or source.train_path}"
        print_note(f"{error.subject}: found {error.found}; so these are {where}, by which the best epoch was selected")
        return paths, labels, where


def validation_images(source):
    """(paths, labels) of the validation images of a run. Raises InputError unless they are those of its training."""
    if None in (source.train_path, source.validation_size, source.seed):
        raise InputError("metadata", "no validation_size", "one, as this version writes it")
    found = find_split(source)
    if found.fingerprint != getattr(source, "fingerprint", found.fingerprint):
        raise InputError("setting train_path", "other images", "those of the run")
    return [found.paths[index] for index in found.valid], found.labels[found.valid]


def find_usable_images(setting, config):
    """(paths, labels, notes) of the images of a path setting; without corrupt ones if config.bad_images is "skip"."""
    path = getattr(config, setting)
    found = find_images(setting, path, config.classes)
    if config.bad_images == "skip":
        found = without_corrupt(setting, path, config.classes, found)
    return found.paths, found.labels, found.notes + skipped_lines(path, found.skipped)


def without_corrupt(setting, path, classes, found):
    """`found` without its corrupt images. Raises InputError if a class that must have images has no others."""
    is_corrupt = np.array([problem is not None for problem in map_images(find_problem, found.paths, setting)])
    paths, labels = [path for path, skip in zip(found.paths, is_corrupt) if not skip], found.labels[~is_corrupt]
    lost = [classes[label] for label in sorted(set(found.labels) - set(labels))]
    problems = {
        name: InputError(f"setting {setting}", f"no readable image of {name} in {path}", "some") for name in lost
    }
    notes = check_complete(setting, path, problems, len(set(found.labels)))
    skipped = found.skipped + Counter({"corrupt image": int(is_corrupt.sum())})
    return ClassImages(paths, labels, skipped, found.notes + notes)


def find_and_note(setting, config):
    """(paths, labels) of find_usable_images; prints its notes."""
    paths, labels, notes = find_usable_images(setting, config)
    for line in notes:
        print_note(line)
    return paths, labels


def fingerprint(paths, labels):
    """A checksum of file names and classes, to recognize the images of another run."""
    names = [f"{label}/{os.path.basename(path)}" for path, label in zip(paths, labels)]
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def split(labels, validation_size, seed):
    """Sorted indices (train, valid) of a stratified split, with round(n * validation_size) images in valid.

    Each class contributes its share rounded down, and the classes with the largest remainders one image more, until the
    number is reached.
    """
    random = np.random.RandomState(seed)
    share = np.bincount(labels) * validation_size
    take = np.floor(share).astype(int)
    missing = int(round(len(labels) * validation_size)) - take.sum()
    take[np.lexsort((random.rand(len(take)), take - share))[:missing]] += 1
    of_class = np.split(np.argsort(labels, kind="mergesort"), np.cumsum(np.bincount(labels))[:-1])  # indices, sorted
    is_valid = np.zeros(len(labels), bool)
    is_valid[np.concatenate([random.permutation(indices)[:count] for indices, count in zip(of_class, take)])] = True
    return np.flatnonzero(~is_valid), np.flatnonzero(is_valid)
