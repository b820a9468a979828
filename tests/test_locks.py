"""One training at a time in a folder: a lock is taken for nothing else, and nothing else for a lock."""

import errno
import fcntl
import os
import socket

import pytest

from src.errors import InputError
from utils.files import write_atomically
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
    (tmp_path / "lock").write_text("4711\n")

    def forbidden(*arguments):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", forbidden)
    expected = "/lock, which cannot be opened .Permission denied., expected a file.*; give another folder by --"
    with pytest.raises(InputError, match=expected):
        lock_in(tmp_path)


def test_a_folder_without_a_lock_in_which_none_can_be_made_is_reported_as_that(tmp_path, monkeypatch):
    def forbidden(path, flags, *mode):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(InputError, match=r"/lock, which cannot be opened \(Permission denied\), expected .* or none$"):
        lock_in(tmp_path)


def test_a_lock_of_another_user_that_can_be_read_is_locked_and_stays_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "lock").write_text("4711\n")
    open_file = os.open

    def open_for_reading(path, flags, *mode):
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return open_file(path, flags, *mode)

    monkeypatch.setattr(os, "open", open_for_reading)
    with locked("checkpoint_dir", str(tmp_path)), pytest.raises(InputError, match="which another training is using"):
        lock_in(tmp_path)
    lock_in(tmp_path)
    assert (tmp_path / "lock").read_text() == "4711\n"


def test_a_file_of_another_user_in_a_sticky_folder_is_found_before_it_is_to_be_replaced(tmp_path, monkeypatch):
    """As in a shared folder with the permissions of /tmp. The kernel refuses it to all but root."""
    path = tmp_path / "checkpoint"
    path.write_text("theirs")
    uid = os.stat(str(path)).st_uid
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    write_atomically({str(path): "mine"})
    tmp_path.chmod(0o1777)
    with pytest.raises(InputError, match="/checkpoint: found one of another user, in a sticky folder.*; give another"):
        write_atomically({str(path): "mine again"})
    assert path.read_text() == "mine"
    for allowed in (uid, 0):
        monkeypatch.setattr(os, "geteuid", lambda allowed=allowed: allowed)
        write_atomically({str(path): f"{allowed}"})


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
    drive = f"{tmp_path} is on a drive without locks ({os.strerror(number)})"
    expected = f"note: {drive}: its file lock.owner, renewed every 20 s, keeps other trainings out instead\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES])
def test_a_lock_that_another_process_has_is_another_training(tmp_path, monkeypatch, number):
    (tmp_path / "lock").write_text("4711\n")
    failing_lock(monkeypatch, number)
    with pytest.raises(InputError, match=r"which another training is using \(process 4711\)"):
        lock_in(tmp_path)


def test_another_failure_of_a_lock_is_reported_as_it_is(tmp_path, monkeypatch):
    failing_lock(monkeypatch, errno.EIO)
    with pytest.raises(InputError, match=r"which cannot be locked \(Input/output error\)"):
        lock_in(tmp_path)
