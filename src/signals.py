"""Ctrl-C and SIGTERM, put off until a moment when they do no harm."""

import signal
import sys
import threading

from src.errors import ExitCode

HELD = (signal.SIGINT, signal.SIGTERM)


class HeldSignals:
    """Within it, the first Ctrl-C or SIGTERM waits for check() or for the end; a second one acts at once.

    Where SIGTERM would end the process, it becomes SystemExit(ExitCode.TERMINATED). In another thread than the main one
    nothing is held: Python tells the main thread alone of signals.
    """

    def __init__(self):
        self._previous = {}
        self._waiting = None

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
        """Whether there is a signal for check()."""
        return self._waiting is not None

    def check(self):
        """Let a signal that waits act now: raise KeyboardInterrupt or SystemExit, or call the caller's own handler."""
        number, self._waiting = self._waiting, None
        if number is not None:
            self._act(number, None)

    def _hold(self, number, frame):
        if self._waiting is None:
            self._waiting = number
        else:
            self._act(number, frame)

    def _act(self, number, frame):
        if callable(self._previous[number]):
            self._previous[number](number, frame)
        elif number == signal.SIGTERM:
            sys.exit(ExitCode.TERMINATED)
        else:
            raise KeyboardInterrupt
