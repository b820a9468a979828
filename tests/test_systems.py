"""Windows and macOS, as far as they can be imitated: processes without what these lack go through the whole program.

Not imitated: what TensorFlow and OpenCV do there, the file system, \\ as the separator of paths.
"""

import csv
import glob
import json
import os
import re
import signal
import sys
from types import SimpleNamespace

import pytest

from src import system
from src.errors import InputError
from tests.conftest import REPOSITORY, python
from tests.helpers.processes import Started
from utils import command_line
from utils.files import atomic_folder

HELPER = os.path.join(REPOSITORY, "tests", "helpers", "other_system.py")
DATA = ["--train_path", "data/digitspng/train", "--test_path", "data/digitspng/test"]
WESTERN = dict(os.environ, LC_ALL="C.UTF-8", PYTHONIOENCODING="cp1252")  # Windows' code page of pipes and text files
# Microsoft, "Naming Files, Paths, and Namespaces"
REFUSED_BY_WINDOWS = r'.*[<>:"|?*\\\x00-\x1f].*|.*[. ]|(con|prn|aux|nul|com\d|lpt\d)(\..*)?'


def start(name, *words):
    return Started([sys.executable, HELPER, name, *words], WESTERN, f"{words[0].strip('-')}.txt")


def run(name, *words, code=0):
    """What these commands print in an imitation of that system."""
    found, text = start(name, *words).end()
    assert found == code and "Traceback" not in text, text
    return text


def interrupt(name):
    """Start a training, let another into the same folder be refused, and press Ctrl-C in the second epoch."""
    training = start(name, *DATA, "--num_epoch", "500")
    training.wait_for("epoch 1/500: ")
    assert "which another training is using (process " in run(name, "train", *DATA, code=2)
    training.process.send_signal(signal.SIGINT)
    code, text = training.end()
    assert code == 130 and "Traceback" not in text, text
    assert re.search("stopped; saved checkpoints/lenet5/.*\nto resume: .* run.py --resume --run ", text)


def epochs():
    with open(glob.glob("graphs/lenet5/*/history.csv")[0]) as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def files():
    return [os.path.join(above, name) for above, folders, names in os.walk(".") for name in folders + names]


@pytest.mark.parametrize("name", ["windows", "macos"])
def test_the_whole_program_runs(name, in_tmp_path):
    """A class has a name outside of the code page."""
    assert "usage: python run.py" in run(name, "--help")
    run(name, "prepare", "digits")
    for part in ("train", "test"):
        os.rename(f"data/digitspng/{part}/7", f"data/digitspng/{part}/七")
    interrupt(name)
    (done,) = epochs()[-1:]
    commands = [["--resume", "--num_epoch", f"{done + 1}"], ["evaluate"], ["predict", "data/digitspng/test/七"]]
    commands += [["convert"]] if name == "windows" else []
    text = run(name, *sum([[*words, "THEN"] for words in commands], [])[:-1])
    assert epochs() == list(range(1, done + 2)), text
    with open(glob.glob("graphs/lenet5/*/evaluation.json")[0], encoding="utf-8") as file:
        assert json.load(file)["accuracy"] > 0.8
    assert text.count("data/digitspng/test/") >= 36
    formats = ("tflite", "-int8.tflite", "-savedmodel", "onnx") if name == "windows" else ()
    assert all(glob.glob(f"weights/lenet5/lenet5*{ending}") for ending in formats), text
    assert [path for path in files() if re.fullmatch(REFUSED_BY_WINDOWS, os.path.basename(path), re.I)] == []
    assert [path for path in files() if "partial" in path] == []


@pytest.fixture
def on_windows(monkeypatch):
    monkeypatch.setattr(system, "ON_WINDOWS", True)


@pytest.mark.parametrize("word, quoted", [
    (r"C:\data\train-1", r"C:\data\train-1"),
    ("data/digitspng", "data/digitspng"),
    (r"my photos\train", r'"my photos\train"'),
    ("R&D (1); {x}, it's @home", '"R&D (1); {x}, it\'s @home"'),
    ("Häuser", '"Häuser"'),
    ("$HOME's", "'$HOME''s'"),
    ("", '""'),
])  # fmt: skip
def test_words_of_printed_commands_are_quoted_for_powershell(on_windows, word, quoted):
    assert system.quote(word) == quoted


