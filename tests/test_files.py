"""Links, pipes, texts and permissions: nothing is taken for what it is not, and no pipe is waited for."""

import errno
import os
import socket
import stat
import time

import h5py
import numpy as np
import pytest

from convert.compare import ReferenceModel, convert_and_verify
from convert.export import move_aside
from src.errors import InputError
from utils.checkpoints.keras_layers import keras_layers, read_arrays
from utils.commands.prepare import prepare_cifar10, write_image
from utils.files import is_in, is_plain, make_writable, read_json, write_atomically
from utils.inference.html_report import history_table
from utils.training.tensorboard import new_event_file

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
    reference = ReferenceModel("lenet5.pb", *[None] * 6)
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
        names.append(new_event_file(str(tmp_path), "step1"))
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
    assert history_table("history.csv") == []


def keras_file(path):
    """A file in the layout of Keras 2 with one array."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"Conv1"]
        layer = file.create_group("Conv1")
        layer.attrs["weight_names"] = [b"Conv1/kernel:0"]
        layer["Conv1/kernel:0"] = np.full((2, 2), 3, np.float32)


def kernel_in(path):
    with keras_layers("pretrained", path) as (layers, _):
        return read_arrays(layers[0].weights)["kernel"]


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
    assert np.array_equal(kernel_in("keras.h5"), np.full((2, 2), 3))
    with h5py.File("other", "w") as file:
        file["data"] = np.ones((2, 2), np.float32)
    replace("keras.h5", name, make)
    with pytest.raises(InputError, match=r"^pretrained: found keras.h5, .*(is a link|are in another file)"):
        kernel_in("keras.h5")


@pytest.mark.parametrize("name", ["layers", "model_weights"])
def test_the_groups_of_either_layout_are_no_links(in_tmp_path, name):
    keras_file("keras.h5")
    os.mkfifo("other")
    with h5py.File("keras.h5", "r+") as file:
        link_to_another_file(file, name)
    with pytest.raises(InputError, match=f"^pretrained: found keras.h5, .*{name} is a link"):
        kernel_in("keras.h5")


# JSON


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 99999, b'{"a": "\xff"}', b"\xef\xbb\xbf{}", b"9" * 9999 + b"}"])
def test_what_is_not_json_is_one_line(in_tmp_path, content):
    with open("file", "wb") as file:
        file.write(content)
    with pytest.raises(InputError) as refused:
        read_json("record", "file", "training writes it")
    assert str(refused.value) == "record file: found a file that is not JSON; training writes it"


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
