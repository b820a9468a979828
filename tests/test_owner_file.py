"""On a drive without locks, one training at a time: lock.owner says which, and goes stale when it has ended."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import time

import pytest

from src.errors import InputError
from tests.conftest import REPOSITORY
from utils import owner_file
from utils.locks import locked

HOLD = """
import fcntl, sys
from utils.locks import locked
def flock(file, operation):
    raise OSError(37, "No locks available")
fcntl.flock = flock
with locked("checkpoint_dir", "."):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def drive(in_tmp_path, monkeypatch):
    """A folder on a drive without locks."""

    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(owner_file, "SETTLING", 0.1)
    return in_tmp_path


@pytest.fixture
def other(drive):
    """Another process that has locked the folder."""
    environment = dict(os.environ, PYTHONPATH=REPOSITORY)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"locked\n"
    yield process
    for file in (process.stdin, process.stdout):
        file.close()
    process.wait()


def lock_here():
    with locked("checkpoint_dir", "."):
        return read()


def read():
    with open("lock.owner") as file:
        return json.load(file)


def write(seconds_ago, **changes):
    """What a training on another machine has written, and when it has renewed it."""
    owner = {"host": "elsewhere", "process": 1, "since": "2026-01-02 03:04:05", "scope": "0" * 12, "id": "x"}
    with open("lock.owner", "w") as file:
        json.dump(dict(owner, **changes), file)
    os.utime("lock.owner", (time.time() - seconds_ago,) * 2)


def test_a_training_that_runs_keeps_others_out_and_leaves_nothing(other):
    expected = rf"found \., which another training is using \(process {other.pid} on .*, since 20.*; renewed \d+ s ago"
    with pytest.raises(InputError, match=expected):
        lock_here()
    other.stdin.close()
    assert other.wait() == 0
    assert sorted(os.listdir(".")) == ["lock"]
    assert lock_here()["process"] == os.getpid()


def test_one_that_was_killed_gives_way_at_once(other):
    other.kill()
    other.wait()
    assert read()["process"] == other.pid and lock_here()["process"] == os.getpid()


def test_one_in_this_process_keeps_others_out(drive):
    with locked("checkpoint_dir", "."), pytest.raises(InputError, match="which another training is using"):
        lock_here()
    lock_here()


def test_one_of_an_earlier_process_of_this_number_gives_way(drive):
    write(0, scope=owner_file.host(), process=os.getpid())
    assert lock_here()["id"] != "x"


def test_one_on_another_machine_counts_as_ended_when_it_is_no_longer_renewed(drive):
    write(owner_file.STALE - 20)
    with pytest.raises(InputError, match="process 1 on elsewhere, since 2026-01-02 03:04:05; renewed 2[78]. s ago"):
        lock_here()
    write(owner_file.STALE + 20)
    assert lock_here()["process"] == os.getpid()


def test_one_from_the_future_says_which_file_to_delete(drive):
    write(-3600)
    with pytest.raises(InputError, match="counts as ended; if there is no such process, delete ./lock.owner"):
        lock_here()


def test_it_is_renewed_as_long_as_training_lasts(drive, monkeypatch):
    monkeypatch.setattr(owner_file, "RENEWAL", 0.05)
    with locked("checkpoint_dir", "."):
        os.utime("lock.owner", (0, 0))
        until = time.monotonic() + 20
        while os.stat("lock.owner").st_mtime < time.time() - 10:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_of_two_that_take_over_a_stale_one_only_the_last_trains(drive, monkeypatch):
    write(owner_file.STALE + 20)
    monkeypatch.setattr(owner_file.time, "sleep", lambda seconds: write(0, host="faster"))
    with pytest.raises(InputError, match="another training is using .process 1 on faster"):
        lock_here()
    assert read()["host"] == "faster"  # and it is not removed


@pytest.mark.parametrize("content", [b"[" * 100000, b"", b"[1]", b"\xff", b'{"scope": NaN}', b'{"process": "x"}'])
def test_any_other_content_is_an_unknown_training_until_it_is_old(drive, content):
    with open("lock.owner", "wb") as file:
        file.write(content)
    with pytest.raises(InputError, match="another training is using .process"):
        lock_here()
    os.utime("lock.owner", (0, 0))
    lock_here()


def test_one_that_cannot_be_written_is_a_line(drive):
    os.symlink("/nowhere/at/all", "lock.owner")
    with pytest.raises(InputError, match="lock.owner"):
        lock_here()
    os.remove("lock.owner")
    os.mkdir("lock.owner")
    with pytest.raises(InputError, match="lock.owner"):
        lock_here()
