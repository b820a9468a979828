"""The misclassified images that evaluate logs, as TensorBoard reads them."""

import csv
import json
import os
import shutil
from collections import namedtuple

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from run import main
from src.errors import InputError
from src.tf1 import tf
from tests.conftest import preprocess, run_file, without_origin
from utils.images.image_folders import list_images
from utils.training.tensorboard import TensorBoardLogger, log_mistakes

Images = namedtuple("Images", "paths labels preprocess")  # as of a DataSet
NAMES = ["\u732b", "M\u00fcnchen <b>*x*</b>|", "\U0001f469\u200d\U0001f680 \u0645\u0631\u062d\u0628\u0627"]


@pytest.fixture
def work(trained, tmp_path, monkeypatch):
    """Work in a copy of the trained folder. Returns the folder of its run."""
    shutil.copytree(str(trained), str(tmp_path / "copy"))
    monkeypatch.chdir(str(tmp_path / "copy"))
    return os.path.dirname(run_file("history.csv", "graphs/lenet5"))


@pytest.fixture
def paths(folders):
    return list_images(folders({"cat": 12}))[0]


def read_log(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def logged(folder):
    """{tag: [(step, image)]}."""
    events, found = read_log(folder), {}
    for tag in events.Tags()["images"]:
        for event in events.Images(tag):
            image = cv2.imdecode(np.frombuffer(event.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
            assert image.shape == (event.height, event.width, 3)
            found.setdefault(tag, []).append((event.step, image))
    return found


def log_all(folder, paths, checkpoint="checkpoints/lenet5/run/lenet5-7", true=0, predicted=1):
    """Log images of a class as taken for another."""
    probabilities = np.zeros((len(paths), len(NAMES)))
    probabilities[:, predicted] = 1
    data = Images(paths, [true] * len(paths), preprocess(32))
    log_mistakes(str(folder), checkpoint, range(len(paths)), data, probabilities, NAMES)


def test_they_are_the_most_confident_wrong_predictions(work):
    assert main(["evaluate"]) == 0
    with open(os.path.join(work, "predictions.csv")) as file:
        wrong = [row for row in csv.DictReader(file) if row["true"] != row["predicted"]]
    wrong.sort(key=lambda row: -float(row["probability"]))
    with open("weights/lenet5/lenet5.json") as file:
        step = int(json.load(file)["run"]["checkpoint"].split("-")[-1])
    found = logged(work)
    assert len(found) == min(10, len(wrong)) and len(wrong) > 1
    for number, row in enumerate(wrong[:10], 1):
        ((at, image),) = found[f"Mistakes/{number}: is {row['true']}, predicted {row['predicted']}"]
        assert at == step
        np.testing.assert_array_equal(image, cv2.imread(row["image"]))
    assert len(read_log(work).Scalars("val_acc")) == 5  # the curves are still there


def test_there_are_ten_of_any_name_also_where_there_is_no_log(tmp_path, paths):
    (tmp_path / "empty").mkdir()
    log_all(tmp_path / "empty", paths, None, true=1, predicted=2)
    found = logged(tmp_path / "empty")
    assert sorted(found) == sorted(f"Mistakes/{number}: is {NAMES[1]}, predicted {NAMES[2]}" for number in range(1, 11))
    ((step, image),) = found[f"Mistakes/10: is {NAMES[1]}, predicted {NAMES[2]}"]
    assert step == 0
    np.testing.assert_array_equal(image, cv2.imread(paths[9]))


def test_those_of_an_earlier_evaluation_are_replaced_and_nothing_else(tmp_path, paths):
    folder = tmp_path / "run"
    folder.mkdir()
    logger = TensorBoardLogger(str(folder), first_step=1)
    logger.scalars(4, {"val_acc": 0.5})
    logger.close()
    (folder / "notes.mistakes").write_text("mine")
    log_all(folder, paths[:3], true=0, predicted=1)
    log_all(folder, paths[:2], true=1, predicted=0)
    assert sorted(logged(folder)) == [f"Mistakes/{number}: is {NAMES[1]}, predicted {NAMES[0]}" for number in (1, 2)]
    assert [event.value for event in read_log(folder).Scalars("val_acc")] == [0.5]
    assert len(os.listdir(str(folder))) == 3 and (folder / "notes.mistakes").read_text() == "mine"
    log_all(folder, [])
    assert logged(folder) == {}


def test_they_stay_when_the_run_is_resumed(tmp_path, paths):
    log_all(tmp_path, paths[:1], "lenet5-7")
    logger = TensorBoardLogger(str(tmp_path), first_step=8)
    logger.scalars(8, {"val_acc": 0.5})
    logger.close()
    assert len(logged(tmp_path)) == 1 and len(read_log(tmp_path).Scalars("val_acc")) == 1


@pytest.mark.parametrize("size, logged_size", [((600, 1500), (205, 512)), ((1, 5000), (1, 512)), ((512, 9), (512, 9))])
def test_large_images_are_downscaled(tmp_path, size, logged_size):
    cv2.imwrite(str(tmp_path / "image.png"), np.full(size + (3,), (10, 20, 30), np.uint8))
    log_all(tmp_path, [str(tmp_path / "image.png")])
    ((_, image),) = logged(tmp_path)[f"Mistakes/1: is {NAMES[0]}, predicted {NAMES[1]}"]
    assert image.shape[:2] == logged_size and (image == (10, 20, 30)).all()


@pytest.mark.parametrize(
    "checkpoint, step", [("a/lenet5-12", 12), ("lenet5", 0), ("lenet5-" + "9" * 400, 0), ("a-3/b", 0), (None, 0)]
)
def test_their_step_is_that_of_the_checkpoint_if_its_name_ends_in_one(tmp_path, paths, checkpoint, step):
    log_all(tmp_path, paths[:1], checkpoint)
    assert [at for ((at, _),) in logged(tmp_path).values()] == [step]


@pytest.mark.parametrize("error", [
    tf.errors.ResourceExhaustedError(None, None, "No space left on device"), OSError(28, "No space left on device"),
])  # fmt: skip
def test_a_log_that_cannot_be_written_is_one_line(work, monkeypatch, capfd, error):
    def full_disk(*arguments):
        raise error

    before = sorted(os.listdir(work))
    monkeypatch.setattr(TensorBoardLogger, "image", full_disk)
    assert main(["evaluate"]) == 2
    printed = capfd.readouterr().err
    assert (
        without_origin(printed)
        == f"error: folder {work}: the mistakes cannot be logged there (No space left on device)\n"
    )
    assert [name for name in sorted(os.listdir(work)) if "tfevents" in name] == [
        name for name in before if "tfevents" in name
    ]


def test_an_image_that_is_gone_is_one_line(tmp_path):
    with pytest.raises(InputError, match="^image gone.png: cannot be read"):
        log_all(tmp_path, ["gone.png"])
