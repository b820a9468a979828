"""One training at a time in a folder: a lock is taken for nothing else, and nothing else for a lock."""

import errno
import fcntl
import os
import socket

import pytest

from src.errors import InputError
from utils.locks import locked


def lock_in(folder):
    with locked("checkpoint_dir", str(folder)):
        pass


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "bashrc").write_text("alias")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").symlink_to("../bashrc")
    with pytest.raises(InputError, match="setting checkpoint_dir: found .*/run/lock, a symbolic link, expected a file"):
        lock_in(tmp_path / "run")
    assert (tmp_path / "bashrc").read_text() == "alias"


def test_a_link_to_nowhere_makes_no_file(tmp_path):
    (tmp_path / "lock").symlink_to("new")
    with pytest.raises(InputError, match="a symbolic link, expected a file"):
        lock_in(tmp_path)
    assert not (tmp_path / "new").exists()


def test_a_file_called_lock_that_training_did_not_write_stays_as_it_is(tmp_path):
    (tmp_path / "lock").write_text("the code of my bicycle: 1234")
    with pytest.raises(InputError, match="/lock, which training did not write, expected none"):
        lock_in(tmp_path)
    assert (tmp_path / "lock").read_text() == "the code of my bicycle: 1234"


@pytest.mark.parametrize("make, found", [
    (os.mkfifo, "a device or a pipe"),
    (os.mkdir, "which cannot be opened (Is a directory)"),
    (lambda path: socket.socket(socket.AF_UNIX).bind(path), "which cannot be opened (No such device or address)"),
])  # fmt: skip
def test_a_lock_that_is_no_file_is_refused(in_tmp_path, make, found):
    make("lock")
    with pytest.raises(InputError) as refused:
        lock_in(".")
    assert str(refused.value).startswith(f"setting checkpoint_dir: found ./lock, {found}, expected a file")


def test_a_lock_of_another_user_is_not_taken_for_another_training(tmp_path, monkeypatch):
    def forbidden(*arguments):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(InputError, match="/lock, which cannot be opened .Permission denied., expected a file"):
        lock_in(tmp_path)


def test_another_training_is_named_by_its_process(tmp_path):
    with locked("checkpoint_dir", str(tmp_path)):
        expected = rf"found {tmp_path}, which another training is using \(process {os.getpid()}\); wait"
        with pytest.raises(InputError, match=expected):
            lock_in(tmp_path)
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    lock_in(tmp_path)


def failing_lock(monkeypatch, number):
    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_training_says_so_once_and_goes_on(tmp_path, monkeypatch, capsys, number):
    failing_lock(monkeypatch, number)
    for _ in range(2):
        lock_in(tmp_path)
    reason = os.strerror(number)
    expected = f"note: {tmp_path} is on a drive without locks ({reason}): make sure that no other training uses it\n"
    assert capsys.readouterr().err == expected


def test_another_failure_of_a_lock_is_reported_as_it_is(tmp_path, monkeypatch):
    failing_lock(monkeypatch, errno.EIO)
    with pytest.raises(InputError, match=r"which cannot be locked \(Input/output error\)"):
        lock_in(tmp_path)
