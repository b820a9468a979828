"""Folders of images in, normalized batches out.

A data set is a folder with one folder per class:  train/cat/1.png  train/cat/2.jpg  train/dog/1.png
"""

import hashlib
import os
from collections import Counter, namedtuple
from typing import Iterator

import numpy as np

from src.console import escape_control_characters, print_note
from src.errors import InputError
from utils.images.augment import augmented, draw_augmentation
from utils.images.decode import problem_of
from utils.images.image_folders import ClassImages, check_complete, find_images, skipped_lines
from utils.images.loader import CHUNK_BYTES, Cache, ImageFiles, image_bytes, map_images, read_ahead
from utils.images.preprocess import Preprocess

# n images: float32 [n, img_size, img_size, 3] normalized, float32 one-hot [n, total_class], file names, class names.
Batch = namedtuple("Batch", "images labels ids cls")


class DataSet:
    """Labelled images in files, read batch by batch.

    Args:
        paths: n image files.
        labels: n indices into classes.
        classes: their names.
        preprocess: a Preprocess.
        cache: a Cache.
        seed, augment: as the settings of those names; they apply to epochs, not to `batches`.
    """

    def __init__(self, paths, labels, classes, preprocess, cache, seed=0, augment="none"):
        self.paths = paths
        self.labels = labels
        self.preprocess = preprocess
        self.num_examples = len(paths)
        self._ids = [os.path.basename(path) for path in paths]
        self._classes = classes
        self._one_hot = np.eye(len(classes), dtype=np.float32)
        self._files = ImageFiles(paths, preprocess, cache)
        self._seed = seed
        self._augment = augment
        self.epochs_completed = 0
        self._shuffle()

    def next_batch(self, batch_size: int) -> Batch:
        """The next `batch_size` images of the epoch, in an order that is new in each epoch.

        An epoch is over when fewer than `batch_size` images are left of it, so that it holds no
        image twice and no short batch. Which images are left out is different each time.

        Raises:
            InputError: a broken image file, or batch_size above num_examples.
        """
        self._check_batch_size(batch_size)
        if self._position + batch_size > self.num_examples:  # only if batch_size has grown
            self._complete_epoch()
        chosen = self._order[self._position : self._position + batch_size]
        batch = self._read_augmented(chosen)
        self._position += batch_size
        if self._position + batch_size > self.num_examples:
            self._complete_epoch()
        return batch

    def epoch(self, batch_size: int, done: int = 0, member: int = 0, members: int = 1) -> Iterator[Batch]:
        """The batches of one epoch, as next_batch gives them, read ahead while the last one is in use.

        An interrupted epoch does not count as completed: the next call begins it again.

        Args:
            done: batches of it to pass over, as they are done already.
            member, members: cut each batch of `members * batch_size` images into so many, and give that one of them.
        """
        if self._position:
            self._complete_epoch()  # begun by next_batch
        self._check_batch_size(members * batch_size)
        steps = self.num_examples // (members * batch_size)
        parts = self._order[: steps * members * batch_size].reshape(steps, members, batch_size)
        yield from self._read_ahead(self._read_augmented, parts[done:, member].ravel(), batch_size)
        self._complete_epoch()

    def go_to(self, epochs_completed: int) -> None:
        """Go to the beginning of an epoch: that after so many."""
        if (self.epochs_completed, self._position) != (epochs_completed, 0):
            self.epochs_completed = epochs_completed
            self._shuffle()

    def batches(self, batch_size: int, member: int = 0, members: int = 1) -> Iterator[Batch]:
        """Every image once, in order, as it is, read ahead; the last batch may be short.

        Args:
            member, members: cut the images into so many parts, and give those of that one.
        """
        part = np.array_split(np.arange(self.num_examples), members)[member]
        return self._read_ahead(self.read, part, batch_size)

    def read(self, chosen: np.ndarray) -> Batch:
        """The batch of the images with those indices, as they are. Raises InputError if one cannot be read."""
        return self._batch(chosen, self._read_files(chosen))

    def _check_batch_size(self, batch_size):
        if not 0 < batch_size <= self.num_examples:
            raise InputError(
                f"setting batch_size: found {batch_size}, expected 1 to {self.num_examples}, the number of images"
            )

    def _complete_epoch(self):
        self.epochs_completed += 1
        self._shuffle()

    def _shuffle(self):
        """Draw all that is random in an epoch, so that it is a function of seed, epoch and image."""
        random = np.random.RandomState([self._seed, self.epochs_completed])
        self._order = random.permutation(self.num_examples)
        self._position = 0
        if self._augment != "none":
            size = self.preprocess.img_size
            self._shifts, self._mirrored = draw_augmentation(random, self.num_examples, size, self._augment)

    def _read_ahead(self, read, chosen, batch_size):
        """Batches of the images with those indices."""
        batch_bytes = batch_size * image_bytes(self.preprocess.img_size)
        times = max(1, CHUNK_BYTES // batch_bytes)
        chunk = batch_size * times
        chunks = (chosen[start : start + chunk] for start in range(0, len(chosen), chunk))
        for batches in read_ahead(read, chunks, times * batch_bytes):
            for start in range(0, len(batches.images), batch_size):
                yield Batch(*(values[start : start + batch_size] for values in batches))

    def _read_augmented(self, chosen):
        """The batch of those images as this epoch shows them."""
        images = self._read_files(chosen)
        if self._augment != "none":
            for image, index in zip(images, chosen):
                image[:] = augmented(image, self._shifts[index], self._mirrored[index])
        return self._batch(chosen, images)

    def _read_files(self, chosen):
        """As ImageFiles.read; an error says what helps."""
        try:
            return self._files.read(chosen)
        except InputError as error:
            advice = "--bad_images skip leaves out such images, python run.py check lists them"
            raise InputError(f"{error}; {advice}") from error

    def _batch(self, chosen, images):
        labels = self.labels[chosen]
        return Batch(
            self.preprocess.normalize(images),
            self._one_hot[labels],
            [self._ids[index] for index in chosen.tolist()],
            [self._classes[label] for label in labels.tolist()],
        )


# The two parts of the training images, two DataSets: one to learn from, one to validate on; notes, a line each, on what
# else was found; and a checksum of the names and classes of all the images.
DataSets = namedtuple("DataSets", "train valid notes fingerprint")


def read_train_sets(config):
    """Find the images under config.train_path, and those to validate on.

    These are under config.valid_path, or if that is None a part `config.validation_size` of the others. The split is a
    function of the file names and config.seed alone; each class is split in proportion.

    Raises:
        InputError: no such folder, fewer than two classes, a class without training images, an empty side.
    """
    paths, labels, notes = find_usable_images("train_path", config)
    if config.valid_path is None:
        train, valid = split(labels, config.validation_size, config.seed)
        if len(train) == 0 or len(valid) == 0:
            left = f"leaves {len(train)} training and {len(valid)} validation images of {len(paths)}"
            raise InputError(
                f"setting validation_size: found {config.validation_size}, which {left}, expected some of each"
            )
    else:
        train, (valid_paths, valid_labels, valid_notes) = (
            np.arange(len(paths)),
            find_usable_images("valid_path", config),
        )
        paths, labels, notes = paths + valid_paths, np.concatenate([labels, valid_labels]), notes + valid_notes
        valid = np.arange(len(train), len(paths))
    common = config.classes, Preprocess.of(config), Cache(config.cache_mb), config.seed
    return DataSets(
        DataSet([paths[i] for i in train], labels[train], *common, config.augment),
        DataSet([paths[i] for i in valid], labels[valid], *common),
        notes,
        fingerprint(paths, labels),
    )


def find_usable_images(setting, config):
    """(paths, labels, notes) of the images under a path; without corrupt ones if config.bad_images is "skip"."""
    path = getattr(config, setting)
    found = find_images(setting, path, config.classes)
    if config.bad_images == "skip":
        found = without_corrupt(setting, path, config.classes, found)
    return found.paths, found.labels, found.notes + skipped_lines(path, found.skipped)


def without_corrupt(setting, path, classes, found):
    """ClassImages without the corrupt ones. Raises InputError if a class that needs some has no others."""
    is_corrupt = np.array([problem is not None for problem in map_images(problem_of, found.paths, setting)])
    paths, labels = [path for path, skip in zip(found.paths, is_corrupt) if not skip], found.labels[~is_corrupt]
    lost = [classes[label] for label in sorted(set(found.labels) - set(labels))]
    problems = {name: f"found no image of {name} that can be read in {path}, expected some" for name in lost}
    notes = check_complete(setting, path, problems, len(set(found.labels)))
    skipped = found.skipped + Counter({"corrupt image": int(is_corrupt.sum())})
    return ClassImages(paths, labels, skipped, found.notes + notes)


def balanced_weights(labels, classes):
    """What an image of each class counts for if all classes are to count the same: n / (classes * n of the class)."""
    counts = np.bincount(labels, minlength=len(classes))
    if not counts.all():
        found = f"found no training image of {classes[counts.argmin()]} left after the split"
        raise InputError(f"setting class_weights: {found}, expected some of each class")
    return (len(labels) / (len(classes) * counts)).astype(np.float32)


def fingerprint(paths, labels):
    """A checksum that tells whether these are the images that another run had: of their names and classes."""
    names = [f"{label}/{os.path.basename(path)}" for path, label in zip(paths, labels)]
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def describe(data, config):
    """What read_train_sets found, in some lines, with a note if what evaluation needs is missing."""
    classes = config.classes
    counts = np.bincount(np.concatenate([data.train.labels, data.valid.labels]), minlength=len(classes))
    few, many = counts.argmin(), counts.argmax()
    text = f"{data.train.num_examples} images to train on, {data.valid.num_examples} to validate on; "
    text += f"{len(classes)} classes of {counts[few]} ({classes[few]}) to {counts[many]} ({classes[many]}) images"
    lines = [text] + [f"note: {line}" for line in data.notes + notes_on_test_set(config)]
    return "\n".join(map(escape_control_characters, lines))


def notes_on_test_set(config):
    """What evaluation will meet: notes, a line each."""
    if not os.path.isdir(config.test_path):
        return [f"setting test_path: found no folder {config.test_path}; evaluate will need one, by --test_path"]
    try:
        return find_images("test_path", config.test_path, config.classes).notes
    except InputError as error:
        return [f"{error}; evaluate will need it"]


def read_test_set(config, preprocess):
    """Every image under config.test_path, for the classes that were learned; notes tell what is left out.

    Args:
        config: the settings test_path, classes and bad_images.
        preprocess: the Preprocess of the graph that is evaluated.

    Raises:
        InputError: no such folder, two names of one folder, no image of any class.
    """
    return DataSet(*find_and_note("test_path", config), config.classes, preprocess, Cache(0))


def read_sample(setting, config, preprocess, count):
    """`count` images drawn from those under a path, always the same, in random order; all if there are fewer.

    Args:
        setting: "train_path" or "test_path".
        config, preprocess: as for read_test_set.

    Raises:
        InputError: as read_train_sets.
    """
    paths, labels = find_and_note(setting, config)
    chosen = np.random.RandomState(0).permutation(len(paths))[:count]
    return DataSet([paths[index] for index in chosen], labels[chosen], config.classes, preprocess, Cache(0))


def find_and_note(setting, config):
    """(paths, labels) of find_usable_images, whose notes are printed."""
    paths, labels, notes = find_usable_images(setting, config)
    for line in notes:
        print_note(line)
    return paths, labels


def split(labels, validation_size, seed):
    """Indices (train, valid), both sorted: round(N * validation_size) for validation, each class in proportion.

    Each class gives its share rounded down; what is then missing comes, one image each, from the classes that lost
    most by rounding.
    """
    random = np.random.RandomState(seed)
    share = np.bincount(labels) * validation_size
    take = np.floor(share).astype(int)
    missing = int(round(len(labels) * validation_size)) - take.sum()
    take[np.lexsort((random.rand(len(take)), take - share))[:missing]] += 1
    valid = [random.permutation(np.flatnonzero(labels == label))[:count] for label, count in enumerate(take)]
    valid = np.sort(np.concatenate(valid))
    return np.setdiff1d(np.arange(len(labels)), valid), valid
