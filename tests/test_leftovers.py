"""What killed processes were writing is removed; what others write, and files of people, stay."""

import os
import socket
import subprocess
import sys
import time

import pytest

from tests.conftest import REPOSITORY, python
from utils import files
from utils.files import atomic_folder, partial_folder, partial_name, read_file, remove_leftovers, write_atomically

# What people may call their own files and folders. The first are those that an earlier version removed.
OWN_NAMES = [
    "notes.partial-1999999.txt", "partial-50000-labels", "lenet5.pb.partial-1999999", ".partial-1999999", "partial-1",
    ".partial-notes", ".partial-0123456789ab-7-draft", "my.partial-0123456789ab-1999999-" + 32 * "0",
]  # fmt: skip


def begin_in_another_process(folder, end):
    """A process that writes a file and a folder in `folder` and is not done; returns it when it has begun."""
    code = (
        "import os, signal, sys\n"
        "from utils.files import partial_folder, write_atomically\n"
        "with partial_folder('.') as path:\n"
        "    os.mkdir(os.path.join(path, 'train'))\n"
        f"    write_atomically({{'file': b'x'}}, before_replace=lambda: {end})\n"
    )
    environment = dict(os.environ, PYTHONPATH=REPOSITORY)
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.stdout.readline()
    return process


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    begin_in_another_process(str(tmp_path), "os.kill(os.getpid(), signal.SIGKILL)").wait()
    assert len(os.listdir(str(tmp_path))) == 2
    remove_leftovers(str(tmp_path))
    assert os.listdir(str(tmp_path)) == []


def test_what_a_living_process_writes_stays(tmp_path):
    process = begin_in_another_process(str(tmp_path), "print(flush=True) or sys.stdin.read()")
    try:
        remove_leftovers(str(tmp_path))
        assert len(os.listdir(str(tmp_path))) == 2
    finally:
        process.communicate()
    assert process.returncode == 0 and os.listdir(str(tmp_path)) == ["file"]


@pytest.mark.parametrize("name", OWN_NAMES)
def test_files_and_folders_of_people_are_no_leftovers(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / f"{name}.txt").write_text("mine")
    for path in (tmp_path / name, tmp_path / f"{name}.txt"):
        os.utime(str(path), (0, 0))
    remove_leftovers(str(tmp_path))
    with atomic_folder(str(tmp_path / "digits")):
        pass
    assert sorted(os.listdir(str(tmp_path))) == sorted([name, f"{name}.txt", "digits"])


def begun_by_an_earlier_process_of_this_number(folder):
    """A file, as it is left by a process of another container whose number was that of this one."""
    path = partial_name(str(folder))
    files.being_written.discard(os.path.basename(path))
    with open(path, "w"):
        pass
    return path


def test_a_container_that_is_started_anew_removes_what_it_left_though_its_process_has_the_same_number(tmp_path):
    begun_by_an_earlier_process_of_this_number(tmp_path)
    remove_leftovers(str(tmp_path))
    assert os.listdir(str(tmp_path)) == []


def test_what_this_process_is_writing_stays(tmp_path):
    path = str(tmp_path / "file")
    write_atomically({path: b"whole"}, before_replace=lambda: remove_leftovers(str(tmp_path)))
    with partial_folder(str(tmp_path)) as partial:
        remove_leftovers(str(tmp_path))
        assert os.path.isdir(partial)
    assert os.listdir(str(tmp_path)) == ["file"] and read_file("file", path) == b"whole"


def test_what_another_host_is_writing_on_a_shared_drive_stays_for_a_week(tmp_path, monkeypatch):
    """Its process numbers say nothing here."""
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "elsewhere")
        path = begun_by_an_earlier_process_of_this_number(tmp_path)
    for days, left in ((0, 1), (6, 1), (8, 0)):
        if left or os.path.exists(path):
            os.utime(path, (time.time() - days * 86400,) * 2)
        remove_leftovers(str(tmp_path))
        assert len(os.listdir(str(tmp_path))) == left


def test_the_longest_name_that_a_file_can_have_can_be_written(tmp_path):
    path = str(tmp_path / ("n" * 251 + ".png"))
    write_atomically({path: b"x"})
    assert read_file("file", path) == b"x"


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "bashrc").write_text("alias")
    (tmp_path / "samples.png").symlink_to("bashrc")
    write_atomically({str(tmp_path / "samples.png"): b"picture"})
    assert (tmp_path / "bashrc").read_text() == "alias" and not (tmp_path / "samples.png").is_symlink()


def test_a_folder_that_a_killed_process_left_is_removed(tmp_path):
    code = "import os; from utils.files import partial_name; os.mkdir(partial_name('.'))"
    assert python("-c", code, cwd=tmp_path).returncode == 0 and len(os.listdir(str(tmp_path))) == 1
    with atomic_folder(str(tmp_path / "digits")):
        pass
    assert os.listdir(str(tmp_path)) == ["digits"]
