"""What is there already is neither replaced nor left out in silence."""

import json
import os
import shutil

import h5py
import numpy as np
import pytest

import run
from convert.export import export_checkpoint, move_aside
from src.errors import InputError
from tests.conftest import make_folders, run_file, working_in
from trainer import Trainer
from utils.checkpoints.keras_weights import read_keras_network
from utils.images.plots import check_output

QUICK = {"train_path": "train", "img_size": 16, "batch_size": 8, "model_arch": "lenet5"}


@pytest.fixture(scope="module")
def two_runs_once(tmp_path_factory):
    """A folder with two runs of one epoch."""
    folder = tmp_path_factory.mktemp("two_runs")
    with working_in(folder):
        make_folders("train", {"cat": 20, "dog": 20})
        for seed in range(2):
            Trainer(seed=seed, **QUICK).optimize(1)
    return folder


@pytest.fixture
def two_runs(two_runs_once, tmp_path, monkeypatch):
    """Work in a copy of it."""
    shutil.copytree(str(two_runs_once), str(tmp_path / "work"))
    monkeypatch.chdir(str(tmp_path / "work"))


def test_a_trainer_that_another_has_overtaken_saves_nothing(two_runs):
    """A notebook that was left open, while the run was resumed in a shell."""
    notebook, shell = Trainer(resume=True, num_epoch=2), Trainer(resume=True, num_epoch=3)
    shell.optimize()
    with open(run_file("run.json")) as file:
        before = json.load(file)
    batch = notebook.data.train.next_batch(8)
    notebook.session.run(notebook.optimizer, {notebook.x: batch.images, notebook.y_true: batch.labels})
    with pytest.raises(
        InputError, match="found checkpoints/lenet5/.* changed by another Trainer or process; resume again"
    ):
        notebook.save()
    with open(run_file("run.json")) as file:
        assert json.load(file) == before
    assert Trainer(resume=True).epoch == 3


def test_a_checkpoint_of_the_last_step_is_not_written_again_when_the_epoch_is_validated(two_runs, monkeypatch):
    """On a full disk the first one would be lost."""
    trainer = Trainer(checkpoint_minutes=1e-9, **QUICK)
    written, save = [], trainer.train_graph.saver.save

    def noting_save(session, prefix, **options):
        written.append(os.path.basename(prefix))
        return save(session, prefix, **options)

    monkeypatch.setattr(trainer.train_graph.saver, "save", noting_save)
    trainer.optimize(2)
    assert written == [f"lenet5-{step}" for step in range(1, 2 * trainer.steps + 1)]
    epochs = [trainer.checkpoints.entry(trainer.checkpoints.folder + f"/lenet5-{step}") for step in (4, 8)]
    assert [entry["val_acc"] for entry in epochs] == [entry["val_acc"] for entry in trainer.history]
    trainer.session.run(trainer.variables[0].initializer)  # other weights, of the same step
    trainer.last_saved = None
    trainer.save()
    assert written[-2:] == ["lenet5-8", "lenet5-8"]


@pytest.mark.parametrize("become", [None, os.mkdir, os.mkfifo, lambda path: os.symlink("nowhere", path)])
def test_the_latest_run_without_its_record_is_not_taken_for_the_one_before(two_runs, become):
    path = run_file("run.json")
    os.remove(path)
    if become:
        become(path)
    for resume in (lambda: Trainer(resume=True, num_epoch=2), lambda: export_checkpoint(model_arch="lenet5")):
        with pytest.raises(InputError, match=f"^metadata {path}: found a corrupt file, .*; --run NAME selects another"):
            resume()
    assert os.path.exists(os.path.join(os.path.dirname(path), "lenet5-4.index"))


def test_a_picture_replaces_no_image_and_nothing_but_a_picture(two_runs, capsys):
    image = os.path.join("train", "cat", "000.png")
    with open(image, "rb") as file:
        before = file.read()
    assert run.main(["check", "--train_path", "train", "--output", image]) == 2
    assert capsys.readouterr().err == f"error: --output: found {image}, one of the images, expected another name\n"
    with open(image, "rb") as file:
        assert file.read() == before
    with open("graph.png", "w") as file:
        file.write("a graph")
    with pytest.raises(InputError, match="^--output: found graph.png, a file that is not a PNG, expected another name"):
        check_output("graph.png", [])
    with pytest.raises(InputError, match="^--output: found graph.pb, expected a name that ends in .png"):
        check_output("graph.pb", [])
    check_output(image, ["other.png"])  # a picture of before
    check_output("new.png", [image])


def test_links_beside_a_graph_are_moved_as_links_and_pipes_stay(in_tmp_path):
    os.makedirs("elsewhere/precious")
    os.mkdir("weights")
    os.chdir("weights")
    for name in ("lenet5.pb", "lenet5.json", "labels.txt"):
        with open(name, "w") as file:
            file.write(name)
    folder = "../elsewhere"
    for name, leads_to in (("lenet5.zero", "/dev/zero"), ("lenet5.onnx", "nowhere"), ("lenet5-savedmodel", folder)):
        os.symlink(leads_to, name)
    os.mkfifo("lenet5-pipe")
    move_aside("../weights/lenet5.pb", {"run_folder": "graphs/lenet5/another"})
    (aside,) = [name for name in os.listdir(".") if os.path.isdir(name) and not os.path.islink(name)]
    assert os.readlink(f"{aside}/lenet5.zero") == "/dev/zero" and os.readlink(f"{aside}/lenet5.onnx") == "nowhere"
    assert os.readlink(f"{aside}/lenet5-savedmodel") == folder and not os.path.islink("lenet5.zero")
    assert os.listdir(folder) == ["precious"]
    assert os.path.exists("lenet5-pipe") and not os.path.exists(f"{aside}/lenet5-pipe")


def test_weights_that_are_named_thousands_of_times_are_read_once(tmp_path):
    path = str(tmp_path / "bomb.h5")
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([b"Conv1"] * 3000)
        group = file.create_group("Conv1")
        group.attrs["weight_names"] = np.array([b"kernel:0"] * 3000)
        group.create_dataset("kernel:0", data=np.zeros((1000, 1000), np.float32), compression="gzip")
    with pytest.raises(InputError, match="Conv1/kernel:0 is named twice"):
        read_keras_network("setting pretrained", path)
