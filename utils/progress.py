"""Progress of long work: a bar in a terminal or a notebook, elsewhere a line every half minute."""

import contextlib
import datetime
import sys
import time

from tqdm import tqdm

from src.console import say_error

SECONDS = 30  # between lines


def progress(total, title="", initial=0, unit="images"):
    """A progress bar: update(count), set_postfix_str(text, refresh), close(); also a context manager.

    Args:
        total: the number of units in all.
        title: shown before it.
        initial: the number of units that are done already.
    """
    options = {"total": total, "desc": title or None, "initial": initial, "unit": unit, "leave": False}
    if "ipykernel" in sys.modules:
        return notebook_bar(options)
    if sys.stderr is not None and sys.stderr.isatty():
        return tqdm(**options, dynamic_ncols=True, unit_scale=unit == "B")
    return ProgressLines(total, title, initial, unit)


def notebook_bar(options):
    """tqdm's own for notebooks, if ipywidgets is installed; else as text."""
    with contextlib.suppress(ImportError):
        import ipywidgets  # noqa: F401
        from tqdm.notebook import tqdm as bar

        return bar(**options)
    return tqdm(**options, ncols=100)


class ProgressLines(contextlib.ExitStack):
    """Prints lines such as "epoch 3/30: 45 % of 50000 images, loss 1.234, 2030 images/s, 0:00:14 left"."""

    def __init__(self, total, title, initial, unit):
        super().__init__()
        self._total, self._title, self._initial, self._unit = total, title, initial, unit
        self._done, self._postfix = initial, ""
        self._start = self._last = time.monotonic()

    def set_postfix_str(self, text, refresh=True):
        self._postfix = f"{text}, "

    def update(self, count=1):
        self._done += count
        now = time.monotonic()
        if now - self._last >= SECONDS and self._done > self._initial:
            self._last = now
            say_error(self._line((self._done - self._initial) / (now - self._start)))

    def _line(self, speed):
        title = f"{self._title}: " if self._title else ""
        total = max(self._total, self._done)  # of a download, it may be unknown
        left = datetime.timedelta(seconds=round((total - self._done) / speed))
        amounts = [tqdm.format_sizeof(amount) if self._unit == "B" else f"{amount:.0f}" for amount in (total, speed)]
        share = f"{100 * self._done / total:.0f} % of {amounts[0]} {self._unit}"
        return f"{title}{share}, {self._postfix}{amounts[1]} {self._unit}/s, {left} left"
