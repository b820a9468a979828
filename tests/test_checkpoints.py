"""Which checkpoints a run keeps, which it exports, and what comes of damaged ones."""

import glob
import json
import os
import shutil

import numpy as np
import pytest

from convert.export import export_checkpoint
from src.errors import InputError
from src.tf1 import tf
from tests.conftest import load_graph, make_folders, run_file, working_in
from trainer import Trainer
from utils.checkpoints.manager import assign
from utils.checkpoints.run_index import find_run

QUICK = {"img_size": 16, "batch_size": 8}


@pytest.mark.parametrize("error", [tf.errors.ResourceExhaustedError(None, None, "No space left"), OSError(28, "full")])
def test_a_full_disk_leaves_the_earlier_checkpoint_to_export(trainer, monkeypatch, error):
    def full_disk(*arguments, **options):
        raise error

    trainer.optimize(num_epoch=1)
    monkeypatch.setattr(trainer.train_graph.saver, "save", full_disk)
    with pytest.raises(InputError, match="checkpoint_dir: found checkpoints/.*, which can no longer be written to"):
        trainer.optimize(num_epoch=1)
    assert find_run("checkpoints/lenet5").latest().endswith("/lenet5-4")


@pytest.fixture(scope="module")
def done_once(tmp_path_factory):
    """A folder in which one epoch was done."""
    folder = tmp_path_factory.mktemp("done_once")
    with working_in(folder):
        Trainer(train_path=make_folders("train", {"cat": 20, "dog": 20}), **QUICK).optimize(1)
    return folder


@pytest.fixture
def one_epoch(done_once, tmp_path, monkeypatch):
    """Work in a copy of it."""
    shutil.copytree(str(done_once), str(tmp_path / "work"))
    monkeypatch.chdir(str(tmp_path / "work"))


@pytest.mark.parametrize("name", ["lenet5-4.index", "lenet5-4.data-00000-of-00001", "run.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\x00damaged", None])
def test_damaged_checkpoints(one_epoch, name, content):
    path = run_file(name)
    os.remove(path)
    if content is not None:
        with open(path, "wb") as file:
            file.write(content)
    for action in (export_checkpoint, lambda: Trainer(resume=True)):
        with pytest.raises(InputError, match="checkpoint"):
            action()
    Trainer(train_path="train", **QUICK).optimize(1)
    assert export_checkpoint()[0] == "weights/lenet5/lenet5.pb"


@pytest.mark.parametrize("content", [b"", b"\xff\x00damaged", None])
def test_tensorflow_s_list_of_checkpoints_is_not_needed(one_epoch, content):
    os.remove("checkpoints/lenet5/checkpoint")
    if content is not None:
        with open("checkpoints/lenet5/checkpoint", "wb") as file:
            file.write(content)
    assert export_checkpoint()[0] == "weights/lenet5/lenet5.pb"
    assert Trainer(resume=True).step == 4


def steps_kept(trainer):
    return sorted(int(path[:-6].split("-")[-1]) for path in glob.glob(f"{trainer.checkpoints.folder}/*.index"))


def script(monkeypatch, trainer, results):
    """Let validation find these (loss, accuracy), one after another."""
    results = iter(results)
    monkeypatch.setattr(trainer, "evaluate", lambda data: next(results))


def test_the_last_ten_checkpoints_of_a_run_are_kept(two_classes, monkeypatch):
    trainer = Trainer(**vars(two_classes))
    script(monkeypatch, trainer, [(1.0, epoch / 20) for epoch in range(12)])  # the last is the best
    trainer.optimize(num_epoch=12)
    kept = list(range(12, 49, 4))
    assert steps_kept(trainer) == kept
    second = Trainer(**dict(vars(two_classes), batch_size=5))
    script(monkeypatch, second, [(1.0, 0.1), (1.0, 0.2)])
    second.optimize(num_epoch=2)  # 6 steps an epoch
    assert steps_kept(second) == [6, 12] and steps_kept(trainer) == kept
    assert tf.train.latest_checkpoint("checkpoints/lenet5").endswith("lenet5-12")


