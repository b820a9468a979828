"""Deferring Ctrl-C and SIGTERM to a safe point."""

import signal
import sys
import threading

from src.errors import ExitCode

HELD = (signal.SIGINT, signal.SIGTERM)


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
                if previous not in (signal.SIG_IGN, None):
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
