"""Class folders in Chinese, in the locale C: they are read, or a line says what is the matter."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY, make_folders

# Python 3.7 and later take file names for UTF-8 in the locale C, unless these forbid it; 3.6 for ASCII.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
RUN = "import sys; from src import console; {}console.restart_in_utf8(); import run; sys.exit(run.main(sys.argv[1:]))\n"
OWN_PROGRAM = """
from src.errors import InputError
from src.settings import settings
try:
    print(ascii(settings(train_path="data").classes))
except InputError as error:
    print(ascii(str(error)))
"""
MESSAGE = (
    "locale: found ascii, which cannot decode the name of the folder 犬, expected one with UTF-8; set LC_ALL=C.UTF-8"
)


@pytest.fixture
def run_in_locale(tmp_path):
    """Run a program in a folder with the class folders 犬 and 猫, with no other variables than these."""
    make_folders(str(tmp_path / "made"), {"a": 4, "b": 5})
    data = os.path.join(os.fsencode(str(tmp_path)), b"data")
    os.mkdir(data)
    for name, made in zip("犬猫", "ab"):
        os.rename(str(tmp_path / "made" / made), os.path.join(data, name.encode()))

    def run_program(code, environment, *arguments):
        (tmp_path / "program.py").write_text(code)
        variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": REPOSITORY, **environment}
        return subprocess.run(
            [sys.executable, "program.py", *arguments], cwd=str(tmp_path), env=variables, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, timeout=100,
        )  # fmt: skip

    return run_program


@pytest.mark.parametrize("environment", [{}, ASCII])
def test_the_program_reads_them_in_any_locale(run_in_locale, environment):
    done = run_in_locale(RUN.format(""), environment, "check", "--train_path", "data", "--test_path", "none")
    assert (done.returncode, done.stderr) == (1, b"")  # the images are few
    assert "犬".encode() in done.stdout or b"\\u72ac" in done.stdout


def test_where_there_is_no_locale_with_utf_8_it_says_so(run_in_locale):
    code = RUN.format("console.UTF8_LOCALES = (); ")
    done = run_in_locale(code, ASCII, "check", "--train_path", "data")
    assert (done.returncode, done.stdout) == (2, b"")
    escaped = MESSAGE.encode("ascii", "backslashreplace")
    assert done.stderr == b"error: " + escaped + b" before Python starts\n"


def test_a_program_of_ones_own_gets_that_error(run_in_locale):
    done = run_in_locale(OWN_PROGRAM, ASCII)
    assert done.stdout.decode() == ascii(f"{MESSAGE} before Python starts") + "\n", done.stderr
    done = run_in_locale(OWN_PROGRAM, {"LC_ALL": "C.UTF-8"})
    assert done.stdout == b"['\\u72ac', '\\u732b']\n", done.stderr
