"""User errors are one line with fields; how a program ends, also if it cannot start."""

import os
import pickle
import re
import shutil
import signal
import subprocess
import sys

import pytest

from src.errors import ExitCode, InputError, OutOfMemoryError, did_you_mean
from tests.conftest import REPOSITORY
from utils.command_line import Parser


@pytest.mark.parametrize("error, line", [
    (InputError("setting lr", 0, "a number above 0"), "setting lr: found 0, expected a number above 0"),
    (InputError("setting lr", found=0), "setting lr: found 0"),
    (InputError("MODEL_ARCHS", expected="names"), "MODEL_ARCHS: expected names"),
    (InputError("unknown command trian", hint="did you mean train?"), "unknown command trian; did you mean train?"),
    (InputError("--top", "", "1 or more", "say 1"), "--top: found , expected 1 or more; say 1"),
    (InputError("folder a: cannot be read (Permission denied)"), "folder a: cannot be read (Permission denied)"),
    (OutOfMemoryError("image a.png", "little memory", "more"), "image a.png: found little memory, expected more"),
])  # fmt: skip
def test_an_error_is_one_line_of_its_fields(error, line):
    assert str(error) == line
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is type(error) and vars(other) == vars(error) and str(other) == line


def test_the_fields_can_be_asked_for():
    error = InputError("setting lr", found=0, expected="a number above 0", hint="try 0.01")
    assert (error.subject, error.found, error.expected, error.hint) == ("setting lr", 0, "a number above 0", "try 0.01")
    error = InputError("nothing is right")
    assert (error.subject, error.found, error.expected, error.hint) == ("nothing is right", None, None, "")


def test_the_nearest_name_is_a_hint():
    assert did_you_mean("trian", ["train", "check"]) == "did you mean train?"
    assert did_you_mean("epochs", ["num_epoch"], "--") == "did you mean --num_epoch?"
    assert did_you_mean("x", ["train"]) == ""


@pytest.mark.parametrize("words, subject, found, hint", [
    (["--epochs", "3"], "unknown argument --epochs", None, "did you mean --num_epoch?"),
    (["--qqq", "3"], "unknown argument --qqq", None, "run --help lists the options"),
    (["--num_epoch"], "argument --num_epoch: expected one argument", None, "run --help lists the options"),
    (["--num_epoch", "--seeed"], "argument --num_epoch", "--seeed",
     "one that begins with a dash is given as --num_epoch=--seeed; run --help lists the options"),
])  # fmt: skip
def test_what_is_wrong_with_a_command_line_has_fields(words, subject, found, hint):
    parser = Parser(prog="run")
    parser.add_settings(["num_epoch", "seed"])
    with pytest.raises(InputError) as caught:
        parser.parse(words)
    assert (caught.value.subject, caught.value.found, caught.value.hint) == (subject, found, hint)


def test_the_table_of_exit_codes_has_all_of_them():
    with open(os.path.join(REPOSITORY, "docs", "commands.md"), encoding="utf-8") as page:
        table = page.read().split("## Exit codes")[1].split("\n\n")[1]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == sorted(ExitCode)


@pytest.fixture
def bad_config(tmp_path):
    """A copy of the program, of which src/config.py cannot be used."""
    for name in ("src", "utils", "models", "convert"):
        shutil.copytree(os.path.join(REPOSITORY, name), str(tmp_path / name))
    for name in ("run.py", "trainer.py", "dataset.py"):
        shutil.copy(os.path.join(REPOSITORY, name), str(tmp_path))
    with open(str(tmp_path / "src" / "config.py"), "a") as config:
        config.write("lr = = 0.01\n")
    return tmp_path


def run_in(folder, *arguments, **options):
    """Run this Python in a folder that holds all that it imports."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=str(folder), universal_newlines=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, timeout=300, **options,
    )  # fmt: skip


@pytest.mark.parametrize("program", [["run.py"], ["run.py", "--help"], ["-m", "convert"], ["-m", "convert.pb2onnx"],
                                     ["-m", "convert.pb2savedmodel"], ["-m", "convert.pb2tflite"]])  # fmt: skip
def test_programs_say_in_one_line_that_the_config_cannot_be_used(bad_config, program):
    done = run_in(bad_config, *program)
    assert (done.returncode, done.stdout) == (ExitCode.BAD_INPUT, "")
    assert re.fullmatch(r"error: src/config.py, line \d+: invalid syntax.*\n", done.stderr)


@pytest.mark.parametrize("line", ["from trainer import Trainer", "import run", "from convert.pb2onnx import pb2onnx",
                                  "import src.errors"])  # fmt: skip
def test_a_program_of_the_users_own_gets_an_exception_instead(bad_config, line):
    """Before TensorFlow is imported, which takes seconds. Not caught, it is a traceback that ends in that line."""
    code = f"""
import sys
try:
    {line}
except Exception as error:
    from src.errors import InputError
    assert isinstance(error, InputError) and "tensorflow" not in sys.modules
    print(error)
"""
    done = run_in(bad_config, "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"src/config.py, line \d+: invalid syntax.*\n", done.stdout)
    done = run_in(bad_config, "-c", line)
    assert done.returncode == 1
    assert re.match(r"src.errors.InputError: src/config.py, line \d+: invalid syntax", done.stderr.splitlines()[-1])


INTERRUPT = """
import os, signal, time
os.kill(os.getpid(), signal.SIGINT)
time.sleep(60)
"""


@pytest.mark.parametrize("program, module", [
    (["run.py"], "shlex"), (["run.py"], "difflib"), (["run.py", "--help"], "argparse"), (["-m", "convert"], "argparse"),
])  # fmt: skip
def test_ctrl_c_while_a_program_is_imported_is_quiet(tmp_path, program, module):
    """It comes when that module of Python's own is imported: by run.py, by src, by src/settings.py."""
    (tmp_path / f"{module}.py").write_text(INTERRUPT)
    done = subprocess.run(
        [sys.executable, *program], cwd=REPOSITORY, env=dict(os.environ, PYTHONPATH=str(tmp_path)), timeout=60,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.INTERRUPTED, b"", b"")