def refusing(monkeypatch, name, times):
    """Let a function of os be refused, as Windows does while a virus scanner has the file open."""
    function, calls = getattr(os, name), []

    def refused(*arguments):
        calls.append(arguments)
        if len(calls) <= times:
            raise PermissionError(13, "Permission denied")
        return function(*arguments)

    monkeypatch.setattr(os, name, refused)


@pytest.mark.parametrize("times", [3, 10**6])
def test_a_file_that_is_open_elsewhere_is_replaced_a_little_later(tmp_path, monkeypatch, on_windows, times):
    monkeypatch.setattr(system, "PATIENCE", 0.3)
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    refusing(monkeypatch, "replace", times)
    if times == 3:
        system.replace(str(tmp_path / "new"), str(tmp_path / "old"))
        assert (tmp_path / "old").read_text() == "new"
    else:
        with pytest.raises(PermissionError):
            system.replace(str(tmp_path / "new"), str(tmp_path / "old"))


def test_a_folder_is_renamed_where_there_is_an_empty_one(tmp_path, monkeypatch, on_windows):
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda old, new: os.mkdir(new) if os.path.exists(new) else rename(old, new))
    (tmp_path / "digits").mkdir()
    with atomic_folder(str(tmp_path / "digits")) as partial, open(os.path.join(partial, "file"), "w"):
        pass
    assert os.listdir(str(tmp_path / "digits")) == ["file"]
    with pytest.raises(InputError, match="found one that was not there"), atomic_folder(str(tmp_path / "digits")):
        pass


def test_without_pread_output_is_read_and_goes_on_at_its_end(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "pread")
    with open(str(tmp_path / "file"), "w+b", buffering=0) as file:
        file.write(b"first second")
        assert system.read_at(file.fileno(), 100, 6) == b"second"
        file.write(b" third")
        assert system.read_at(file.fileno(), 100, 0) == b"first second third"


def test_whether_a_process_runs_is_asked_without_a_signal(monkeypatch, on_windows):
    """os.kill(process, 0) ends it on Windows. A launcher may be the grandparent there, in a virtual environment."""
    monkeypatch.setitem(sys.modules, "psutil", SimpleNamespace(pid_exists=lambda number: number in (4, os.getpid())))
    monkeypatch.setattr(os, "kill", None)
    monkeypatch.setattr(os, "getppid", None)
    assert [system.is_alive(number) for number in (4, 5, os.getpid())] == [True, False, False]
    assert [system.is_launcher_gone(number) for number in (4, 5)] == [False, True]


def test_a_program_of_an_environment_that_is_not_active_is_printed_with_its_path(in_tmp_path, monkeypatch):
    (in_tmp_path / "Scripts").mkdir()
    (in_tmp_path / "Scripts" / "python.exe").write_text("")
    monkeypatch.setattr(command_line, "PROGRAM_FILE", "{}.exe")
    monkeypatch.setattr(sys, "executable", str(in_tmp_path / "Scripts" / "python.exe"))
    assert command_line.program("python") == "Scripts/python.exe"
    monkeypatch.setattr(os.path, "relpath", lambda path: int("on another drive"))  # a ValueError, as there
    assert command_line.program("python") == str(in_tmp_path / "Scripts" / "python.exe")


@pytest.mark.parametrize("message", [
    "Could not find 'nvcuda.dll'. TensorFlow requires that this DLL be installed in a directory that is named in PATH",
    "Traceback (most recent call last):\n  File ...\nImportError: DLL load failed while importing it\n\nFailed to load",
])  # fmt: skip
def test_a_library_that_tensorflow_lacks_on_windows_is_named_in_a_line(tmp_path, message):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text(f"raise ImportError({message!r})")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {REPOSITORY!r}]; import run; sys.exit(run.main(['summary']))"
    )
    done = python("-c", code, cwd=tmp_path)
    (named,) = [line for line in message.split("\n") if "DLL" in line]
    line = f"error: TensorFlow: cannot be imported ({named}); docs/setup.md says what it needs on Windows\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_no_signal_is_sent_to_a_process_that_ctrl_c_has_reached(on_windows):
    system.forward(None, signal.SIGINT)


def test_memory_that_is_free_comes_from_psutil_where_no_file_says_so(tmp_path):
    code = "import tests.helpers.other_system as other; other.imitate_macos()\n"
    code += "from utils.training.memory import available_memory; print(available_memory())"
    done = python("-c", code, cwd=tmp_path)
    assert (done.stdout, done.stderr) == (f"{8 * 2**30}\n", "")
