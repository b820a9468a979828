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
    in_environment = sys.prefix != sys.base_prefix
    path = os.path.realpath(sys.executable) if in_environment else sys.executable
    assert found.stdout == f"{version} {tensorflow} {path}\n"


@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="tests run in the virtual environment of make, or in conda")
def test_of_an_environment_the_python_that_it_was_made_with(tmp_path):
    """The environment cannot be made again with its own Python: that is deleted first."""
    (path,) = find(sys.executable, PATH="", HOME="/nowhere").stdout.split()[2:]
    assert not path.startswith(sys.prefix)
    prefix = subprocess.check_output([path, "-c", "import sys; print(sys.prefix)"], universal_newlines=True).strip()
    assert prefix == sys.base_prefix


VERSIONS = ["3.13", "3.12", "3.11", "3.7", "3.6"]


@pytest.mark.parametrize("active", VERSIONS)
@pytest.mark.parametrize("arguments", [[], [""]])
def test_the_active_python3_comes_first(fake, tmp_path, arguments, active):
    for version in VERSIONS:
        fake(f"python{version}", f"{version} x.y.z /here/python{version}")
    fake("python3", f"{active} x.y.z /here/python3")
    assert find(*arguments, PATH=str(tmp_path), HOME="/nowhere").stdout == f"{active} x.y.z /here/python3\n"


@pytest.mark.parametrize("first", range(len(VERSIONS)))
@pytest.mark.parametrize("python3", ["unfit 3.10", None])
def test_then_the_newest_that_fits_on_path_or_under_pyenv(fake, tmp_path, python3, first):
    if python3:
        fake("python3", python3)
    names = ["python{}", ".pyenv/versions/{}.4/bin/python"] * 3  # taking turns
    there = [(version, name.format(version)) for version, name in zip(VERSIONS, names)][first:]
    for version, name in there:
        fake(name, f"{version} x.y.z /here/{name}")
    version, name = there[0]
    assert find(PATH=str(tmp_path), HOME=str(tmp_path)).stdout == f"{version} x.y.z /here/{name}\n"


def test_behind_a_pyenv_shim_that_fails_stands_pyenv_s_own_folder(fake, tmp_path):
    fake("python3.6", "pyenv: python3.6: command not found", code=127)
    fake(".pyenv/versions/3.6.15/bin/python", "3.6 1.14.0 /there/python")
    fake("python3", "unfit 3.10")
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
