"""Folders of images in, normalized batches out.

A data set is a folder with one folder per class:  train/cat/1.png  train/cat/2.jpg  train/dog/1.png
"""
import collections
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from src.errors import InputError

THREADS = min(os.cpu_count() or 1, 8)  # that read images
AT_ONCE = 4 * 2 ** 20  # bytes of small batches that a thread reads in one go, for handing over takes time as well
MARGIN = 8  # augmentation moves an image by up to this part of its size: 4 pixels of 32
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
    image = None
    try:
        with open(path, "rb") as file:
            content = file.read()
        # OpenCV fills what is missing at the end of a JPEG with grey.
        if content and not (content.startswith(b"\xff\xd8") and b"\xff\xd9" not in content):
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except OSError as error:
        raise InputError("image %s: cannot be read (%s)" % (path, error.strerror))
    except cv2.error:  # too large, for one
        pass
    if image is None:
        raise InputError("image %s: found a file that OpenCV cannot read, or that is cut short, expected a PNG, JPEG "
                         "or BMP image" % path)
    return image


def preprocess(images, size, channel_order, table):
    """Resize, order and normalize images; every image for the network comes through here.

    Args:
        images: a list of uint8 [H, W, 3], each of its own size, channels blue, green, red.
        size: width and height of the results.
        channel_order: "bgr" leaves the channels as they are, "rgb" swaps them first.
        table: what normalization_table made of mean and std; its channel c is for channel c of the results.

    Returns:
        float32 [n, size, size, 3].
    """
    tall = np.concatenate([resized(image, size) for image in images])  # one image, for one call of OpenCV is quicker
    if channel_order == "rgb":
        tall = cv2.cvtColor(tall, cv2.COLOR_BGR2RGB)
    return cv2.LUT(tall, table).reshape(len(images), size, size, 3)


def resized(image, size):
    if image.shape[:2] == (size, size):
        return image
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)


def read_fitting(path, size):
    """The image in a file; one with more pixels than size x size is resized at once, to take no more memory."""
    image = read_image(path)
    return resized(image, size) if image.shape[0] * image.shape[1] > size * size else image


def augmented(image, shift, mirror):
    """The image moved by `shift` pixels (right, down) over its own reflection, and mirrored if so told."""
    size, margin = len(image), int(np.abs(shift).max())
    right, down = shift
    image = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REFLECT_101)
    image = image[margin - down:margin - down + size, margin - right:margin - right + size]
    return image[:, ::-1] if mirror else image


class Cache(object):
    """Decoded images, kept in memory as long as there is room, counted in megabytes."""

    def __init__(self, megabytes):
        self._room = megabytes * 2 ** 20
        self._images = {}
        self._lock = threading.Lock()

    def read(self, path, size):
        """What read_fitting makes of the file."""
        image = self._images.get(path)
        if image is None:
            image = read_fitting(path, size)
            with self._lock:
                if image.nbytes <= self._room:
                    self._room -= image.nbytes
                    self._images[path] = image
        return image


