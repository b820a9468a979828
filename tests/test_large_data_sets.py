"""What must not grow with the number of images, or only a little; tests/bench/benchmark.py measures a million."""

import os
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from dataset import read_train_sets
from src.settings import settings
from utils.commands.check import inspect_all
from utils.images.loader import THREADS, map_images


@pytest.fixture
def many(folders, tmp_path):
    """2,000 images in four classes, all of them links to one of each class."""
    path = folders(dict.fromkeys("abcd", 1), size=300)
    for name in "abcd":
        for number in range(1, 500):
            os.link(os.path.join(path, name, "000.png"), os.path.join(path, name, f"{number:03d}.png"))
    return path


def test_files_are_found_without_asking_the_disk_about_each(many, monkeypatch):
    """On a network drive, such a question takes a millisecond: a million of them, a quarter of an hour."""
    asked, stat = [], os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: asked.append(path) or stat(path, **options))
    data = read_train_sets(settings(train_path=many, img_size=16))
    assert data.train.num_examples + data.valid.num_examples == 2000
    assert 0 < len(asked) < 60


def test_few_results_wait_at_a_time(monkeypatch):
    """A million of them, submitted at once, took two gigabytes."""
    lock, waiting, most = threading.Lock(), [0], [0]
    submit = ThreadPoolExecutor.submit

    def counted(pool, function, *arguments):
        with lock:
            waiting[0] += 1
            most[0] = max(most[0], waiting[0])

        def call(*given):
            try:
                return function(*given)
            finally:
                with lock:
                    waiting[0] -= 1

        return submit(pool, call, *arguments)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", counted)
    numbers = list(range(2000))
    assert map_images(lambda number: 2 * number, numbers, "double") == [2 * number for number in numbers]
    assert 0 < most[0] <= 2 * THREADS + 1


def test_what_check_keeps_of_an_image_is_small(many):
    paths = [entry.path for name in "abcd" for entry in os.scandir(os.path.join(many, name))]
    inspect_all(paths[:8], "train_path")  # what is allocated once
    tracemalloc.start()
    try:
        findings = inspect_all(paths, "train_path")
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(findings) == 2000 and len({finding.checksum for finding in findings}) == 4
    assert kept / 2000 < 400  # bytes
