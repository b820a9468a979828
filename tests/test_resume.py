"""Interrupted runs go on as if they had never been interrupted."""

import json
import os
import shutil
import signal

import numpy as np
import pytest

from src import config
from src.errors import InputError
from tests.conftest import FIXTURES, make_folders, run_file, working_in
from tests.helpers import chaos
from tests.helpers.short_runs import COUNTS, few, interrupt_at
from trainer import Trainer
from utils.checkpoints.manager import find_checkpoint
from utils.checkpoints.run_index import find_run
from utils.training import monitor


@pytest.fixture(scope="module")
def done_once(tmp_path_factory):
    """A folder in which one epoch of such a run was done."""
    folder = tmp_path_factory.mktemp("done_once")
    with working_in(folder):
        Trainer(**few(make_folders("train", COUNTS))).optimize(1)
    return folder


@pytest.fixture
def one_epoch(done_once, tmp_path, monkeypatch):
    """Work in a copy of it, in which the images are in `train`."""
    shutil.copytree(str(done_once), str(tmp_path / "work"))
    monkeypatch.chdir(str(tmp_path / "work"))


def killed_before_it_saves(trainer, its_monitor):
    """In place of Trainer.save."""
    its_monitor.flush()
    raise ZeroDivisionError


def straight_and_resumed(given, monkeypatch, steps, kills=0):
    """Train in the folder `straight`; and in `resumed`, with an interruption after each of these steps.

    After the last of them, it is killed so many times before the next checkpoint is written.
    """
    for name in ("straight", "resumed"):
        os.mkdir(name)
    os.chdir("straight")
    trainer = Trainer(**given)
    trainer.optimize()
    trainer.export()
    os.chdir("../resumed")
    resume = False
    for step in steps:
        with monkeypatch.context() as patch:
            interrupt_at(patch, step)
            with pytest.raises(KeyboardInterrupt):
                Trainer(resume, **({} if resume else given)).optimize()
        resume = True
    for _ in range(kills):
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "save", killed_before_it_saves)
            with pytest.raises(ZeroDivisionError):
                Trainer(resume=True).optimize()
    trainer = Trainer(resume=True)
    trainer.optimize()
    trainer.export()
    os.chdir("..")
    return chaos.differences("straight", "resumed", given["model_arch"])


def test_an_interrupted_run_ends_as_one_that_never_was(few_images, monkeypatch):
    """Before, at and after the end of an epoch, twice in one, and after the last step of all."""
    assert straight_and_resumed(few_images, monkeypatch, [3, 5, 7, 8, 11, 20]) == []


def test_an_interrupted_mobilenetv2_ends_as_one_that_never_was(few_images, shallow, monkeypatch):
    """make chaos does it with all blocks."""
    given = dict(few_images, model_arch="mobilenetv2", img_size=32, width=0.35, weight_decay=4e-5, num_epoch=2)
    for name in ("checkpoint_dir", "weight_dir", "tensorboard_dir"):
        del given[name]
    with pytest.raises(InputError, match="found no run with checkpoints in checkpoints/lenet5,"):
        Trainer(resume=True)
    monkeypatch.setitem(vars(config), "model_arch", "mobilenetv2")
    assert straight_and_resumed(given, monkeypatch, [3]) == []


def test_points_that_a_killed_process_wrote_before_its_checkpoint_are_not_doubled(few_images, monkeypatch):
    """Three times it validates, writes the points of the epoch, and is ended before it saves."""
    monkeypatch.setattr(monitor, "STEPS_PER_POINT", 5)  # so that training curves have points at the same steps
    assert straight_and_resumed(dict(few_images, num_epoch=2), monkeypatch, [5], kills=3) == []


def test_a_checkpoint_is_written_whenever_so_many_minutes_have_passed(few_images, monkeypatch):
    trainer = Trainer(**dict(few_images, checkpoint_minutes=1e-9))
    saved, save = [], trainer.save

    def noting_save(monitor):
        save(monitor)
        saved.append(os.path.basename(trainer.last_checkpoint))

    monkeypatch.setattr(trainer, "save", noting_save)
    trainer.optimize(1)
    assert saved == [f"lenet5-{step}" for step in (1, 2, 3, 4, 5, 5)]
    assert find_run("checkpoints/lenet5").best() == trainer.last_checkpoint


