"""Files, locks and folders: nothing is taken for what it is not, nothing is lost, and no pipe is waited for."""

import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from convert.compare import ReferenceModel, convert_and_verify
from convert.export import move_aside
from src.errors import InputError
from tests.conftest import REPOSITORY
from utils import files
from utils.commands.prepare import prepare_cifar10, write_image
from utils.files import (
    atomic_folder,
    is_in,
    is_plain,
    make_writable,
    partial_folder,
    partial_name,
    read_file,
    read_json,
    remove_leftovers,
    write_atomically,
)
from utils.inference.html_report import history
from utils.keras_weights import read_keras_weights
from utils.locks import locked
from utils.tensorboard import new_event_file

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
        f"    write_atomically({{'file': b'x'}}, make_way=lambda: {end})\n"
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
    write_atomically({path: b"whole"}, make_way=lambda: remove_leftovers(str(tmp_path)))
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


# Locks


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
    expected = f"note: {tmp_path} is on a drive without locks ({reason}): see that no other training uses it\n"
    assert capsys.readouterr().err == expected


def test_another_failure_of_a_lock_is_said_as_it_is(tmp_path, monkeypatch):
    failing_lock(monkeypatch, errno.EIO)
    with pytest.raises(InputError, match=r"which cannot be locked \(Input/output error\)"):
        lock_in(tmp_path)


# Links where files are written or deleted


def test_a_link_is_not_in_the_folder_where_it_lies(tmp_path):
    """So evaluate writes no report to where it leads."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "run").symlink_to("../elsewhere")
    assert not is_in(str(tmp_path / "logs"), str(tmp_path / "logs" / "run"))
    assert is_in(str(tmp_path), str(tmp_path / "elsewhere"))


def test_a_conversion_into_a_folder_that_is_a_link_is_refused(in_tmp_path):
    os.makedirs("elsewhere/1")
    os.symlink("elsewhere", "lenet5-savedmodel")
    reference = ReferenceModel("lenet5.pb", None, None, None, None)
    with pytest.raises(InputError, match="folder lenet5-savedmodel: found a symbolic link, expected a folder or none"):
        convert_and_verify(reference, "lenet5-savedmodel/1", os.mkdir, lambda path: None, "TensorFlow")
    assert os.listdir("elsewhere") == ["1"]


def test_a_conversion_that_is_a_link_to_a_folder_is_moved_aside_and_the_folder_stays(in_tmp_path, capsys):
    os.makedirs("elsewhere/1")
    os.makedirs("weights")
    os.symlink("../elsewhere", "weights/lenet5-savedmodel")
    write_atomically({"weights/lenet5.pb": b"graph"})
    move_aside("weights/lenet5.pb", {"run_folder": "graphs/new"})
    assert os.listdir("elsewhere") == ["1"] and not os.path.lexists("weights/lenet5-savedmodel")


# The log


def test_event_files_keep_their_order_when_the_clock_is_set_back(tmp_path, monkeypatch):
    """TensorBoard reads them in the order of their names."""
    names = []
    for now in (1.6e9, 1.6e9, 1.5e9, 1.7e9, 0.0):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        names.append(new_event_file(str(tmp_path), 1))
        open(names[-1], "w").close()
    assert names == sorted(names) and len(set(names)) == 5
    assert "tfevents.1700000000." in names[3] and "tfevents.1700000001." in names[4]


# Pipes and the like, which would be waited for


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: socket.socket(socket.AF_UNIX).bind(path)])
def test_an_archive_that_is_no_file_is_refused_at_once(in_tmp_path, make):
    make("archive")
    with pytest.raises(InputError, match="archive archive: (found a device or a pipe|cannot be read)"):
        prepare_cifar10("cifar", archive="archive")
    assert os.listdir(".") == ["archive"]


def test_a_history_that_is_a_pipe_is_left_out(in_tmp_path):
    os.mkfifo("history.csv")
    assert history("history.csv") == []


def keras_file(path):
    """A file in the layout of Keras 2 with one array."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"Conv1"]
        layer = file.create_group("Conv1")
        layer.attrs["weight_names"] = [b"Conv1/kernel:0"]
        layer["Conv1/kernel:0"] = np.full((2, 2), 3, np.float32)


def replace(path, name, make):
    with h5py.File(path, "r+") as file:
        del file[name]
        make(file, name)


def stored_elsewhere(file, name):
    parts = [("other", 0, 16)]
    file.create_dataset(name, (2, 2), np.float32, external=parts)


