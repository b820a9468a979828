"""Reading ahead in threads, and keeping decoded images in memory."""

import collections
import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from tqdm import tqdm

from src.console import suppress_stderr

cv2.setNumThreads(1)  # threads of our own read images, several at a time

THREADS = min(os.cpu_count() or 1, 8)  # reading threads
AHEAD_BYTES = 64 * 2**20  # of batches that wait to be used; but each thread has one to read
CHUNK_BYTES = 4 * 2**20  # small batches are read several at a time, for handing them over takes time as well
BATCH_BYTES = 20 * 2**20  # of a batch for inference


class Cache:
    """Room in memory for decoded images.

    Args:
        megabytes: the room.
    """

    def __init__(self, megabytes):
        self._room = int(megabytes * 2**20)

    def take(self, count, size):
        """How many of `count` images of `size` bytes there is room for. That room is then taken."""
        fitting = min(count, self._room // size)
        self._room -= fitting * size
        return fitting


class ImageFiles:
    """Image files; those that the cache has room for are decoded once.

    Args:
        paths: n files.
        preprocess: a Preprocess, which gives them their size.
        cache: a Cache.
    """

    def __init__(self, paths, preprocess, cache):
        self._paths = paths
        self._load = preprocess.load
        self._size = size = preprocess.img_size
        # Rows of one array: gathering them is twice as fast as gathering as many arrays.
        self._rows = np.empty((cache.take(len(paths), size * size * 3), size, size, 3), np.uint8)
        self._row_of = np.full(len(paths), -1)
        self._free_rows = iter(range(len(self._rows)))

    def read(self, chosen):
        """The images with these indices: uint8 [len(chosen), size, size, 3]."""
        rows = self._row_of[chosen]
        if (rows >= 0).all():
            return self._rows[rows]
        images = np.empty((len(chosen), self._size, self._size, 3), np.uint8)
        with suppress_stderr:
            for image, index, row in zip(images, chosen, rows):
                image[:] = self._rows[row] if row >= 0 else self._read_file(index)
        return images

    def _read_file(self, index):
        image = self._load(self._paths[index])
        row = next(self._free_rows, None)
        if row is not None:
            self._rows[row] = image
            self._row_of[index] = row
        return image


def map_images(function, paths, title):
    """[function(path) for each image], in order, in threads, with a progress bar."""
    with ThreadPoolExecutor(THREADS) as pool, suppress_stderr:
        results = pool.map(function, paths)
        return list(tqdm(results, total=len(paths), desc=title, unit="images", disable=None, leave=False))


def inference_batch(img_size):
    """Images in a batch for inference: 100, or fewer if they are large."""
    return max(1, min(100, BATCH_BYTES // image_bytes(img_size)))


def image_bytes(img_size):
    """Of a normalized image."""
    return img_size**2 * 3 * 4


def count_ahead(choice_bytes):
    """How many results of that size wait to be used."""
    return max(THREADS, min(2 * THREADS, AHEAD_BYTES // choice_bytes))


def ahead_bytes(img_size, batch_size):
    """At most what the batches take that wait to be used, and the one that is in use."""
    chunk = max(CHUNK_BYTES, batch_size * image_bytes(img_size))
    return (count_ahead(chunk) + 1) * chunk


def read_ahead(read, choices, choice_bytes):
    """Yield read(choice) for each choice, in order, while threads read the next few.

    An error is raised where its batch would have come. Threads end with the generator.

    Args:
        choice_bytes: memory that the result for one choice takes.
    """
    ahead = count_ahead(choice_bytes)
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = collections.deque()
        try:
            for choice in choices:
                waiting.append(pool.submit(read, choice))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for batch in waiting:
                batch.cancel()