def test_each_checkpoint_keeps_the_sums_of_its_own_step(few_images, monkeypatch):
    """The newest may be lost, and training then goes on from the one before."""
    interrupt_at(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        Trainer(**dict(few_images, checkpoint_minutes=1e-9)).optimize()
    checkpoints = find_run("checkpoints/lenet5")
    windows = [checkpoints.entry(prefix)["progress"]["window"]["steps"] for prefix in checkpoints.prefixes()]
    assert windows == [1, 2, 3, 4]


def test_num_epoch_is_the_total_and_early_stopping_goes_on_counting(few_images, monkeypatch):
    trainer = Trainer(**few_images)
    trainer.optimize(2)
    trainer = Trainer(resume=True, num_epoch=3)
    trainer.optimize()
    assert (trainer.epoch, len(trainer.history)) == (3, 3)
    risen = [dict(entry, val_loss=float(entry["epoch"])) for entry in trainer.history]
    trainer.checkpoints._write_metadata(risen)
    trainer = Trainer(resume=True, num_epoch=9, early_stopping=3)
    monkeypatch.setattr(trainer, "evaluate", lambda data: (5.0, 0.5))
    assert [entry["epoch"] for entry in trainer.optimize()] == [1, 2, 3, 4]
    trainer = Trainer(resume=True, num_epoch=6, early_stopping=None)
    trainer.optimize()
    assert trainer.epoch == 6


@pytest.mark.parametrize("given, expected", [
    ({"lr": 0.02}, "setting lr: found 0.02, expected 0.01; checkpoints/lenet5/"),
    ({"seed": 1}, "setting seed: found 1, expected 0"),
    ({"batch_size": 4}, "setting batch_size: found 4, expected 8"),
    ({"img_size": 20}, "setting img_size: found 20, expected 16"),
    ({"classes": ["dog", "cat"]}, "setting classes: found"),
    ({"validation_size": 0.5}, "setting validation_size: found 0.5"),
    ({"model_arch": "mobilenetv2"}, "setting checkpoint_dir: found no run with checkpoints in checkpoints/mobilenetv2"),
    ({"model_arch": "mobilenetv2", "checkpoint_dir": "checkpoints/lenet5"}, "setting model_arch: found 'mobilenetv2'"),
    ({"checkpoint_dir": "nowhere"}, "setting checkpoint_dir: found no run with checkpoints in nowhere"),
])  # fmt: skip
def test_what_no_longer_fits_is_refused(one_epoch, given, expected):
    with pytest.raises(InputError, match=expected):
        Trainer(resume=True, **given)


def test_a_data_set_may_move_but_not_change(one_epoch):
    os.rename("train", "moved")
    trainer = Trainer(resume=True, train_path="moved", num_epoch=2)
    trainer.optimize()
    assert trainer.epoch == 2
    os.remove("moved/cat/003.png")
    with pytest.raises(
        InputError, match="setting train_path or valid_path: found other images in moved, expected those of the run"
    ):
        Trainer(resume=True)


def test_folders_are_those_given_and_never_those_of_the_metadata(few_images):
    Trainer(**dict(few_images, weight_dir="../outside", tensorboard_dir="../outside")).optimize(1)
    trainer = Trainer(resume=True, num_epoch=2)
    assert trainer.config.weight_dir == "weights/lenet5" and trainer.run_folder.startswith("graphs/lenet5/")


@pytest.mark.parametrize("damage", ["data", "index", "truncated"])
def test_a_corrupt_checkpoint_is_skipped_for_the_one_before(few_images, capsys, damage):
    trainer = Trainer(**few_images)
    trainer.optimize(2)
    expected = trainer.session.run("fc1/kernel:0")
    prefix = trainer.last_checkpoint
    path = f"{prefix}.index" if damage == "index" else f"{prefix}.data-00000-of-00001"
    with open(path, "r+b") as file:
        if damage == "truncated":
            file.truncate(1000)
        else:
            file.seek(40)
            file.write(b"\xff\xff\xff\xff")
    trainer = Trainer(resume=True)
    assert (trainer.epoch, trainer.step) == (1, 5)
    assert f"note: checkpoint: found {prefix}" in capsys.readouterr().err
    trainer.optimize(1)
    assert np.array_equal(trainer.session.run("fc1/kernel:0"), expected)


def test_metadata_that_was_not_written_is_skipped_for_the_one_before(few_images, monkeypatch):
    """Killed between the weights and their record, at a name that an earlier attempt used: nothing is mixed up."""
    trainer = Trainer(**few_images)
    trainer.optimize(1)
    monkeypatch.setattr(trainer.checkpoints, "_write_metadata", lambda history: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        trainer.optimize(1)
    trainer = Trainer(resume=True)
    assert trainer.step == 5
    trainer.optimize(1)
    assert trainer.step == 10


@pytest.mark.parametrize("runtime", ["1.14", "2.21"])
def test_a_run_of_either_runtime_is_resumed_on_this_one(in_tmp_path, runtime):
    """A fixture: a run interrupted in its second epoch, and the logits that its own runtime ended with."""
    folder = os.path.join(FIXTURES, f"tensorflow-{runtime}", "interrupted")
    shutil.copytree(folder, "work")
    os.chdir("work")
    trainer = Trainer(resume=True)
    assert (trainer.epoch, trainer.state.step_in_epoch) == (1, 1)
    trainer.optimize()
    answer = np.load("answer.npz")
    logits = trainer.session.run(trainer.model.getOutput(), {trainer.x: answer["images"]})
    np.testing.assert_allclose(logits, answer["logits"], atol=1e-4)
    assert [entry["loss"] for entry in trainer.history] == pytest.approx(answer["losses"].tolist(), abs=1e-5)


def test_nothing_to_resume(few_images):
    with pytest.raises(InputError, match="checkpoint_dir: found no run with checkpoints in checkpoints/lenet5,"):
        Trainer(resume=True)
    shutil.copytree(os.path.join(FIXTURES, "tensorflow-2.21", "checkpoints"), "checkpoints/lenet5")
    with pytest.raises(
        InputError, match="found no checkpoint to resume in checkpoints/lenet5 .checkpoint .*, expected one written by"
    ):
        Trainer(resume=True)


def test_a_copied_folder_of_checkpoints_is_that_of_the_copy(in_tmp_path):
    """TensorFlow's list in it may hold absolute paths, which lead to the original."""
    for name in ("original", "copy"):
        shutil.copytree(os.path.join(FIXTURES, "tensorflow-2.21", "checkpoints"), name)
        with open(os.path.join(name, "checkpoint"), "w") as file:
            file.write(f'model_checkpoint_path: "{os.path.abspath("original")}/lenet5-3"\n')
    assert find_checkpoint("x", "copy") == "copy/lenet5-3"


def test_a_trainer_that_another_has_overtaken_deletes_nothing(one_epoch):
    first, second = Trainer(resume=True, num_epoch=3), Trainer(resume=True, num_epoch=4)
    first.optimize()
    with pytest.raises(
        InputError, match="found checkpoints/lenet5/.* changed by another Trainer or process; resume again"
    ):
        second.optimize()
    assert find_run("checkpoints/lenet5").latest() == first.last_checkpoint


WRONG_RECORDS = [
    lambda record, entry: record.update(history=[1]),
    lambda record, entry: record.update(history=[{}]),
    lambda record, entry: record.update(history="none"),
    lambda record, entry: record["history"][0].update(val_loss="x"),
    lambda record, entry: record["history"][0].update(val_acc=None),
    lambda record, entry: record["history"][0].pop("loss"),
    lambda record, entry: entry["progress"].update(position=-1),
    lambda record, entry: entry["progress"].update(position=10**40),
    lambda record, entry: entry["progress"].update(position=True),
    lambda record, entry: entry["progress"].update(epoch=-1),
    lambda record, entry: entry["progress"].update(epoch=7),
    lambda record, entry: entry["progress"].update(window=[1]),
    lambda record, entry: entry["progress"].update(window={"train_loss": "x"}),
    lambda record, entry: entry["progress"].update(sums=[0.0]),
    lambda record, entry: entry["progress"].pop("fingerprint"),
    lambda record, entry: entry.update(run_folder="a\0/b"),
    lambda record, entry: entry.update(progress=None),
]


@pytest.mark.parametrize("number", range(len(WRONG_RECORDS)))
def test_a_record_from_elsewhere_is_refused_in_one_line(one_epoch, number):
    with open(run_file("run.json")) as file:
        record = json.load(file)
    WRONG_RECORDS[number](record, record["lenet5-5"])
    with open(run_file("run.json"), "w") as file:
        json.dump(record, file)
    with pytest.raises(InputError) as refused:
        Trainer(resume=True, num_epoch=3)
    assert "checkpoint" in str(refused.value) and "\n" not in str(refused.value)