def virtual(file, name):
    layout = h5py.VirtualLayout((2, 2), np.float32)
    layout[:] = h5py.VirtualSource("other", "data", shape=(2, 2))
    file.create_virtual_dataset(name, layout)


def link_to_another_file(file, name):
    file[name] = h5py.ExternalLink("other", "/data")


def link_to_the_same_file(file, name):
    file["kernel"] = np.ones((2, 2), np.float32)
    file[name] = h5py.SoftLink("/kernel")


@pytest.mark.parametrize("name, make", [
    ("Conv1/Conv1/kernel:0", stored_elsewhere),
    ("Conv1/Conv1/kernel:0", virtual),
    ("Conv1/Conv1/kernel:0", link_to_another_file),
    ("Conv1/Conv1/kernel:0", link_to_the_same_file),
    ("Conv1/Conv1", link_to_another_file),
    ("Conv1", link_to_another_file),
])  # fmt: skip
def test_weights_of_keras_in_another_file_are_refused(in_tmp_path, name, make):
    keras_file("keras.h5")
    assert np.array_equal(read_keras_weights("pretrained", "keras.h5")["first/kernel"], np.full((2, 2), 3))
    with h5py.File("other", "w") as file:
        file["data"] = np.ones((2, 2), np.float32)
    replace("keras.h5", name, make)
    with pytest.raises(InputError, match=r"^pretrained: found keras.h5, .*(is a link|are in another file)"):
        read_keras_weights("pretrained", "keras.h5")


@pytest.mark.parametrize("name", ["layers", "model_weights"])
def test_the_groups_of_either_layout_are_no_links(in_tmp_path, name):
    keras_file("keras.h5")
    os.mkfifo("other")
    with h5py.File("keras.h5", "r+") as file:
        link_to_another_file(file, name)
    with pytest.raises(InputError, match=f"^pretrained: found keras.h5, .*{name} is a link"):
        read_keras_weights("pretrained", "keras.h5")


# JSON


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 99999, b'{"a": "\xff"}', b"\xef\xbb\xbf{}", b"9" * 9999 + b"}"])
def test_what_is_not_json_is_one_line(in_tmp_path, content):
    with open("file", "wb") as file:
        file.write(content)
    with pytest.raises(InputError) as refused:
        read_json("record", "file", ", expected a record")
    assert str(refused.value) == "record file: found a file that is not JSON, expected a record"


def test_json_that_is_a_pipe_is_one_line(in_tmp_path):
    os.mkfifo("file")
    with pytest.raises(InputError, match="record file: found a device or a pipe, expected a file"):
        read_json("record", "file")


@pytest.mark.parametrize("text, plain", [
    ('{"a": [1, -2.5, null, true, "h\\u00fcnd", "\\ud83d\\ude00"]}', True),
    ('"\\udcff"', True),  # Python's letter for a byte of a file's name that is not UTF-8
    ('["\\ud800"]', False),
    ('{"\\udfff": 1}', False),
    ('{"a": NaN}', False),
    ('[[-Infinity]]', False),
    ("1e999", False),
    ('"a\\u0000b"', False),
    ("[" * 20 + "]" * 20, True),
    ("[" * 21 + "]" * 21, False),
    ('{"a": ' * 300 + "1" + "}" * 300, False),
])  # fmt: skip
def test_values_that_files_and_terminals_take(in_tmp_path, text, plain):
    with open("file", "w") as file:
        file.write(text)
    assert is_plain(read_json("record", "file")) is plain


# Reasons


@pytest.mark.parametrize("error, reason", [
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
    (OSError("the drive is gone"), "the drive is gone"),
    (OSError(), "OSError"),
    (TimeoutError(), "TimeoutError"),
])  # fmt: skip
def test_what_cannot_be_written_has_a_reason(in_tmp_path, monkeypatch, error, reason):
    def fail(*arguments, **options):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(InputError) as refused:
            write_atomically({"file": b"x"})
    assert str(refused.value) == f"file file: cannot be written ({reason})" and os.listdir(".") == []
    with monkeypatch.context() as patch:
        patch.setattr(os, "makedirs", fail)
        with pytest.raises(InputError) as refused:
            write_image(".", "train", "cat", 1, np.zeros((2, 2, 3), np.uint8))
        assert str(refused.value) == f"file ./train/cat/00001.png: cannot be written ({reason})"
        with pytest.raises(InputError, match=rf"found x, expected a folder that can be written to \({reason}\)"):
            make_writable("weight_dir", "x")


def test_partial_files_have_the_permissions_that_the_user_wants(in_tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically({"file": b"x"})
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat("file").st_mode) == 0o640
