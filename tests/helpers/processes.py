"""Processes that tests start: which there are, what they print, and an end to all that a test leaves behind."""

import contextlib
import os
import signal
import subprocess
import time

PROC = "/proc"  # where Linux tells of its processes


class Started:
    """A command in a process of its own, which prints into a file.

    Args:
        command: its words.
        environment: all of its environment variables.
        output: the file, for output and errors.
    """

    def __init__(self, command, environment, output="output.txt"):
        self._output = os.path.abspath(output)
        with open(self._output, "w") as file:
            self.process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)

    def read(self):
        """What it has printed so far."""
        with open(self._output) as file:
            return file.read()

    def wait_for(self, text):
        """Until it has printed the text."""
        until = time.monotonic() + 100
        while text not in self.read():
            assert self.process.poll() is None and time.monotonic() < until, self.read()
            time.sleep(0.05)

    def end(self):
        """Wait for its end; (exit code, what it printed)."""
        code = self.process.wait(100)
        return code, self.read()


def state_and_parent(process):
    """("R", "S", "Z" for a zombie, ...; the number of its parent) of a process; None if it is gone."""
    try:
        with open(os.path.join(PROC, str(process), "stat")) as file:
            state, parent = file.read().rsplit(")", 1)[1].split()[:2]
        return state, int(parent)
    except OSError:
        return None


def is_running(process):
    found = state_and_parent(process)
    return found is not None and found[0] != "Z"


def children(process):
    """The numbers of the running processes that a process has started; [] on a system without /proc."""
    numbers = sorted(int(name) for name in os.listdir(PROC) if name.isdigit()) if os.path.isdir(PROC) else []
    found = [(number, state_and_parent(number)) for number in numbers]
    return [number for number, stat in found if stat and stat[0] != "Z" and stat[1] == process]


def descendants(process):
    """Those, and those that these have started, and so on."""
    found = children(process)
    return found + [other for child in found for other in descendants(child)]


def is_server(process):
    """Whether it is one that multiprocessing starts once, for all tests."""
    with contextlib.suppress(OSError), open(os.path.join(PROC, str(process), "cmdline"), "rb") as file:
        return b"from multiprocessing" in file.read()
    return False


def kill_descendants():
    """Kill all that this process has started and what these have started, but for the servers of multiprocessing."""
    servers = [child for child in children(os.getpid()) if is_server(child)]
    for process in descendants(os.getpid()):
        if process not in servers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def assert_gone(processes, seconds=20):
    """These processes end soon, and so hold no port."""
    until = time.monotonic() + seconds
    for process in processes:
        while is_running(process):
            assert time.monotonic() < until, process
            time.sleep(0.05)
