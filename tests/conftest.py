import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, REPOSITORY)

from src.settings import settings  # noqa: E402
from utils.prepare_data import prepare_digits  # noqa: E402


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The path of the prepared digits."""
    path = str(tmp_path_factory.mktemp("data") / "digitspng")
    prepare_digits(path)
    return path


@pytest.fixture
def folders(tmp_path):
    """Make class folders of random images: folders({"cat": 3, "dog": 4}) -> path."""
    def make(counts, name="train", size=16):
        random = np.random.RandomState(1)
        for class_name, count in counts.items():
            folder = tmp_path / name / class_name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.randint(0, 256, (size, size, 3)).astype(np.uint8)
                cv2.imwrite(str(folder / ("%03d.png" % number)), pixels)
        return str(tmp_path / name)
    return make


@pytest.fixture
def in_tmp_path(tmp_path, monkeypatch):
    """Work in a folder of the test's own, so that the default folders are made there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def two_classes(folders, in_tmp_path):
    """Settings for a quick run on two classes of 20 images each, 16 px."""
    return settings(train_path=folders({"cat": 20, "dog": 20}), img_size=16, batch_size=8)


def python(*arguments, cwd=None, **options):
    """Run this Python in a process of its own, with the project importable; returns what came of it, as text."""
    environment = dict(os.environ, PYTHONPATH=REPOSITORY)
    return subprocess.run([sys.executable] + list(arguments), cwd=str(cwd), env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=300, **options)


def run_py(*arguments, cwd):
    return python(os.path.join(REPOSITORY, "run.py"), *arguments, cwd=cwd)
