"""Folders of images in, normalized batches out.

A data set is a folder with one folder per class:  train/cat/1.png  train/cat/2.jpg  train/dog/1.png
"""
import os

import cv2
import numpy as np

from src.errors import InputError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp")


def normalization_table(mean, std):
    """What each of the 256 levels of each channel becomes: float32 [1, 256, 3].

    (level / 255 - mean) / std. Looking a pixel up is six times faster than calculating it.
    """
    table = np.repeat(np.arange(256, dtype=np.float32).reshape(1, 256, 1), 3, axis=2)
    table *= np.float32(1.0 / 255.0)
    table -= np.array(mean, np.float32)
    table /= np.array(std, np.float32)
    return table


def read_image(path):
    """The image in a file as OpenCV reads colour: uint8 [H, W, 3], channels blue, green, red.

    Grey and palette images become colour, 16 bit become 8 bit, transparency is dropped.

    Raises:
        InputError: the file is not an image, or is not there.
    """
    image = cv2.imread(path, cv2.IMREAD_COLOR)
    if image is None:
        raise InputError("image %s: found a file that OpenCV cannot read, expected a PNG, JPEG or BMP image" % path)
    return image


def preprocess(image, out, channel_order, table):
    """Resize, order and normalize one image; training and prediction both come through here.

    Args:
        image: uint8 [H, W, 3], channels blue, green, red.
        out: float32 [img_size, img_size, 3], receives the result.
        channel_order: "bgr" leaves the channels as they are, "rgb" swaps them first.
        table: what normalization_table made of mean and std; its channel c is for channel c of `out`.
    """
    if image.shape != out.shape:
        image = cv2.resize(image, (out.shape[1], out.shape[0]), interpolation=cv2.INTER_LINEAR)
    if channel_order == "rgb":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    cv2.LUT(image, table, dst=out)


class DataSet(object):
    """Labelled images in files, read batch by batch.

    Batches are tuples (images, labels, ids, cls): float32 [n, img_size, img_size, 3] normalized,
    float32 one-hot [n, total_class], file names, class names.
    """

    def __init__(self, paths, labels, config):
        """paths: n image files; labels: n indices into config.classes."""
        self._paths = np.array(paths)
        self._labels = np.array(labels, np.int64)
        self._config = config
        self._table = normalization_table(config.image_normalize_mean, config.image_normalize_std)
        self.num_examples = len(paths)
        self.epochs_completed = 0
        self._shuffle()

    def next_batch(self, batch_size):
        """The next `batch_size` images of the epoch, in an order that is new in each epoch.

        An epoch is over when fewer than `batch_size` images are left of it, so that it holds no
        image twice and no short batch. Which images are left out is different each time.

        Raises:
            InputError: a broken image file, or batch_size above num_examples.
        """
        if not 0 < batch_size <= self.num_examples:
            raise InputError("setting batch_size: found %s, expected 1 to %d, the number of training images"
                             % (batch_size, self.num_examples))
        if self._position + batch_size > self.num_examples:  # only if batch_size has grown
            self._complete_epoch()
        chosen = self._order[self._position:self._position + batch_size]
        self._position += batch_size
        if self._position + batch_size > self.num_examples:
            self._complete_epoch()
        return self._read(chosen)

    def batches(self, batch_size):
        """Walk through every image once, in order; the last batch may be short."""
        for start in range(0, self.num_examples, batch_size):
            yield self._read(np.arange(start, min(start + batch_size, self.num_examples)))

    def _complete_epoch(self):
        self.epochs_completed += 1
        self._shuffle()

    def _shuffle(self):
        random = np.random.RandomState([self._config.seed, self.epochs_completed])
        self._order = random.permutation(self.num_examples)
        self._position = 0

    def _read(self, chosen):
        size, classes = self._config.img_size, np.array(self._config.classes)
        images = np.empty((len(chosen), size, size, 3), np.float32)
        paths, labels = self._paths[chosen], self._labels[chosen]
        for path, out in zip(paths, images):
            preprocess(read_image(path), out, self._config.channel_order, self._table)
        one_hot = np.eye(len(classes), dtype=np.float32)[labels]
        return images, one_hot, [os.path.basename(path) for path in paths], list(classes[labels])


class DataSets(object):
    """The two parts of the training images: `train` to learn from, `valid` to check on."""

    def __init__(self, train, valid):
        self.train = train
        self.valid = valid


def read_train_sets(config):
    """Find the images under config.train_path and split them, `config.validation_size` for validation.

    The split is a function of the file names and config.seed alone; each class is split in proportion.

    Raises:
        InputError: no such folder, fewer than two classes, a class without images, an empty side.
    """
    paths, labels = find_images("train_path", config.train_path, config.classes)
    train, valid = split(labels, config.validation_size, config.seed)
    if len(train) == 0 or len(valid) == 0:
        raise InputError("setting validation_size: found %s, which leaves %d training and %d validation images of %d, "
                         "expected some of each" % (config.validation_size, len(train), len(valid), len(paths)))
    return DataSets(*(DataSet([paths[i] for i in part], labels[part], config) for part in (train, valid)))


def read_test_set(config):
    """Every image under config.test_path, for the classes that were learned. Raises as read_train_sets."""
    return DataSet(*find_images("test_path", config.test_path, config.classes), config=config)


def find_images(setting, path, classes):
    """List the images of each class: (paths, labels), by class and file name."""
    if not os.path.isdir(path):
        raise InputError("setting %s: found no folder %s, expected one with a folder of images per class"
                         % (setting, path))
    if len(classes) < 2:
        raise InputError("setting %s: found %s in %s, expected a folder of images for each of two or more classes"
                         % (setting, "one class folder, " + classes[0] if classes else "no class folder", path))
    paths, labels = [], []
    for label, name in enumerate(classes):
        folder = os.path.join(path, name)
        if not os.path.isdir(folder):
            raise InputError("setting %s: found no folder %s, expected one with images of that class"
                             % (setting, folder))
        files = sorted(entry.name for entry in os.scandir(folder)
                       if entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith("."))
        if not files:
            raise InputError("setting %s: found no images in class folder %s, expected some ending in %s"
                             % (setting, folder, " ".join(EXTENSIONS)))
        paths += [os.path.join(folder, file) for file in files]
        labels += [label] * len(files)
    return paths, np.array(labels)


def split(labels, validation_size, seed):
    """Indices (train, valid), both sorted: round(N * validation_size) for validation, in proportion by class.

    The images of each class get shuffled places, spread evenly from 0 to 1; validation takes the lowest places
    overall. So every class gives its share to within one image, and the total is exact.
    """
    random = np.random.RandomState(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        place[members] = (random.permutation(len(members)) + random.rand()) / len(members)
    order = np.argsort(place, kind="mergesort")
    valid_count = int(round(len(labels) * validation_size))
    return np.sort(order[valid_count:]), np.sort(order[:valid_count])