class DataSet(object):
    """Labelled images in files, read batch by batch.

    Batches are tuples (images, labels, ids, cls): float32 [n, img_size, img_size, 3] normalized,
    float32 one-hot [n, total_class], file names, class names.
    """

    def __init__(self, paths, labels, config, cache, augment="none"):
        """paths: n image files; labels: n indices into config.classes; augment: as the setting, for epochs."""
        self.paths = paths
        self._augment = augment
        self._ids = [os.path.basename(path) for path in paths]
        self.labels = labels
        self._config = config
        self._cache = cache
        self._one_hot = np.eye(len(config.classes), dtype=np.float32)
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
        self._check(batch_size)
        if self._position + batch_size > self.num_examples:  # only if batch_size has grown
            self._complete_epoch()
        chosen = self._order[self._position:self._position + batch_size]
        batch = self._read_augmented(chosen)
        self._position += batch_size
        if self._position + batch_size > self.num_examples:
            self._complete_epoch()
        return batch

    def epoch(self, batch_size):
        """The batches of one epoch, as next_batch gives them, read ahead while the last one is in use.

        An epoch that is broken off does not count as completed: the next one begins it anew.
        """
        if self._position:
            self._complete_epoch()  # begun by next_batch
        self._check(batch_size)
        full = self.num_examples // batch_size * batch_size
        for batch in self._read_ahead(self._read_augmented, self._order[:full], batch_size):
            yield batch
        self._complete_epoch()

    def batches(self, batch_size):
        """Every image once, in order, as it is, read ahead; the last batch may be short."""
        return self._read_ahead(self._read, np.arange(self.num_examples), batch_size)

    def _check(self, batch_size):
        if not 0 < batch_size <= self.num_examples:
            raise InputError("setting batch_size: found %s, expected 1 to %d, the number of images"
                             % (batch_size, self.num_examples))

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
        batch_bytes = batch_size * self._config.img_size ** 2 * 3 * 4
        stretch = batch_size * max(1, AT_ONCE // batch_bytes)
        stretches = (chosen[start:start + stretch] for start in range(0, len(chosen), stretch))
        for images, one_hot, ids, cls in read_ahead(read, stretches):
            for start in range(0, len(images), batch_size):
                part = slice(start, start + batch_size)
                yield images[part], one_hot[part], ids[part], cls[part]

    def _read(self, chosen):
        """The batch of those images, as they are."""
        return self._batch(chosen, self._images(chosen))

    def _read_augmented(self, chosen):
        """The batch of those images as this epoch shows them."""
        images = self._images(chosen)
        if self._augment != "none":
            images = [augmented(resized(image, self._config.img_size), self._shifts[index], self._mirrored[index])
                      for index, image in zip(chosen, images)]
        return self._batch(chosen, images)

    def _images(self, chosen):
        return [self._cache.read(self.paths[index], self._config.img_size) for index in chosen]

    def _batch(self, chosen, images):
        config, labels = self._config, self.labels[chosen]
        return (preprocess(images, config.img_size, config.channel_order, self._table), self._one_hot[labels],
                [self._ids[index] for index in chosen], [config.classes[label] for label in labels])


def read_ahead(read, choices):
    """Yield read(choice) for each choice, in order, while threads read the next few.

    An error is raised where its batch would have come. Threads end with the generator.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = collections.deque()
        try:
            for choice in choices:
                waiting.append(pool.submit(read, choice))
                if len(waiting) > 2 * THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for batch in waiting:
                batch.cancel()


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
    cache = Cache(config.cache_mb)
    return DataSets(DataSet([paths[i] for i in train], labels[train], config, cache, config.augment),
                    DataSet([paths[i] for i in valid], labels[valid], config, cache))


def read_test_set(config):
    """Every image under config.test_path, for the classes that were learned. Raises as read_train_sets."""
    paths, labels = find_images("test_path", config.test_path, config.classes)
    return DataSet(paths, labels, config, Cache(0))


def read_sample(setting, config, count):
    """`count` images drawn from those under a path, always the same, in random order; all if there are fewer.

    Args:
        setting: "train_path" or "test_path".
        config: as for read_test_set.

    Raises:
        InputError: as read_train_sets.
    """
    paths, labels = find_images(setting, getattr(config, setting), config.classes)
    chosen = np.random.RandomState(config.seed).permutation(len(paths))[:count]
    return DataSet([paths[index] for index in chosen], labels[chosen], config, Cache(0))


def find_images(setting, path, classes):
    """List the images of each class: (paths, labels), by class and file name."""
    if not os.path.isdir(path):
        raise InputError("setting %s: found no folder %s, expected one with a folder of images per class, "
                         "such as python run.py prepare makes" % (setting, path))
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
                       if entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith(".")
                       and (entry.is_file() or entry.is_symlink()))
        if not files:
            raise InputError("setting %s: found no images in class folder %s, expected some ending in %s"
                             % (setting, folder, " ".join(EXTENSIONS)))
        paths += [os.path.join(folder, file) for file in files]
        labels += [label] * len(files)
    return paths, np.array(labels)


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
