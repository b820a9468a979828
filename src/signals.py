"""Deferring Ctrl-C and SIGTERM to a safe point."""

import contextlib
import os
import signal
import sys
import threading

from src.console import say_error
from src.errors import ExitCode

HELD = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def ends_at_once(line):
    """Within the block, Ctrl-C and SIGTERM print a line and end the process at once, HeldSignals or not.

    For imports before anything was begun: TensorFlow's takes seconds, and in 1.14 swallows exceptions.
    """

    def end(number, frame):
        say_error(line)
        os._exit(128 + number)

    end.at_once = True
    previous = {number: signal.getsignal(number) for number in HELD}
    for number, handler in previous.items():
        if handler not in (signal.SIG_IGN, None):
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in previous.items():
            if handler is not None:
                signal.signal(number, handler)


class HeldSignals:
    """Defers the first Ctrl-C or SIGTERM to check() or the end of the block; a second one acts at once.

    Where SIGTERM would kill the process, it becomes SystemExit(ExitCode.TERMINATED). Outside the main thread nothing is
    deferred: Python delivers signals to the main thread alone.
    """

    def __init__(self):
        self._previous = {}
        self._pending = None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in HELD:
                previous = signal.getsignal(number)
                if previous not in (signal.SIG_IGN, None) and not hasattr(previous, "at_once"):
                    self._previous[number] = previous
                    signal.signal(number, self._hold)
        return self

    def __exit__(self, kind, *error):
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        if kind is None:
            self.check()

    def is_waiting(self):
        """Whether a signal is pending for check()."""
        return self._pending is not None

    def check(self):
        """Act on a pending signal: raise KeyboardInterrupt or SystemExit, or call the handler it replaced."""
        number, self._pending = self._pending, None
        if number is not None:
            self._act(number, None)

    def _hold(self, number, frame):
        if self._pending is None:
            self._pending = number
        else:
            self._act(number, frame)

    def _act(self, number, frame):
        if callable(self._previous[number]):
            self._previous[number](number, frame)
        elif number == signal.SIGTERM:
            sys.exit(ExitCode.TERMINATED)
        else:
            raise KeyboardInterrupt
