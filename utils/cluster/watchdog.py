"""Ends a process that has lost another worker of its cluster: TensorFlow 1.14 would wait for that one forever."""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from types import SimpleNamespace

from src.console import print_error, say
from src.errors import ExitCode
from src.system import is_launcher_gone

GRACE_SECONDS = 20  # that a step may still take after a signal
PRINT_SECONDS = 30  # after which it is printed what is waited for, again and again


class Watchdog:
    """A thread that ends the process when a deadline passes, or when its launcher is gone.

    Args:
        launcher: ID of the process that started this one; None: watch no launcher.
        suspects: a function that says which other workers are late, None where there are no deadlines.
    """

    def __init__(self, launcher, suspects=None):
        self._launcher, self._suspects = launcher, suspects
        self._running = None  # the current deadline: what is being done, and when it times out
        self._signals, sender = socket.socketpair()
        sender.setblocking(False)
        if threading.current_thread() is threading.main_thread():  # only the main thread receives signals
            signal.set_wakeup_fd(sender.detach())
        threading.Thread(target=self._watch, daemon=True).start()

    @contextlib.contextmanager
    def deadline(self, doing, seconds):
        """End the process if the body takes longer. Ctrl-C or SIGTERM shortens that to GRACE_SECONDS.

        Every PRINT_SECONDS it is printed how long it has taken so far, and which workers are late.
        """
        now = time.monotonic()
        running = SimpleNamespace(doing=doing, start=now, seconds=seconds, end=now + seconds)
        running.next_print = now + PRINT_SECONDS
        outer, self._running = self._running, running
        try:
            yield
        finally:
            self._running = outer

    def _watch(self):
        while True:
            signalled = select.select([self._signals], [], [], 0.2)[0] and self._signals.recv(1)
            if self._launcher and is_launcher_gone(self._launcher):
                exit_without_saving("the launcher is gone")
            running = self._running
            if signalled and running:  # Python handles the signal only when TensorFlow returns, which it may never do
                running.end = min(running.end, time.monotonic() + GRACE_SECONDS)
            now = time.monotonic()
            if running and now > running.end:
                exit_without_saving(f"{running.doing} timed out; {self._suspects()}")
            if running and now > running.next_print:
                running.next_print = now + PRINT_SECONDS
                suspects = self._suspects()
                if self._running is running:  # else it is done by now
                    say(f"{running.doing}: {now - running.start:.0f} of {running.seconds:g} s; {suspects}")


def exit_without_saving(reason):
    """End the process at once: a regular exit would wait for the lost worker in TensorFlow."""
    print_error(f"{reason}; exiting without saving (exit code {ExitCode.PEER_LOST}), restart with --resume")
    sys.stdout.flush()
    os._exit(ExitCode.PEER_LOST)
