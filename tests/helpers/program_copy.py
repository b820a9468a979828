"""A copy of the program, to be changed as CONTRIBUTING.md says."""

import os
import shutil
import subprocess
import sys

from tests.conftest import REPOSITORY


def copy_program(folder):
    for name in ("src", "models", "utils", "convert"):
        shutil.copytree(os.path.join(REPOSITORY, name), os.path.join(folder, name))
    for name in ("run.py", "trainer.py", "dataset.py"):
        shutil.copy(os.path.join(REPOSITORY, name), folder)


def run_copy(folder, *words):
    """Run run.py without PYTHONPATH, so that the copy is run and not the program itself; returns what it printed."""
    done = subprocess.run([sys.executable, "run.py", *words], cwd=folder, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()
