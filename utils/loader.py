"""Reading ahead in threads, and keeping decoded images in memory."""

import collections
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from utils.images import read_fitting

THREADS = min(os.cpu_count() or 1, 8)  # reading threads


class Cache:
    """Decoded images, kept in memory while there is room.

    Args:
        megabytes: the room.
    """

    def __init__(self, megabytes):
        self._room = megabytes * 2**20
        self._images = {}
        self._lock = threading.Lock()

    def read(self, path, size):
        """The result of read_fitting for the file."""
        image = self._images.get(path)
        if image is None:
            image = read_fitting(path, size)
            with self._lock:
                if image.nbytes <= self._room:
                    self._room -= image.nbytes
                    self._images[path] = image
        return image


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
