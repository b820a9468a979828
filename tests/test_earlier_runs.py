"""A new run beside earlier ones: it takes nothing from them, and keeps as many as is said."""

import os
import signal
import threading

import numpy as np
import pytest

import run
from convert.export import export_checkpoint
from src.errors import InputError
from src.tf1 import tf
from tests.conftest import load_graph, python
from trainer import Trainer
from utils.checkpoints.manager import find_checkpoint, read_weights
from utils.checkpoints.run_index import find_run
from utils.training.graph import Requests


def test_a_new_run_takes_nothing_from_an_old_one(few_images, capsys):
    first = Trainer(**few_images)
    first.optimize(1)
    graph = load_graph(first.export())
    for path in ("lenet5.tflite", "lenet5-int8.tflite", "lenet5.onnx"):
        open(f"weights/lenet5/{path}", "w").close()
    os.makedirs("weights/lenet5/lenet5-savedmodel/1")
    before = read_weights("checkpoint", first.last_checkpoint)
    second = Trainer(**dict(few_images, seed=1))
    second.optimize(1)
    second.export()
    name = os.path.basename(first.run_folder)
    assert f"moved the previous graph, exported by another run, to weights/lenet5/{name}" in capsys.readouterr().out
    assert sorted(os.listdir("weights/lenet5")) == sorted([name, "labels.txt", "lenet5.json", "lenet5.pb"])
    assert sorted(os.listdir(f"weights/lenet5/{name}")) == [
        "labels.txt", "lenet5-int8.tflite", "lenet5-savedmodel", "lenet5.json", "lenet5.onnx", "lenet5.pb",
        "lenet5.tflite",
    ]  # fmt: skip
    assert load_graph(f"weights/lenet5/{name}/lenet5.pb") == graph
    after = read_weights("checkpoint", first.last_checkpoint)
    assert all(np.array_equal(before[variable], after[variable]) for variable in before)
    assert tf.train.latest_checkpoint("checkpoints/lenet5") == second.last_checkpoint
    assert find_checkpoint("x", "checkpoints/lenet5") == second.last_checkpoint

    assert run.main(["runs"]) == 0
    heading, one, two = capsys.readouterr().out.splitlines()
    assert heading.split()[:4] == ["run", "model", "images", "epochs"]
    assert one.split()[:2] == [name, "lenet5"] and one.endswith(f"  weights/lenet5/{name}/lenet5.pb")
    assert one.split()[3:6] == ["1", "of", "1"] and one.split()[6] == f"{first.history[0]['val_acc']:.4f}"
    assert two.endswith("  weights/lenet5/lenet5.pb")

    export_checkpoint(run=name)
    assert load_graph("weights/lenet5/lenet5.pb") == graph
    assert os.path.exists(f"weights/lenet5/{os.path.basename(second.run_folder)}/lenet5.pb")
    with pytest.raises(InputError, match=f"--run: found no run 2020 with checkpoints in .*, expected one of {name}, "):
        export_checkpoint(run="2020")


def test_as_many_old_runs_are_kept_as_keep_runs_says(few_images, capsys):
    trainers = [Trainer(**dict(few_images, keep_runs=keep)) for keep in (None, None, None, 1)]
    for trainer in trainers:
        trainer.optimize(1)
    names = [os.path.basename(trainer.run_folder) for trainer in trainers]
    assert sorted(set(os.listdir("checkpoints/lenet5")) - {"lock", "checkpoint"}) == names[2:]
    assert (
        f"deleted the checkpoints in checkpoints/lenet5/{names[0]}, because keep_runs is 1" in capsys.readouterr().out
    )
    assert sorted(os.listdir("graphs/lenet5")) == names


def test_a_second_training_into_the_same_folder_is_refused(few_images, monkeypatch):
    refused = []

    def begin_another(trainer, data):
        with pytest.raises(InputError) as caught:
            Trainer(**few_images).optimize(1)
        refused.append(str(caught.value))
        done = python("-c", "from trainer import Trainer; Trainer(resume=True).optimize()", cwd=os.getcwd())
        refused.append(done.stderr)
        return 1.0, 0.5

    trainer = Trainer(**few_images)
    trainer.optimize(1)
    monkeypatch.setattr(Trainer, "evaluate", begin_another)
    trainer.optimize(1)
    expected = f"checkpoint_dir: found checkpoints/lenet5, which another training is using (process {os.getpid()});"
    assert len(refused) == 2 and all(expected in text for text in refused)


def test_training_works_in_another_thread(few_images):
    results = []
    thread = threading.Thread(target=lambda: results.append(Trainer(**few_images).optimize(1)))
    thread.start()
    thread.join()
    assert len(results[0]) == 1


def test_the_newest_run_is_the_one_that_was_saved_last_whatever_its_folder_is_called(few_images):
    first = Trainer(**few_images)
    first.optimize(1)
    os.rename(first.checkpoints.folder, "checkpoints/lenet5/zzz")
    second = Trainer(**dict(few_images, keep_runs=0))
    second.optimize(1)
    assert find_run("checkpoints/lenet5").folder == second.checkpoints.folder
    assert sorted(set(os.listdir("checkpoints/lenet5")) - {"lock", "checkpoint"}) == [
        os.path.basename(second.run_folder)
    ]


def test_only_checkpoints_are_deleted_where_logs_are_beside_them(few_images):
    given = dict(few_images, checkpoint_dir="all", weight_dir="all", tensorboard_dir="all", keep_runs=0)
    first, second = Trainer(**given), Trainer(**given)
    for trainer in (first, second):
        trainer.optimize(1)
        trainer.export()
    left = os.listdir(first.checkpoints.folder)
    assert "history.csv" in left and "curves.png" in left and "run.json" not in left
    assert not [name for name in left if name.startswith("lenet5-")]
    assert os.path.exists(f"{first.run_folder}-2/lenet5.pb")  # as the folder of that name has the log


def test_a_run_folder_may_have_the_name_of_a_conversion(few_images):
    first = Trainer(**few_images)
    first.optimize(1)
    os.rename(first.checkpoints.folder, "checkpoints/lenet5/lenet5-best")
    resumed = Trainer(resume=True, num_epoch=2)
    resumed.optimize()
    graph = load_graph(resumed.export())
    for seed in (1, 2):
        trainer = Trainer(**dict(few_images, seed=seed))
        trainer.optimize(1)
        trainer.export()
    assert load_graph("weights/lenet5/lenet5-best/lenet5.pb") == graph
    assert sorted(os.listdir("weights/lenet5/lenet5-best")) == ["labels.txt", "lenet5.json", "lenet5.pb"]


def test_exports_back_and_forth_make_no_copies(few_images):
    names = []
    for seed in (1, 2):
        trainer = Trainer(**dict(few_images, seed=seed))
        trainer.optimize(1)
        trainer.export()
        names.append(os.path.basename(trainer.run_folder))
    for name in names + names:
        export_checkpoint(run=name)
    assert sorted(os.listdir("weights/lenet5")) == sorted([*names, "labels.txt", "lenet5.json", "lenet5.pb"])


def test_a_run_that_learned_nothing_leaves_no_folder_of_checkpoints(few_images, monkeypatch):
    trainer = Trainer(**few_images)
    monkeypatch.setattr(trainer, "_train_step", lambda *_: os.kill(os.getpid(), signal.SIGINT) or Requests(0, 0))
    with pytest.raises(KeyboardInterrupt):
        trainer.optimize()
    assert os.listdir("checkpoints/lenet5") == ["lock"]
