"""Folders of images in, normalized batches out.

A data set is a folder with one folder per class:  train/cat/1.png  train/cat/2.jpg  train/dog/1.png
"""

import glob
import hashlib
import os
import shlex
from collections import Counter, namedtuple
from typing import Iterator

import numpy as np

from src.errors import InputError, escape_control_characters
from utils.images import EXTENSIONS, MARGIN, augmented, fitting, normalization_table, normalize, problem_of
from utils.loader import CHUNK_BYTES, Cache, ImageFiles, image_bytes, map_images, read_ahead

PLURAL = ("folder", "broken image")  # of what is passed over, these get an s; the others are endings of names

# n images: float32 [n, img_size, img_size, 3] normalized, float32 one-hot [n, total_class], file names, class names.
Batch = namedtuple("Batch", "images labels ids cls")


class DataSet:
    """Labelled images in files, read batch by batch.

    Args:
        paths: n image files.
        labels: n indices into config.classes.
        config: settings.
        cache: a Cache.
        augment: as the setting of that name; it applies to epochs, not to `batches`.
    """

    def __init__(self, paths, labels, config, cache, augment="none"):
        self.paths = paths
        self._augment = augment
        self._ids = [os.path.basename(path) for path in paths]
        self.labels = labels
        self._config = config
        self._files = ImageFiles(paths, fitting(config), config.img_size, cache)
        self._one_hot = np.eye(len(config.classes), dtype=np.float32)
        self._table = normalization_table(config.image_normalize_mean, config.image_normalize_std)
        self.num_examples = len(paths)
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
        return self._read_ahead(self._read, part, batch_size)

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
        random = np.random.RandomState([self._config.seed, self.epochs_completed])
        self._order = random.permutation(self.num_examples)
        self._position = 0
        if self._augment != "none":
            margin = self._config.img_size // MARGIN
            self._shifts = random.randint(-margin, margin + 1, (self.num_examples, 2))
            self._mirrored = random.randint(0, 2, self.num_examples) * (self._augment == "crop+flip")

    def _read_ahead(self, read, chosen, batch_size):
        """Batches of the images with those indices."""
        batch_bytes = batch_size * image_bytes(self._config.img_size)
        times = max(1, CHUNK_BYTES // batch_bytes)
        chunk = batch_size * times
        chunks = (chosen[start : start + chunk] for start in range(0, len(chosen), chunk))
        for batches in read_ahead(read, chunks, times * batch_bytes):
            for start in range(0, len(batches.images), batch_size):
                yield Batch(*(values[start : start + batch_size] for values in batches))

    def _read(self, chosen):
        """The batch of those images, as they are."""
        return self._batch(chosen, self._files.read(chosen))

    def _read_augmented(self, chosen):
        """The batch of those images as this epoch shows them."""
        images = self._files.read(chosen)
        if self._augment != "none":
            for image, index in zip(images, chosen):
                image[:] = augmented(image, self._shifts[index], self._mirrored[index])
        return self._batch(chosen, images)

    def _batch(self, chosen, images):
        config, labels = self._config, self.labels[chosen]
        return Batch(
            normalize(images, config.channel_order, self._table),
            self._one_hot[labels],
            [self._ids[index] for index in chosen.tolist()],
            [config.classes[label] for label in labels.tolist()],
        )


# The two parts of the training images, two DataSets: one to learn from, one to validate on; what else was found in the
# class folders, {kind: count}; and a checksum of the names and classes of all the images.
DataSets = namedtuple("DataSets", "train valid passed_over fingerprint")


def read_train_sets(config):
    """Find the images under config.train_path, and those to validate on.

    These are under config.valid_path, or if that is None a part `config.validation_size` of the others. The split is a
    function of the file names and config.seed alone; each class is split in proportion.

    Raises:
        InputError: no such folder, fewer than two classes, a class without images, an empty side.
    """
    paths, labels, passed_over = find_sound_images("train_path", config)
    if config.valid_path is None:
        train, valid = split(labels, config.validation_size, config.seed)
        if len(train) == 0 or len(valid) == 0:
            left = f"leaves {len(train)} training and {len(valid)} validation images of {len(paths)}"
            raise InputError(
                f"setting validation_size: found {config.validation_size}, which {left}, expected some of each"
            )
    else:
        train, valid_paths = np.arange(len(paths)), find_sound_images("valid_path", config)
        paths, labels = paths + valid_paths[0], np.concatenate([labels, valid_paths[1]])
        passed_over, valid = passed_over + valid_paths[2], np.arange(len(train), len(paths))
    cache = Cache(config.cache_mb)
    return DataSets(
        DataSet([paths[i] for i in train], labels[train], config, cache, config.augment),
        DataSet([paths[i] for i in valid], labels[valid], config, cache),
        passed_over,
        fingerprint(paths, labels),
    )


def find_sound_images(setting, config):
    """As find_images; without the broken ones, which are counted, if config.bad_images is "skip"."""
    paths, labels, passed_over = find_images(setting, getattr(config, setting), config.classes)
    if config.bad_images == "skip":
        sound = np.array([problem is None for problem in map_images(problem_of, paths, setting)])
        passed_over["broken image"] += int((~sound).sum())
        paths, labels = [path for path, is_sound in zip(paths, sound) if is_sound], labels[sound]
        counts = np.bincount(labels, minlength=len(config.classes))
        if not counts.all():
            found = f"found no image of {config.classes[counts.argmin()]} that can be read"
            raise InputError(f"setting {setting}: {found} in {getattr(config, setting)}, expected some of each class")
    return paths, labels, passed_over


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
    lines = [escape_control_characters(text)]
    lines += passed_over_lines(data.passed_over)
    for folder in [config.test_path] + [os.path.join(config.test_path, name) for name in classes]:
        if not os.path.isdir(folder):
            note = f"note: setting test_path: found no folder {folder}; evaluate will need one, by --test_path"
            return "\n".join(lines + [escape_control_characters(note)])
    return "\n".join(lines)


def passed_over_lines(passed_over):
    """What else was found in the class folders, {kind: count}, in a line, if there was anything."""
    kinds = sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
    kinds = [f"{count} {kind}" + ("s" if kind in PLURAL and count > 1 else "") for kind, count in kinds if count]
    return [escape_control_characters(f"passed over in the class folders: {', '.join(kinds)}")] if kinds else []


def read_test_set(config):
    """Every image under config.test_path, for the classes that were learned. Raises as read_train_sets."""
    paths, labels, _ = find_images("test_path", config.test_path, config.classes)
    return DataSet(paths, labels, config, Cache(0))


def read_sample(setting, config, count):
    """`count` images drawn from those under a path, always the same, in random order; all if there are fewer.

    Args:
        setting: "train_path" or "test_path".
        config: as for read_test_set.

    Raises:
        InputError: as read_train_sets.
    """
    paths, labels, _ = find_images(setting, getattr(config, setting), config.classes)
    chosen = np.random.RandomState(config.seed).permutation(len(paths))[:count]
    return DataSet([paths[index] for index in chosen], labels[chosen], config, Cache(0))


def find_images(setting, path, classes):
    """List the images of each class: (paths, labels, {kind of what else is there: count}), by class and file name."""
    if not os.path.isdir(path):
        raise InputError(f"setting {setting}: found no folder {path}, {expected_folder(setting)}")
    below = os.path.join(path, "train")
    if os.path.isdir(below) and not list_class(below)[0]:
        raise InputError(f"setting {setting}: found {path}, expected one with class folders; did you mean {below}?")
    if len(classes) < 2:
        found = f"one class, {classes[0]}," if classes else "no class folder"
        expected = "expected a folder of images for each of two or more classes"
        raise InputError(f"setting {setting}: found {found} in {path}, {expected}")
    paths, labels, passed_over = [], [], Counter()
    for label, name in enumerate(classes):
        folder = os.path.join(path, name)
        if not os.path.isdir(folder):
            raise InputError(f"setting {setting}: found no folder {folder}, expected one with images of that class")
        files, others = list_class(folder)
        if not files:
            expected = f"expected files ending in {' '.join(EXTENSIONS)}"
            raise InputError(f"setting {setting}: found no images in class folder {folder}, {expected}")
        paths += [os.path.join(folder, file) for file in files]
        labels += [label] * len(files)
        passed_over.update(others)
    return paths, np.array(labels), passed_over


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


def list_class(folder):
    """(names of the image files in a class folder, sorted; kinds of what else is there, but for hidden files)."""
    files, others = [], []
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if os.path.isdir(entry.path):  # entry.is_dir() fails of a link to itself
            others.append("folder")
        elif entry.name.lower().endswith(EXTENSIONS) and (entry.is_symlink() or entry.is_file()):
            files.append(entry.name)
        else:
            others.append(os.path.splitext(entry.name)[1].lower() or "without extension")
    return sorted(files), others


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
