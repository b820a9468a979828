import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

SCRIPT = os.path.join(REPOSITORY, ".ci", "find_python.sh")


def find(*arguments, **environment):
    return subprocess.run(
        ["/bin/sh", SCRIPT] + list(arguments), env=environment, stdout=subprocess.PIPE, universal_newlines=True
    )


@pytest.fixture
def fake(tmp_path):
    """Put a program on PATH that passes for a Python of that version: fake("python3.7", "3.7 1.14.0 ...")."""

    def make(name, answer, code=0):
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\necho '{answer}'\nexit {code}\n")
        program.chmod(0o755)
        return str(program)

    return make


def test_this_python_is_found_and_its_tensorflow_is_named():
    version = "{}.{}".format(*sys.version_info)
    found = find(sys.executable, PATH="", HOME="/nowhere")
    tensorflow = "1.14.0" if sys.version_info < (3, 8) else "2.21.0"
    assert found.stdout == f"{version} {tensorflow} {sys.executable}\n"


def test_a_python_for_tensorflow_1_is_preferred(fake, tmp_path):
    fake("python3.7", "3.7 1.14.0 /here/python3.7")
    fake("python3", "3.12 2.21.0 /here/python3")
    assert find(PATH=str(tmp_path), HOME="/nowhere").stdout == "3.7 1.14.0 /here/python3.7\n"
    assert find("python3", PATH=str(tmp_path), HOME="/nowhere").stdout == "3.12 2.21.0 /here/python3\n"


def test_otherwise_python3(fake, tmp_path):
    fake("python3", "3.12 2.21.0 /here/python3")
    assert find(PATH=str(tmp_path), HOME="/nowhere").stdout == "3.12 2.21.0 /here/python3\n"
    assert find("", PATH=str(tmp_path), HOME="/nowhere").stdout == "3.12 2.21.0 /here/python3\n"


def test_behind_a_pyenv_shim_that_fails_stands_pyenv_s_own_folder(fake, tmp_path):
    fake("python3.6", "pyenv: python3.6: command not found", code=127)
    fake(".pyenv/versions/3.6.15/bin/python", "3.6 1.14.0 /there/python")
    fake("python3", "3.12 2.21.0 /here/python3")
    for arguments in ([], ["python3.6"]):
        assert find(*arguments, PATH=str(tmp_path), HOME=str(tmp_path)).stdout == "3.6 1.14.0 /there/python\n"


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["python3.10"], "error: found PYTHON=python3.10, which is Python 3.10; install Python 3.11"),
        (["/no such/python"], "error: found PYTHON=/no such/python, which does not run; install"),
        ([], "error: found no Python that fits on PATH or under pyenv; install Python 3.11"),
    ],
)
def test_no_python_that_fits(fake, tmp_path, arguments, expected):
    fake("python3.10", "unfit 3.10")
    found = find(*arguments, PATH=str(tmp_path), HOME="/nowhere")
    assert found.returncode == 2
    assert found.stdout.startswith(expected) and found.stdout.count("\n") == 1
