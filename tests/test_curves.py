"""What TensorBoard and history.csv say of a run, and where it is."""

import csv
import os
import re

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

from convert.export import export_checkpoint
from src.settings import SETTINGS
from src.tf1 import tf
from trainer import Trainer
from utils.checkpoints.run_index import new_run_folder


def test_tensorboard_reads_the_curves_the_graph_the_weights_and_the_settings(trainer):
    trainer.optimize(num_epoch=30)  # 120 steps
    events = EventAccumulator(trainer.run_folder)
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == [
        "best_val_acc",
        "images_per_second",
        "learning_rate",
        "train_acc",
        "train_loss",
        "val_acc",
        "val_loss",
    ]
    assert events.Tags()["graph"] is True
    assert events.Scalars("best_val_acc")[-1].value == pytest.approx(max(e["val_acc"] for e in trainer.history))
    assert [event.step for event in events.Scalars("train_loss")] == [100, 120]  # each 100 steps, and the rest
    assert [event.step for event in events.Scalars("val_acc")] == list(range(4, 121, 4))
    assert [event.value for event in events.Scalars("learning_rate")] == pytest.approx([0.01, 0.01])
    assert events.Scalars("val_acc")[-1].value == pytest.approx(trainer.val_acc)
    assert events.Scalars("val_loss")[-1].value == pytest.approx(trainer.val_loss, rel=1e-5)
    assert min(event.value for event in events.Scalars("images_per_second")) > 1
    assert events.Tags()["histograms"] == [f"weights/{name}" for name in ("conv1", "conv2", "fc1", "fc2", "fc3")]
    weights = np.concatenate([part.ravel() for part in trainer.session.run(["fc3/kernel:0", "fc3/bias:0"])])
    last = events.Histograms("weights/fc3")[-1]
    assert last.step == 120
    assert last.histogram_value.num == weights.size
    assert (last.histogram_value.min, last.histogram_value.max) == pytest.approx((weights.min(), weights.max()))
    (settings_event,) = events.Tensors("settings")
    text = tf.make_ndarray(settings_event.tensor_proto).item().decode()
    assert "| batch_size | 8 |" in text and "| lr | 0.01 |" in text


def test_tensorboard_s_plugins_read_their_data(trainer):
    """Custom Scalars: two charts with two curves each; HParams: the settings of the run."""
    trainer.optimize(1)
    events = EventAccumulator(trainer.run_folder)
    events.Reload()
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tf.make_ndarray(event.tensor_proto).item())
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert charts == {"loss": ["train_loss", "val_loss"], "accuracy": ["train_acc", "val_acc"]}
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = parse_session_start_info_plugin_data(content).hparams
    assert hparams["batch_size"].number_value == 8 and hparams["model_arch"].string_value == "lenet5"
    assert set(hparams) == set(SETTINGS)


def test_the_history_is_returned_and_in_a_file_that_grows_with_each_epoch(trainer, monkeypatch):
    save, lines = trainer.save, []

    def counting_save(monitor):
        save(monitor)
        with open(os.path.join(trainer.run_folder, "history.csv")) as file:
            lines.append(len(file.readlines()))

    monkeypatch.setattr(trainer, "save", counting_save)
    first, history = trainer.optimize(2), trainer.optimize(1)
    assert history == trainer.history and len(first) == 2 and lines == [2, 3, 4]
    with open(os.path.join(trainer.run_folder, "history.csv")) as file:
        rows = list(csv.DictReader(file))
    for entry, row in zip(history, rows):
        assert list(row) == ["epoch", "train_loss", "train_acc", "val_loss", "val_acc", "learning_rate", "seconds"]
        names = ["epoch", "loss", "acc", "val_loss", "val_acc", "learning_rate", "seconds"]
        assert [float(value) for value in row.values()] == pytest.approx([entry[name] for name in names], rel=1e-5)
    assert history[0]["learning_rate"] == pytest.approx(0.01) and history[0]["seconds"] > 0


@pytest.mark.parametrize("path, name", [
    ("flowers/train", "flowers"), ("/data/my photos/train/", "my_photos"), ("photos", "photos"), ("/", "data"),
])  # fmt: skip
def test_a_run_s_folder_has_the_name_of_its_data(in_tmp_path, path, name):
    assert re.fullmatch(r"logs/\d{8}-\d{6}-" + name, new_run_folder("logs", path, "checkpoints"))


def test_a_train_path_that_is_not_utf8(two_classes):
    path = two_classes.train_path + "\udcff"
    os.rename(two_classes.train_path, path)
    trainer = Trainer(**dict(vars(two_classes), train_path=path))
    trainer.optimize(1)
    assert export_checkpoint()[0] == trainer.export()


def test_curves_of_several_calls_are_all_kept(trainer):
    for _ in range(3):  # within a second
        trainer.optimize(num_epoch=1)
    events = EventAccumulator(trainer.run_folder)
    events.Reload()
    assert [event.step for event in events.Scalars("val_acc")] == [4, 8, 12]


def test_curves_are_on_disk_before_the_checkpoint(trainer, monkeypatch):
    def look(*arguments, **options):
        events = EventAccumulator(trainer.run_folder)
        events.Reload()
        assert [event.step for event in events.Scalars("val_acc")] == [4]
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.train_graph.saver, "save", look)
    with pytest.raises(KeyboardInterrupt):
        trainer.optimize(num_epoch=1)
