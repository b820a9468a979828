"""The Dockerfiles in docs/containers: that they copy all that the program needs, and what they promise."""

import glob
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

import run
from tests.conftest import REPOSITORY

DOCKERFILES = sorted(glob.glob(os.path.join(REPOSITORY, "docs", "containers", "*.Dockerfile")))


def steps(path):
    """[(word, what follows)] of each line that is not a comment."""
    with open(path, encoding="utf-8") as file:
        return [tuple(line.split(maxsplit=1)) for line in file.read().splitlines() if line and line[0] != "#"]


def named(path, word):
    return [rest for step, rest in steps(path) if step == word]


def test_there_is_one_for_each_tensorflow():
    with open(os.path.join(REPOSITORY, "requirements.txt"), encoding="utf-8") as file:
        versions = re.findall(r"^tensorflow(?:-gpu)?==(\d+\.\d+)", file.read(), re.MULTILINE)
    names = [os.path.basename(path) for path in DOCKERFILES]
    assert names == sorted(f"tensorflow-{version}.Dockerfile" for version in versions)


@pytest.mark.parametrize("path", DOCKERFILES)
def test_it_installs_the_pinned_packages_of_its_python(path):
    (version,) = re.findall(r"^python:(3\.\d+)-slim-bookworm$", named(path, "FROM")[0])
    assert (version in ("3.6", "3.7")) == ("1.14" in path)
    assert f"constraints/{version}.txt constraints/" in named(path, "COPY")
    (install,) = [rest for rest in named(path, "RUN") if "requirements.txt" in rest]
    assert install.endswith(f"-r requirements.txt -c constraints/{version}.txt")


@pytest.mark.parametrize("path", DOCKERFILES)
def test_it_runs_as_a_user_who_can_write_to_the_volumes_only(path):
    words = [word for word, _ in steps(path)]
    assert named(path, "USER") == ["classifier"] and words[-2:] == ["USER", "ENTRYPOINT"]
    (home,), (volumes,) = named(path, "WORKDIR"), named(path, "VOLUME")
    folders = [os.path.relpath(volume, home) for volume in json.loads(volumes)]
    assert folders == ["data", "checkpoints", "weights", "graphs"]
    assert f"mkdir {' '.join(folders)} && chown classifier {' '.join(folders)}" in named(path, "RUN")
    assert not any("chown" in rest for rest in named(path, "COPY"))


@pytest.mark.parametrize("path", DOCKERFILES)
def test_what_it_copies_is_the_whole_program(path, tmp_path):
    """Each command is imported there, where nothing else of this project can be found."""
    for copied in named(path, "COPY"):
        *sources, target = copied.split()
        for source in sources:
            folder = os.path.join(str(tmp_path), target)
            if os.path.isdir(os.path.join(REPOSITORY, source)):
                shutil.copytree(os.path.join(REPOSITORY, source), folder)
            else:
                os.makedirs(folder, exist_ok=True)
                shutil.copy(os.path.join(REPOSITORY, source), folder)
    modules = ["run", "convert.__main__", *(f"utils.commands.{name}" for name in run.COMMANDS)]
    for words in (["-c", f"import {', '.join(modules)}"], ["run.py", "--help"]):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [sys.executable, *words], cwd=str(tmp_path), env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, universal_newlines=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    (entrypoint,) = named(path, "ENTRYPOINT")
    assert json.loads(entrypoint) == ["python", "run.py"]
