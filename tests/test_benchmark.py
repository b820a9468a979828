"""make bench in short: each contender measures once, a little; and the benchmark finds what it compares in that."""

import importlib.util
import json
import os

import pytest

from src.folders import class_folders
from tests.bench import benchmark, benchmark_cases
from tests.bench import images as images_to_measure
from tests.conftest import FIXTURES
from utils.images.image_folders import find_images

GRAPH = os.path.join(FIXTURES, "tensorflow-1.14", "lenet5.pb")
CONTENDERS = {
    "trainer": lambda folder: {"train_path": folder, "img_size": 16},
    "fixed_cost": lambda folder: {"train_path": folder, "img_size": 16},
    "bare": lambda folder: {"train_path": folder, "img_size": 16, "cache_mb": 0},
    "eager": lambda folder: {"train_path": folder, "model_arch": "lenet5"},
    "frozen": lambda folder: {"graph": GRAPH, "batches": [1, 32]},
    "predict": lambda folder: {"graph": GRAPH, "folder": folder},
    "loader": lambda folder: {"folder": folder, "img_size": 32, "cache_mb": 1},
    "find": lambda folder: {"folder": folder},
    "tf_data": lambda folder: {"folder": folder, "img_size": 32},
    "data_loader": lambda folder: {"folder": folder, "img_size": 32},
    "reader": lambda folder: {"folder": folder, "img_size": 32, "how": "draft"},
}
NEEDS_TORCH = ("eager", "data_loader")


class MeasuredError(Exception):
    """A contender has measured once."""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return images_to_measure.write_images(str(tmp_path_factory.mktemp("images") / "many"), 80)


@pytest.fixture(scope="module")
def results():
    """{contender: what it measured}, filled by the tests of each."""
    return {}


@pytest.mark.parametrize("name", CONTENDERS)
def test_a_contender_measures(images, in_tmp_path, monkeypatch, results, name):
    if name in NEEDS_TORCH and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    told = []

    def tell(**result):
        told.append(result)
        if len(told) == 2:  # after the first one, which only says that it is ready
            raise MeasuredError

    monkeypatch.setattr(benchmark_cases, "tell", tell)
    monkeypatch.setattr(benchmark_cases, "SECONDS", 0.01)
    with pytest.raises(MeasuredError):
        getattr(benchmark_cases, name)(**CONTENDERS[name](images))
    assert told[0] == {} and told[1] and all(value > 0 for value in told[1].values())
    results[name] = told[1]


def test_a_contender_in_a_process_of_its_own_takes_turns(images):
    contender = benchmark.Contender("loader", folder=images, img_size=32, cache_mb=0)
    (found,) = benchmark.take_turns([contender], rounds=2)
    assert found["images"].shape == (2,) and (found["images"] > 0).all() and (found["rss_mb"] > 1).all()


def test_an_archive_and_copies_hold_the_images(images, tmp_path):
    copies = images_to_measure.write_copies(images, str(tmp_path / "copies"), 1002)
    assert sorted(len(os.listdir(os.path.join(copies, name))) for name in os.listdir(copies)) == [2, 1000]
    for archive in ("a.zip", "a.tar"):
        packed = benchmark.pack(images, str(tmp_path / archive))
        assert len(find_images("test_path", packed, class_folders(packed)).paths) == 80


@pytest.mark.parametrize("quick", [True, False])
def test_the_benchmark_compares_what_contenders_measure(monkeypatch, capsys, tmp_path, results, quick):
    """With results of above in place of measurements."""
    if not set(CONTENDERS) - set(NEEDS_TORCH) <= set(results):
        pytest.skip("needs the results of all contenders above")
    asked = []

    class Recorded:
        def __init__(self, name, environment=None, **given):
            json.dumps(given)
            asked.append(name)
            self._name, self._given = name, given

        def round(self):
            result = dict(results[self._name], rss_mb=1.0)
            result.update((str(size), 1.0) for size in self._given.get("batches", []))
            return result

        def close(self):
            pass

    monkeypatch.setattr(benchmark, "Contender", Recorded)
    monkeypatch.setattr(benchmark, "HAS_TORCH", set(NEEDS_TORCH) <= set(results))
    for name in ("write_images", "write_photos", "write_copies", "pack"):
        monkeypatch.setattr(benchmark, name, lambda path, *_: path)
    monkeypatch.setattr(benchmark, "export", lambda model_arch, folder, work: GRAPH)
    monkeypatch.setattr(benchmark, "seconds_of", lambda command: 1.0)
    monkeypatch.chdir(str(tmp_path))  # the benchmark goes elsewhere
    benchmark.main(quick)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("lenet5, 32 px: epochs")]
    if not quick:
        assert set(asked) == set(results)
        assert [line for line in lines if line.startswith("loader, 224 px: from memory")]