def test_the_best_checkpoint_is_kept_beside_the_last_ten_and_exported(two_classes, monkeypatch):
    trainer = Trainer(**vars(two_classes))
    at_step, save = {}, trainer.save

    def noting_save(monitor):
        save(monitor)
        at_step[trainer.step] = trainer.session.run("fc3/kernel:0")

    monkeypatch.setattr(trainer, "save", noting_save)
    accuracies = [0.5, 0.7, 0.6, 0.7] + 10 * [0.4]
    script(monkeypatch, trainer, zip([1.0, 0.9, 1.0, 0.8] + 10 * [1.0], accuracies))
    trainer.optimize(num_epoch=14)
    assert steps_kept(trainer) == [16] + list(range(20, 57, 4))  # 16: .7 as at step 8, but with less loss
    assert export_checkpoint()[0] == trainer.export() == "weights/lenet5/lenet5.pb"
    assert export_checkpoint()[1]["checkpoint"].endswith("/lenet5-16")
    for export, step, val_acc in (
        (trainer.export, 16, 0.7),
        (export_checkpoint, 16, 0.7),
        (lambda: trainer.export(last=True), 56, 0.4),
        (lambda: export_checkpoint(last=True), 56, 0.4),
    ):
        export()
        exported = constants("weights/lenet5/lenet5.pb")["fc3/kernel/read"]
        assert np.array_equal(exported, at_step[step]) and not np.array_equal(exported, at_step[72 - step])
        with open("weights/lenet5/lenet5.json") as file:
            assert json.load(file)["val_acc"] == val_acc


def test_of_equally_good_epochs_the_first_is_the_best(two_classes, monkeypatch):
    trainer = Trainer(**vars(two_classes))
    script(monkeypatch, trainer, 3 * [(1.0, 0.5)])
    trainer.optimize(num_epoch=3)
    assert export_checkpoint()[1]["checkpoint"].endswith("/lenet5-4")


def test_export_takes_the_best_of_the_newest_run_only(two_classes, monkeypatch):
    for accuracies in ((0.9, 0.8), (0.3, 0.4)):
        trainer = Trainer(**dict(vars(two_classes), batch_size=8 if accuracies[0] == 0.9 else 5))
        script(monkeypatch, trainer, [(1.0, accuracy) for accuracy in accuracies])
        trainer.optimize(num_epoch=2)
    export_checkpoint()
    with open("weights/lenet5/lenet5.json") as file:
        assert json.load(file)["val_acc"] == 0.4


def constants(path):
    """{name: array} of the constants in a frozen graph."""
    constants = [node for node in load_graph(path).node if node.op == "Const"]
    return {node.name: tf.make_ndarray(node.attr["value"].tensor) for node in constants}


def test_a_trainer_exports_its_own_weights_where_another_has_saved_some_of_equal_step(two_classes, monkeypatch):
    first, second = [Trainer(**dict(vars(two_classes), seed=seed)) for seed in (1, 2)]
    for trainer in (first, second):
        script(monkeypatch, trainer, [(1.0, 0.5)])
        trainer.optimize(1)
    first.export()
    expected = first.session.run("fc3/kernel:0")
    assert np.array_equal(constants("weights/lenet5/lenet5.pb")["fc3/kernel/read"], expected)


def test_names_in_the_record_lead_nowhere_else(trainer, two_classes):
    trainer.optimize(1)
    with open(run_file("run.json")) as file:
        record = json.load(file)
    shutil.copy(run_file("lenet5-4.index"), "lenet5-1.index")
    for name in ("../../../lenet5-1", "a\0b", "\ud800", "/tmp/x", ""):
        record[name] = record["lenet5-4"]
    with open(run_file("run.json"), "w") as file:
        json.dump(record, file)
    assert [os.path.basename(prefix) for prefix in find_run("checkpoints/lenet5").prefixes()] == ["lenet5-4"]
    Trainer(resume=True, num_epoch=13).optimize()
    assert os.path.exists("lenet5-1.index") and not glob.glob("checkpoints/lenet5/*/lenet5-4.index")


def test_nothing_is_saved_when_nothing_was_learned(trainer, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.data.train, "_read_augmented", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.optimize(num_epoch=1)
    assert tf.train.latest_checkpoint("checkpoints/lenet5") is None


def test_broken_weights_are_neither_saved_nor_exported(few_images):
    trainer = Trainer(**few_images)
    trainer.optimize(1)
    good = trainer.last_checkpoint
    (bias,) = [variable for variable in trainer.variables if variable.op.name == "fc3/bias"]
    assign(trainer.session, [bias], {"fc3/bias": [np.nan, 1.0]})
    with pytest.raises(FloatingPointError, match=f"found nan at step 6, learning rate 0.01, .* checkpoint: {good};"):
        trainer.optimize(1)
    with pytest.raises(FloatingPointError, match="found NaN or Inf at step 6"):
        trainer.save()
    assert find_run("checkpoints/lenet5").latest() == good
    with pytest.raises(InputError, match="weights: found NaN or Inf in conv1/kernel"):
        trainer.export(last=True)
    trainer.export()
    with open("weights/lenet5/lenet5.json") as file:
        assert json.load(file)["run"]["checkpoint"] == good
