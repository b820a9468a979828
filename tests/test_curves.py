"""What TensorBoard and history.csv say of a run, and where it is."""

import csv
import os
import re

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.metadata import parse_experiment_plugin_data, parse_session_start_info_plugin_data

from convert.export import export_checkpoint
from src.settings import settings
from src.tf1 import tf
from trainer import Trainer
from utils.checkpoints.run_index import new_run_folder
from utils.training.tensorboard import TensorBoardLogger


def test_tensorboard_reads_the_curves_the_graph_the_weights_and_the_settings(trainer):
    trainer.optimize(num_epoch=30)  # 120 steps
    events = EventAccumulator(trainer.run_folder)
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == [
        "Accuracy/training",
        "Accuracy/validation",
        "Loss/training",
        "Loss/validation",
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


def test_accuracy_and_loss_come_first_and_also_have_the_tags_of_earlier_versions(trainer):
    """TensorBoard sorts tags as Python does, but for numbers, and opens the first two groups (1.14: three)."""
    trainer.optimize(num_epoch=2)
    events = EventAccumulator(trainer.run_folder)
    events.Reload()
    tags = sorted(events.Tags()["scalars"] + events.Tags()["histograms"])
    assert [tag.split("/")[0] for tag in tags[:5]] == ["Accuracy", "Accuracy", "Loss", "Loss", "best_val_acc"]
    for tag, earlier in (
        ("Accuracy/training", "train_acc"),
        ("Accuracy/validation", "val_acc"),
        ("Loss/training", "train_loss"),
        ("Loss/validation", "val_loss"),
    ):
        points = [(event.step, event.value) for event in events.Scalars(tag)]
        assert points and points == [(event.step, event.value) for event in events.Scalars(earlier)]


def test_a_resumed_run_of_an_earlier_version_continues_its_curves(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "events.out.tfevents.1.host.step000000001")) as file:
        file.write(tf.Event(file_version="brain.Event:2").SerializeToString())
        for step in (4, 8, 12):
            summary = tf.Summary(value=[tf.Summary.Value(tag="val_loss", simple_value=1 / step)])
            file.write(tf.Event(step=step, summary=summary).SerializeToString())
    logger = TensorBoardLogger(str(tmp_path), first_step=9)
    logger.scalars(12, {"val_loss": 0.5})
    logger.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("val_loss")] == [(4, 0.25), (8, 0.125), (12, 0.5)]
    assert [(event.step, event.value) for event in events.Scalars("Loss/validation")] == [(12, 0.5)]


def test_custom_scalars_has_two_charts_with_two_curves_each(trainer):
    trainer.optimize(1)
    events = EventAccumulator(trainer.run_folder)
    events.Reload()
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tf.make_ndarray(event.tensor_proto).item())
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert charts == {"loss": ["train_loss", "val_loss"], "accuracy": ["train_acc", "val_acc"]}


def hparams_of(folder):
    """(the declared columns, the values of a run) as HParams reads them, and the EventAccumulator."""
    events = EventAccumulator(folder)
    events.Reload()
    experiment = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    values = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    return parse_experiment_plugin_data(experiment), parse_session_start_info_plugin_data(values).hparams, events


def test_hparams_compares_runs_by_what_changes_learning_and_by_three_metrics(trainer):
    trainer.optimize(2)
    experiment, values, events = hparams_of(trainer.run_folder)
    names = [column.name for column in experiment.hparam_infos]
    assert set(names) == set(values) and len(names) == len(values)
    first = {"lr", "batch_size", "augment", "weight_decay", "img_size"}  # those that it shows
    assert set(names[:5]) == first
    if hasattr(experiment.hparam_infos[0], "differs"):  # TensorBoard 2, which sorts by it
        assert {column.name for column in experiment.hparam_infos if column.differs} == first
    assert {"classes", "seed", "pretrained", "validation_size"} < set(names)
    assert not [name for name in names if name.endswith(("_path", "_dir"))]
    assert not set(names) & {"cache_mb", "device", "keep_runs", "checkpoint_minutes", "step_timeout", "num_epoch"}
    assert values["batch_size"].number_value == 8 and values["model_arch"].string_value == "lenet5"
    metrics = [metric.name.tag for metric in experiment.metric_infos]
    assert metrics == ["val_acc", "val_loss", "best_val_acc"]
    last = trainer.history[-1]
    best = max(entry["val_acc"] for entry in trainer.history)
    assert [events.Scalars(tag)[-1].value for tag in metrics] == pytest.approx(
        [last["val_acc"], last["val_loss"], best], rel=1e-5
    )


def test_class_names_are_in_their_own_letters(folders, in_tmp_path):
    """Also one that Python's repr escapes: a joiner of emoji."""
    names = ["M\u00fcnchen", "\u732b", "\U0001f469\u200d\U0001f680"]
    path = folders(dict.fromkeys(names, 10))
    trainer = Trainer(**vars(settings(train_path=path, img_size=16, batch_size=8)))
    trainer.optimize(1)
    experiment, values, events = hparams_of(trainer.run_folder)
    text = tf.make_ndarray(events.Tensors("settings")[0].tensor_proto).item().decode("utf-8")
    for found in (text, values["classes"].string_value):
        assert '["{}", "{}", "{}"]'.format(*names) in found
    (column,) = [column for column in experiment.hparam_infos if column.name == "classes"]
    assert not column.HasField("domain_discrete")  # in which TensorBoard writes escapes


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
