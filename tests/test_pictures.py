"""The pictures: the first batch, curves, confusion matrices and mistakes."""

import os

import cv2
import numpy as np
import pytest

from trainer import Trainer
from utils.images.plots import draw_confusion, draw_curves, draw_grid, draw_precision_recall
from utils.inference.evaluation import PrecisionRecall


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


@pytest.mark.parametrize("count", [2, 3, 10, 300])
def test_pictures_for_few_and_many_classes(tmp_path, count):
    random = np.random.RandomState(0)
    names = [f"a $rather$ long name of class {number}" for number in range(count)]
    path = str(tmp_path / "picture.png")
    matrix = random.randint(0, 2000, (count, count))
    draw_confusion(path, matrix, names, matrix.sum(axis=1))
    height, width = cv2.imread(path).shape[:2]
    assert 200 < height < 2200 and 300 < width < 2200
    tiles = min(count, 50)  # each takes a tenth of a second with old matplotlib
    draw_grid(path, [random.randint(0, 256, (9, 5, 3)).astype(np.uint8)] * tiles, names[:tiles], "some")
    assert cv2.imread(path).shape[1] < 1200
    history = [{"epoch": number, "loss": 1.0, "acc": 0.5, "val_loss": 1.0, "val_acc": 0.5} for number in range(count)]
    draw_curves(path, history, history[0])
    assert cv2.imread(path).shape[:2] > (300, 700)


def test_no_mistakes_are_a_picture_as_well(tmp_path):
    draw_grid(str(tmp_path / "none.png"), [], [], "no mistakes in 3 images")
    assert cv2.imread(str(tmp_path / "none.png")).shape[1] > 500


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would be saved."""
    figures = []
    monkeypatch.setattr("utils.images.plots.save", lambda figure, path: figures.append(figure))
    return figures


def boxes_of(texts):
    """(left, right, bottom, top) of each text in pixels: float64 [n, 4]."""
    renderer = texts[0].figure.canvas.get_renderer()
    return np.array([text.get_window_extent(renderer).get_points().T.ravel() for text in texts])


@pytest.mark.parametrize("count", [2, 26, 100, 300])
def test_names_at_a_confusion_matrix_do_not_overlap(drawn, count):
    names = [f"long name of class {number}" for number in range(count)]
    draw_confusion("confusion.png", np.eye(count, dtype=int), names, np.ones(count, int))
    axes = drawn[0].axes[0]
    left, right, _, _ = boxes_of(axes.get_xticklabels()).T
    assert (left[1:] >= right[:-1]).all()
    _, _, bottom, top = boxes_of(axes.get_yticklabels()).T
    assert (bottom[:-1] >= top[1:]).all()
    assert axes.get_yticklabels()[0].get_text() == "long name of class 0" and len(bottom) >= count / 2


@pytest.mark.parametrize("count, largest, shown", [
    (2, 0, 4), (10, 999, 100), (25, 12345, 625), (40, 999, 40), (100, 99, 100), (100, 9999, 0), (300, 1, 0),
])  # fmt: skip
def test_counts_in_a_confusion_matrix_are_written_where_they_fit(drawn, count, largest, shown):
    draw_confusion("confusion.png", np.eye(count, dtype=int) * largest, ["x"] * count, np.full(count, largest))
    axes = drawn[0].axes[0]
    assert len(axes.texts) == shown
    if shown:
        left, right, _, _ = boxes_of(axes.texts).T
        assert (right - left).max() < axes.get_window_extent().width / count


def test_the_colour_in_a_confusion_matrix_is_the_share_of_all_images_of_the_class(drawn):
    draw_confusion("confusion.png", np.array([[3, 1], [0, 5]]), ["a", "b"], np.array([8, 5]), "some; ")
    axes = drawn[0].axes[0]
    assert axes.images[0].get_array().tolist() == [[3 / 8, 1 / 8], [0, 1]]
    assert axes.get_title(loc="right") == "some; colour: share of the true class"


def test_curves_of_precision_and_recall_are_named_with_their_average_precision(drawn):
    curves = [PrecisionRecall("$cat", 0.75, [0.5, 1, 1], [1, 0.5, 0]), PrecisionRecall("dog", 1.0, [1, 1], [1, 0])]
    draw_precision_recall("precision_recall.png", curves, "heading")
    axes = drawn[0].axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 0.5], [0.5, 1], [0, 1]], [[1, 1], [0, 1]]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["\\$cat: 0.750", "dog: 1.000"]
