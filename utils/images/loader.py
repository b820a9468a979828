"""Prefetching in threads, and the cache of decoded images."""

import collections
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from src.archives import archive_of, changed
from src.console import suppress_stderr
from src.system import cores
from utils.progress import progress

cv2.setNumThreads(1)  # images are decoded in parallel by our own threads

THREADS = min(cores(), 32)  # that read images; more of them wait for one another
PREFETCH_BYTES = 64 * 2**20  # of prefetched batches; but at least one per thread,
FEW_THREADS, MAX_BYTES = 8, 512 * 2**20  # of the ninth and further threads only as far as they stay below that
CHUNK_BYTES = 4 * 2**20  # small batches are read several at a time, to save the overhead of passing them on
BATCH_BYTES = 20 * 2**20  # of a batch for inference


class Cache:
    """A memory budget for decoded images, in megabytes."""

    def __init__(self, megabytes):
        self._free = int(megabytes * 2**20)

    def reserve(self, count, size):
        """Reserve memory for up to `count` images of `size` bytes; returns for how many."""
        reserved = min(count, self._free // size)
        self._free -= reserved * size
        return reserved


class ImageFiles:
    """Image files that are decoded once, as far as the cache has memory for them.

    Args:
        paths: n files.
        preprocess: a Preprocess, which loads them.
        cache: a Cache.
    """

    def __init__(self, paths, preprocess, cache):
        self._paths, self._archive = paths, archive_of(paths[0])
        self._load = preprocess.load
        self._shape = preprocess.img_size, preprocess.img_size, preprocess.numchannels
        # One array: gathering its rows is twice as fast as stacking separate arrays.
        self._rows = np.empty((cache.reserve(len(paths), int(np.prod(self._shape))), *self._shape), np.uint8)
        self._row_of = np.full(len(paths), -1)
        self._free_rows = iter(range(len(self._rows)))

    def read(self, chosen):
        """The images with these indices: uint8 [n, img_size, img_size, numchannels]. Raises InputError."""
        rows = self._row_of[chosen]
        if (rows >= 0).all():
            return self._rows[rows]
        if self._archive and archive_of(self._paths[0]) is not self._archive:  # indexed again for another data set
            raise changed(self._archive)
        images = np.empty((len(chosen), *self._shape), np.uint8)
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
    """[function(path) for path in paths], for small results, in threads, with a progress bar."""
    results = []
    with suppress_stderr, progress(len(paths), title) as bar:
        for result in prefetch(function, paths, choice_bytes=1):
            results.append(result)
            bar.update()
    return results


def inference_batch(img_size):
    """The batch size for inference: 100, or less if images are large."""
    return max(1, min(100, BATCH_BYTES // image_bytes(img_size)))


def image_bytes(img_size):
    """Size of a normalized image of three channels, float32."""
    return img_size**2 * 3 * 4


def prefetch_count(choice_bytes):
    """How many results of this size to prefetch."""
    busy = min(THREADS, max(FEW_THREADS, MAX_BYTES // choice_bytes))
    return max(busy, min(2 * THREADS, PREFETCH_BYTES // choice_bytes))


def prefetch_bytes(img_size, batch_size):
    """An upper bound of the memory of the prefetched batches and of the one in use."""
    chunk = max(CHUNK_BYTES, batch_size * image_bytes(img_size))
    return (prefetch_count(chunk) + 1) * chunk


def prefetch(read, choices, choice_bytes):
    """Yield read(choice) for each choice, in order, while threads read the next ones.

    An error is raised when its result is due. The threads end with the generator.

    Args:
        choice_bytes: size of the result of one choice.
    """
    count = prefetch_count(choice_bytes)
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = collections.deque()
        try:
            for choice in choices:
                waiting.append(pool.submit(read, choice))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for batch in waiting:
                batch.cancel()
