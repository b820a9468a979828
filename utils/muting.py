"""What C libraries write to file number 2: hidden, or listened to."""

import os
import sys
import tempfile
import threading


class Muting:
    """Hides what C libraries write of corrupt images, where our own errors do not go the same way."""

    def __init__(self):
        self._lock = threading.Lock()
        self._users = 0

    def __enter__(self):
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._stderr = os.dup(2) if are_errors_apart() else None
                if self._stderr is not None:
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, 2)
                    os.close(nowhere)

    def __exit__(self, *error):
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._stderr is not None:
                os.dup2(self._stderr, 2)
                os.close(self._stderr)


def are_errors_apart():
    """Whether Python's own errors are written elsewhere than to file number 2, as those of our command lines are."""
    try:
        return sys.stderr.fileno() != 2
    except (AttributeError, OSError, ValueError):  # a notebook's
        return False


muting = Muting()  # one for all threads


class Listening:
    """In its `with`, what any thread writes to file number 2 goes to a file that can be read."""

    def __enter__(self):
        self._file = tempfile.TemporaryFile()
        self._stderr = os.dup(2)
        os.dup2(self._file.fileno(), 2)
        return self

    def __exit__(self, *error):
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        self._file.close()

    def length(self):
        """How many bytes were written so far."""
        return os.fstat(self._file.fileno()).st_size

    def text_since(self, length):
        """What was written since length() was that."""
        return os.pread(self._file.fileno(), 2**16, length).decode("utf-8", "replace")
