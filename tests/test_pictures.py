"""The pictures: the first batch, curves, confusion matrices and mistakes."""

import os

import cv2
import numpy as np
import pytest

from trainer import Trainer
from utils.images.plots import draw_confusion, draw_curves, draw_grid


@pytest.mark.parametrize("channel_order", ["bgr", "rgb"])
def test_the_first_batch_is_drawn_as_people_see_it(two_classes, channel_order):
    trainer = Trainer(**dict(vars(two_classes), channel_order=channel_order))
    images, _, ids, cls = trainer.data.train.next_batch(8)
    for image, name, class_name in zip(trainer.data.train.preprocess.to_rgb(images), ids, cls):
        path = f"{two_classes.train_path}/{class_name}/{name}"
        assert np.array_equal(image, cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB))
    trainer.optimize(1)
    assert os.path.exists(os.path.join(trainer.run_folder, "train_batch.png"))


def test_curves_are_drawn_after_an_interruption(two_classes, monkeypatch):
    trainer = Trainer(**vars(two_classes))
    save = trainer.save

    def interrupted(monitor):
        save(monitor)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.optimize(3)
    assert len(trainer.history) == 1
    assert os.path.exists(os.path.join(trainer.run_folder, "curves.png"))


@pytest.mark.parametrize("count", [2, 3, 10, 100])
def test_pictures_for_few_and_many_classes(tmp_path, count):
    random = np.random.RandomState(0)
    names = [f"a $rather$ long name of class {number}" for number in range(count)]
    path = str(tmp_path / "picture.png")
    draw_confusion(path, random.randint(0, 2000, (count, count)), names)
    height, width = cv2.imread(path).shape[:2]
    assert 400 < height < 2200 and 500 < width < 2200
    draw_grid(path, [random.randint(0, 256, (9, 5, 3)).astype(np.uint8)] * count, names, "some")
    assert cv2.imread(path).shape[1] < 1200
    history = [{"epoch": number, "loss": 1.0, "acc": 0.5, "val_loss": 1.0, "val_acc": 0.5} for number in range(count)]
    draw_curves(path, history, history[0])
    assert cv2.imread(path).shape[:2] > (300, 700)


def test_no_mistakes_are_a_picture_as_well(tmp_path):
    draw_grid(str(tmp_path / "none.png"), [], [], "no mistakes in 3 images")
    assert cv2.imread(str(tmp_path / "none.png")).shape[1] > 500
