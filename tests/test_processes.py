"""Whatever a test starts is ended with it."""

import os
import subprocess

import pytest

from tests.helpers.cluster_workers import FORKED
from tests.helpers.processes import assert_gone, children, descendants, is_running, kill_descendants

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc"), reason="tells of processes on Linux alone")


def wait_a_thousand_seconds():
    subprocess.run(["sleep", "1000"])


def test_what_is_left_running_is_killed_with_what_it_has_started():
    shell = subprocess.Popen(["sh", "-c", "sleep 1000 & sleep 1000; :"], start_new_session=True)
    forked = FORKED.Process(target=wait_a_thousand_seconds, daemon=True)
    forked.start()
    while len(descendants(shell.pid)) < 2 or not children(forked.pid):
        assert shell.poll() is None and forked.is_alive()
    started = [shell.pid, *descendants(shell.pid), forked.pid, *children(forked.pid)]
    assert len(started) == 5
    servers = set(descendants(os.getpid())) - set(started)
    kill_descendants()
    assert_gone(started)
    assert servers and all(map(is_running, servers))  # the next test forks from them
