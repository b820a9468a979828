"""From folders of images to normalized batches.

A data set is a folder with one folder per class:  train/cat/1.png  train/cat/2.jpg  train/dog/1.png
"""

import os
from collections import namedtuple
from typing import Iterator

import numpy as np

from src.console import escape_control_characters
from src.errors import NO_FAULT_OF_THE_IMAGE, InputError
from src.folders import is_folder
from utils.images.augment import augmented, draw_augmentation
from utils.images.image_folders import find_images
from utils.images.loader import CHUNK_BYTES, Cache, ImageFiles, image_bytes, prefetch
from utils.images.preprocess import Preprocess
from utils.images.split import find_and_note, find_split, find_test_images

# n images: float32 [n, img_size, img_size, 3] normalized, float32 one-hot [n, total_class], file names, class names.
Batch = namedtuple("Batch", "images labels ids cls")


class DataSet:
    """Labelled image files, read in batches.

    Args:
        paths: n image files.
        labels: n indices into classes.
        classes: names of the classes.
        preprocess: a Preprocess.
        cache: a Cache.
        seed, augment: the settings of these names; they affect next_batch and epoch, not batches.
    """

    def __init__(self, paths, labels, classes, preprocess, cache, seed=0, augment="none"):
        self.paths = paths
        self.labels = labels
        self.preprocess = preprocess
        self.num_examples = len(paths)
        self._classes = classes
        self._files = ImageFiles(paths, preprocess, cache)
        self._seed = seed
        self._augment = augment
        self.epochs_completed = 0
        self._shuffle()

    def __repr__(self):
        return f"<DataSet of {self.num_examples} images in {len(self._classes)} classes>"

    def next_batch(self, batch_size: int) -> Batch:
        """The next `batch_size` images of the epoch; each epoch is shuffled again.

        An epoch ends when fewer than `batch_size` images remain: no image is repeated and no batch is short. Different
        images are dropped in each epoch.

        Raises:
            InputError: a corrupt image file, or batch_size above num_examples.
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

    def epoch(self, batch_size: int, done: int = 0, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """The batches of one epoch, as those of next_batch, prefetched.

        An interrupted epoch does not count as completed: the next call starts it again.

        Args:
            done: number of batches to skip, because they were processed before.
            rank, world_size: split each batch of `world_size * batch_size` images among the workers; yield the part of
                worker `rank`.
        """
        if self._position:
            self._complete_epoch()  # started by next_batch
        self._check_batch_size(world_size * batch_size)
        steps = self.num_examples // (world_size * batch_size)
        parts = self._order[: steps * world_size * batch_size].reshape(steps, world_size, batch_size)
        yield from self._prefetch(self._read_augmented, parts[done:, rank].ravel(), batch_size)
        self._complete_epoch()

    def set_epoch(self, epochs_completed: int) -> None:
        """Go to the start of the epoch that follows `epochs_completed` others."""
        if (self.epochs_completed, self._position) != (epochs_completed, 0):
            self.epochs_completed = epochs_completed
            self._shuffle()

    def batches(self, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Every image once, in order, without augmentation, prefetched; the last batch may be short.

        Args:
            rank, world_size: split the images among the workers; yield those of worker `rank`.
        """
        part = np.array_split(np.arange(self.num_examples), world_size)[rank]
        return self._prefetch(self.read, part, batch_size)

    def read(self, chosen: np.ndarray) -> Batch:
        """The batch of these indices, without augmentation. Raises InputError if an image cannot be read."""
        return self._batch(chosen, self._read_files(chosen))

    def _check_batch_size(self, batch_size):
        if not 0 < batch_size <= self.num_examples:
            raise InputError("setting batch_size", batch_size, f"1 to {self.num_examples}, the number of images")

    def _complete_epoch(self):
        self.epochs_completed += 1
        self._shuffle()

    def _shuffle(self):
        """Draw everything random in an epoch, as a function of seed, epoch and image alone."""
        random = np.random.RandomState([self._seed, self.epochs_completed])
        self._order = random.permutation(self.num_examples)
        self._position = 0
        if self._augment != "none":
            size = self.preprocess.img_size
            self._shifts, self._flips = draw_augmentation(random, self.num_examples, size, self._augment)

    def _prefetch(self, read, chosen, batch_size):
        """Yield the batches of these indices, read several at a time if they are small."""
        batch_bytes = batch_size * image_bytes(self.preprocess.img_size)
        count = max(1, CHUNK_BYTES // batch_bytes)
        chunk = batch_size * count
        chunks = (chosen[start : start + chunk] for start in range(0, len(chosen), chunk))
        for batches in prefetch(read, chunks, count * batch_bytes):
            for start in range(0, len(batches.images), batch_size):
                yield Batch(*(values[start : start + batch_size] for values in batches))

    def _read_augmented(self, chosen):
        """The batch of these indices with the augmentation of this epoch."""
        images = self._read_files(chosen)
        if self._augment != "none":
            drawn = self._shifts[chosen].tolist(), self._flips[chosen].tolist()  # of Python's numbers: twice as fast
            for image, shift, flip in zip(images, *drawn):
                image[:] = augmented(image, shift, flip)
        return self._batch(chosen, images)

    def _read_files(self, chosen):
        try:
            return self._files.read(chosen)
        except NO_FAULT_OF_THE_IMAGE:
            raise
        except InputError as error:
            hint = "--bad_images skip leaves out such images, python run.py check lists them"
            raise InputError(error.subject, error.found, error.expected, hint) from error

    def _batch(self, chosen, images):
        labels = self.labels[chosen]
        one_hot = np.zeros([len(labels), len(self._classes)], np.float32)
        one_hot[np.arange(len(labels)), labels] = 1
        return Batch(
            self.preprocess.normalize(images),
            one_hot,
            [os.path.basename(self.paths[index]) for index in chosen.tolist()],
            [self._classes[label] for label in labels.tolist()],
        )


class DataSets:
    """The images of a run.

    Attributes:
        train, valid: the training and the validation set, two DataSets.
        notes: on what else was found, one line each.
        fingerprint: of the training and validation images.
    """

    def __init__(self, config, train, valid, notes, fingerprint):
        self._config, self._test = config, None
        self.train, self.valid, self.notes, self.fingerprint = train, valid, notes, fingerprint

    @property
    def test(self):
        """The DataSet of the test images, as read_test_set returns it, read when it is first used."""
        if self._test is None:
            self._test, _ = read_test_set(self._config, self.train.preprocess)
        return self._test

    def __repr__(self):
        return f"{self.train.num_examples} training and {self.valid.num_examples} validation images"


def read_train_sets(config):
    """The DataSets of a run. Raises InputError as find_split."""
    found = find_split(config)
    common = config.classes, Preprocess.of(config), Cache(config.cache_mb), config.seed
    return DataSets(
        config,
        DataSet([found.paths[i] for i in found.train], found.labels[found.train], *common, config.augment),
        DataSet([found.paths[i] for i in found.valid], found.labels[found.valid], *common),
        found.notes,
        found.fingerprint,
    )


def read_test_set(source, preprocess):
    """(the DataSet of all images of find_test_images, where these are).

    Args:
        source: an ImageSource, or the settings of a run.
        preprocess: the Preprocess of the graph to evaluate.
    """
    paths, labels, where = find_test_images(source)
    return DataSet(paths, labels, source.classes, preprocess, Cache(0)), where


def read_sample(setting, source, preprocess, count):
    """As read_test_set, but `count` random images, the same in each call, in random order; all if there are fewer.

    Args:
        setting: "train_path" for training images, or "test_path".
    """
    if setting == "test_path":
        paths, labels, where = find_test_images(source)
    else:
        paths, labels, where = (*find_and_note(setting, source), getattr(source, setting))
    chosen = np.random.RandomState(0).permutation(len(paths))[:count]
    return DataSet([paths[index] for index in chosen], labels[chosen], source.classes, preprocess, Cache(0)), where


def steps_per_epoch(images, batch_size, workers):
    """The number of full batches. Raises InputError if there is none."""
    if images < batch_size * workers:
        most = f"{images // workers}, the number of training images{' per worker' * (workers > 1)}"
        raise InputError("setting batch_size", batch_size, f"at most {most}")
    return images // (batch_size * workers)


def balanced_weights(labels, classes):
    """The loss weight of each class's images, n / (classes * n of the class), as scikit-learn's: float32 [classes]."""
    counts = np.bincount(labels, minlength=len(classes))
    if not counts.all():
        found = f"no training image of {classes[counts.argmin()]} left after the split"
        raise InputError("setting class_weights", found, "some of each class")
    return (len(labels) / (len(classes) * counts)).astype(np.float32)


def describe(data, config):
    """What read_train_sets found, in a few lines, with notes on a test set that evaluation could not use."""
    classes = config.classes
    counts = np.bincount(np.concatenate([data.train.labels, data.valid.labels]), minlength=len(classes))
    few, many = counts.argmin(), counts.argmax()
    text = f"{data.train.num_examples} images to train on, {data.valid.num_examples} to validate on; "
    text += f"{len(classes)} classes of {counts[few]} ({classes[few]}) to {counts[many]} ({classes[many]}) images"
    if config.numchannels == 1:
        (mean,), (std,) = config.image_normalize_mean, config.image_normalize_std
        text += f", read as grey, with image_normalize_mean {mean:g} and image_normalize_std {std:g}"
    lines = [text] + [f"note: {line}" for line in data.notes + notes_on_test_set(config)]
    return "\n".join(map(escape_control_characters, lines))


def notes_on_test_set(config):
    """Notes on the test set, one line each."""
    if not is_folder(config.test_path):
        return [f"setting test_path: found no folder {config.test_path}; evaluate will use the validation images"]
    try:
        return find_images("test_path", config.test_path, config.classes).notes
    except InputError as error:
        return [f"{error}; evaluate will use the validation images"]
