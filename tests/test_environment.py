"""Nonsense in the environment is said in one line that names the variable, or is without effect."""

import os
import pty
import subprocess
import sys

import cv2
import numpy as np
import pytest

from src.environment import WHOLE_NUMBERS, check_environment
from src.errors import InputError
from tests.conftest import FIXTURES, REPOSITORY, make_folders

RUN = os.path.join(REPOSITORY, "run.py")
WITHOUT_EFFECT = (
    "TQDM_MININTERVAL", "TQDM_MINITERS", "TQDM_NCOLS", "TQDM_ASCII", "TQDM_DELAY", "TQDM_GUI", "TQDM_POSITION",
    "TQDM_SMOOTHING", "TQDM_UNIT_DIVISOR", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "KMP_BLOCKTIME",
    "CUDA_VISIBLE_DEVICES", "TF_ENABLE_ONEDNN_OPTS", "TF_USE_LEGACY_KERAS", "TF_FORCE_GPU_ALLOW_GROWTH",
    "OPENCV_LOG_LEVEL", "COLUMNS", "LINES", "TZ", "LANG", "LC_ALL",
)  # fmt: skip
GRAPH = os.path.join(FIXTURES, "tensorflow-1.14", "lenet5.pb")


def run_with(folder, variables, *words, **options):
    """Run a command of run.py with these variables set; returns what came of it, as bytes."""
    return subprocess.run(
        [sys.executable, RUN, *words], cwd=str(folder), env=dict(os.environ, **variables), stdout=subprocess.PIPE,
        timeout=300, **dict({"stderr": subprocess.PIPE}, **options),
    )  # fmt: skip


@pytest.mark.parametrize("name", sorted(WHOLE_NUMBERS))
@pytest.mark.parametrize("value", ["nonsense", "-1", "1e5", "9" * 30, "0x10", " ", "²", "1\n2", "\udcff"])
def test_nonsense_for_a_number_that_a_library_reads_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError) as raised:
        check_environment()
    error = raised.value
    assert (error.subject, error.found) == (f"environment variable {name}", repr(value))
    assert error.expected.startswith("a whole number") and "\n" not in str(error)


@pytest.mark.parametrize("name", sorted(WHOLE_NUMBERS))
def test_numbers_that_libraries_understand_are_left_to_them(monkeypatch, name):
    for value in ("1", "3"):
        monkeypatch.setenv(name, value)
        check_environment()
        assert os.environ[name] == value
    monkeypatch.setenv(name, "")
    check_environment()
    assert name not in os.environ  # OpenCV ends a process that has it empty


@pytest.mark.parametrize("name, value", [("OPENCV_IO_MAX_IMAGE_PIXELS", "x"), ("TF_NUM_INTRAOP_THREADS", "-3")])
def test_any_command_says_it_in_a_line(tmp_path, name, value):
    done = run_with(tmp_path, {name: value}, "runs")
    assert (done.returncode, done.stdout) == (2, b"") and done.stderr.count(b"\n") == 1
    assert done.stderr.startswith(f"error: environment variable {name}: found '{value}', expected a".encode())


@pytest.mark.parametrize("name, value", [
    ("MPLBACKEND", "nonsense"), ("MATPLOTLIBRC", "not_utf8"), ("MATPLOTLIBRC", "latex"),
])  # fmt: skip
def test_pictures_that_matplotlib_cannot_draw_with_it_are_said_in_a_line(tmp_path, name, value):
    train = make_folders(str(tmp_path / "train"), {"cat": 3, "dog": 3})
    (tmp_path / "not_utf8").write_bytes(b"font.size: \xff\xfe\n")
    (tmp_path / "latex").write_text("text.usetex: True\n")
    words = ["check", "--train_path", train, "--test_path", train]
    done = run_with(tmp_path, {name: value, "PATH": "/nowhere"}, *words)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1, done.stderr
    assert done.stderr.startswith((f"error: {name}={value}: Matplotlib cannot".encode(), b"error: file samples.png: "))


def test_nonsense_in_all_the_others_is_without_effect(tmp_path):
    """With a terminal for the progress bar, which tqdm would draw as the variables say."""
    os.mkdir(str(tmp_path / "images"))
    for number in range(3):
        pixels = np.random.RandomState(number).randint(0, 256, (16, 16, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), pixels)
    nonsense = dict.fromkeys(WITHOUT_EFFECT, "nonsense")
    nonsense.update(TQDM_BAR_FORMAT="{nonsense}")
    terminal, end = pty.openpty()
    outputs = []
    try:
        for variables in ({}, nonsense):
            done = run_with(tmp_path, variables, "predict", "images", "--weights", GRAPH, "--json", stderr=end)
            assert done.returncode == 0, os.read(terminal, 10000)
            outputs.append(done.stdout)
    finally:
        os.close(terminal)
        os.close(end)
    assert outputs[0] == outputs[1] and outputs[0].count(b"\n") == 3


def test_in_the_c_locale_names_of_files_need_not_be_ascii(tmp_path):
    """Python 3.6 takes them for ASCII there, so that it could neither find nor write them."""
    folder = os.path.join(os.fsencode(str(tmp_path)), "Häuser".encode())
    for name in ("Hütte", "Schloß"):
        os.makedirs(os.path.join(folder, name.encode()))
        for number in range(2):
            pixels = np.random.RandomState(number + len(name)).randint(0, 256, (16, 16, 3)).astype(np.uint8)
            with open(os.path.join(folder, name.encode(), f"Bild-ä{number}.png".encode()), "wb") as file:
                file.write(cv2.imencode(".png", pixels)[1].tobytes())
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    for words in (
        ["check", "--train_path", "Häuser", "--test_path", "Häuser", "--output", "übersicht.png"],
        ["check", "--train_path", "Häuser", "--test_path", "Häuser", "--classes", '["H\\u00fctte", "Schlo\\u00df"]'],
    ):
        done = subprocess.run(
            [sys.executable.encode(), RUN.encode(), *[word.encode() for word in words]], cwd=os.fsencode(str(tmp_path)),
            env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (1, b"")  # each image is in both sets
        assert "Hütte".encode() in done.stdout or b"H\\xfctte" in done.stdout
    assert "übersicht.png".encode() in os.listdir(os.fsencode(str(tmp_path)))
