import hashlib
import json
import os
import shutil

import cv2
import numpy as np
import pytest

from convert.export import export_checkpoint
from src.errors import InputError
from tests.conftest import FIXTURES, load_graph, make_folders, run_file, run_graph, run_opencv, working_in
from trainer import Trainer
from utils.checkpoints.manager import CheckpointManager
from utils.inference.predictor import Predictor

PREPROCESSING = {
    "decode": "8 bits a channel, of 16 bits the upper 8; grey repeated in all channels; transparency dropped",
    "large_jpeg": "decoded at 1/8, 1/4 or 1/2 of its size if that divides both sides and leaves them at least "
    "4 times as long as the network's input",
    "orientation": "upright, as the EXIF data says",
    "interpolation": "area where no side grows and one is more than halved, else bilinear (OpenCV's INTER_AREA "
    "and INTER_LINEAR)",
    "border_colour": [124, 116, 104],
    "normalize": "(level / 255 - image_normalize_mean) / image_normalize_std, of channels in channel_order",
}


@pytest.fixture(scope="module")
def trained_and_exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    with working_in(folder):
        trainer = Trainer(train_path=make_folders("train", {"cat": 20, "dog": 20}), img_size=16, batch_size=8)
        trainer.optimize(num_epoch=2)
        trainer.export()
    return folder, trainer


@pytest.fixture
def exported(trained_and_exported, tmp_path, monkeypatch):
    """A Trainer, and around it a copy of the folder in which it was trained and exported."""
    folder, trainer = trained_and_exported
    shutil.copytree(str(folder), str(tmp_path / "work"))
    monkeypatch.chdir(str(tmp_path / "work"))
    return trainer


@pytest.mark.parametrize("count", [1, 5])
def test_the_graph_answers_as_the_session_does(exported, count):
    exported.export(last=True)
    images = exported.data.valid.next_batch(count)[0]
    expected = exported.session.run(exported.model.getOutput(), {exported.x: images})
    np.testing.assert_allclose(run_graph("weights/lenet5/lenet5.pb", images), expected, atol=1e-5)
    np.testing.assert_allclose(run_opencv("weights/lenet5/lenet5.pb", images), expected, atol=1e-4)


def test_the_graph_holds_only_what_leads_from_image_to_output(exported):
    nodes = load_graph("weights/lenet5/lenet5.pb").node
    assert [node.name for node in nodes if node.op == "Placeholder"] == ["Image"]
    assert nodes[-1].name == "output"
    assert {node.op for node in nodes} == {
        "Placeholder",
        "Const",
        "Conv2D",
        "BiasAdd",
        "Relu",
        "MaxPool",
        "Reshape",
        "MatMul",
        "Identity",
    }


def test_labels_and_description_say_all_that_a_prediction_needs(exported):
    with open("weights/lenet5/labels.txt") as file:
        assert file.read() == "cat\ndog\n"
    with open("weights/lenet5/lenet5.json") as file:
        metadata = json.load(file)
    assert metadata == {
        "model_arch": "lenet5",
        "input": {"name": "Image", "shape": [None, 16, 16, 3]},
        "output": {"name": "output", "shape": [None, 2]},
        "image_normalize_mean": [0.485, 0.456, 0.406],
        "image_normalize_std": [0.229, 0.224, 0.225],
        "channel_order": "bgr",
        "resize": "stretch",
        "transparency": "drop",
        "preprocessing": PREPROCESSING,
        "classes": ["cat", "dog"],
        "val_acc": max(entry["val_acc"] for entry in exported.history),
        "run": {
            "train_path": exported.config.train_path,
            "test_path": "data/cifar10png/test",
            "bad_images": "stop",
            "valid_path": None,
            "validation_size": 0.16,
            "seed": 0,
            "run_folder": exported.run_folder,
            "checkpoint": metadata["run"]["checkpoint"],
            "fingerprint": exported.data.fingerprint,
        },
        "graph_sha256": metadata["graph_sha256"],
    }
    name = os.path.basename(exported.run_folder)
    assert metadata["run"]["checkpoint"] in [f"checkpoints/lenet5/{name}/lenet5-{step}" for step in (4, 8)]
    with open("weights/lenet5/lenet5.pb", "rb") as file:
        assert metadata["graph_sha256"] == hashlib.sha256(file.read()).hexdigest()


def test_export_of_the_best_checkpoint_is_the_same_graph(exported):
    expected = load_graph("weights/lenet5/lenet5.pb")
    os.remove("weights/lenet5/lenet5.pb")
    # src/config.py says 32 px and another data set: what counts is the run that wrote the checkpoint.
    assert export_checkpoint()[0] == "weights/lenet5/lenet5.pb"
    assert load_graph("weights/lenet5/lenet5.pb") == expected
    with open("weights/lenet5/lenet5.json") as file:
        assert json.load(file)["val_acc"] == max(entry["val_acc"] for entry in exported.history)


def test_the_same_weights_give_the_same_bytes(exported):
    contents = []
    for _ in range(3):
        export_checkpoint()
        with open("weights/lenet5/lenet5.pb", "rb") as file:
            contents.append(file.read())
    assert contents[0] == contents[1] == contents[2]


def test_export_without_a_usable_checkpoint(exported):
    with pytest.raises(InputError, match="checkpoint_dir: found no run with checkpoints in empty"):
        export_checkpoint(checkpoint_dir="empty")
    path = run_file("run.json")
    with open(path) as file:
        record = file.read()
    for content, expected in (
        (record.replace('"img_size": 16', '"img_size": 32'), "fc1/kernel"),
        (record.replace('"bgr"', '"gbr"'), "channel_order"),
        (record.replace('"val_loss": ', '"val_loss": "x", "other": '), "found no run with checkpoints"),
        (record.replace('"lenet5-', '"other-'), "found no run with checkpoints"),
        ("{", "run.json: found a corrupt file"),
    ):
        with open(path, "w") as file:
            file.write(content)
        with pytest.raises(InputError, match=expected):
            export_checkpoint()


def test_a_checkpoint_without_metadata_is_skipped_for_the_one_before(exported):
    path = run_file("run.json")
    with open(path) as file:
        record = json.load(file)
    del record["lenet5-8"]  # as if training had been killed right after it had written the checkpoint
    with open(path, "w") as file:
        json.dump(record, file)
    export_checkpoint()
    with open("weights/lenet5/lenet5.json") as file:
        assert json.load(file)["val_acc"] == record["lenet5-4"]["val_acc"]


def test_an_export_that_fails_leaves_the_earlier_graph(exported, monkeypatch):
    before = load_graph("weights/lenet5/lenet5.pb")

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(InputError, match="weights/lenet5/.*No space left"):
        exported.export()
    assert load_graph("weights/lenet5/lenet5.pb") == before
    assert sorted(os.listdir("weights/lenet5")) == ["labels.txt", "lenet5.json", "lenet5.pb"]


@pytest.mark.parametrize("runtime", ["1.14", "2.21"])
def test_graphs_of_either_runtime_answer_on_this_one(runtime):
    """Fixtures, made by tests/fixtures/make.py: the graph exported on a runtime, and what its session answered."""
    folder = os.path.join(FIXTURES, f"tensorflow-{runtime}")
    path = os.path.join(folder, "lenet5.pb")
    answer = np.load(os.path.join(folder, "answer.npz"))
    np.testing.assert_allclose(run_graph(path, answer["images"]), answer["logits"], atol=1e-5)
    np.testing.assert_allclose(run_opencv(path, answer["images"]), answer["logits"], atol=1e-4)


def test_description_is_enough_to_predict(digits, in_tmp_path):
    """From the files of an export and OpenCV alone, with no other part of this project, a digit is recognized."""
    trainer = Trainer(train_path=f"{digits}/train", num_epoch=5)
    trainer.optimize()
    trainer.export()
    with open("weights/lenet5/lenet5.json") as file:
        metadata = json.load(file)
    _, height, width, _ = metadata["input"]["shape"]
    hits = 0
    for label in metadata["classes"]:
        name = sorted(os.listdir(os.path.join(digits, "test", label)))[0]
        image = cv2.resize(cv2.imread(os.path.join(digits, "test", label, name)), (width, height)).astype(np.float32)
        image = (image / 255 - metadata["image_normalize_mean"]) / metadata["image_normalize_std"]
        logits = run_opencv("weights/lenet5/lenet5.pb", image[np.newaxis].astype(np.float32))
        hits += metadata["classes"][logits.argmax()] == label
    assert hits >= 8


def fixture_checkpoints(runtime):
    """A copy, in the working directory, of the checkpoints in a fixture; returns what its session gave as well."""
    folder = os.path.join(FIXTURES, f"tensorflow-{runtime}")
    shutil.copytree(os.path.join(folder, "checkpoints"), "checkpoints/lenet5")
    return np.load(os.path.join(folder, "answer.npz"))


@pytest.mark.parametrize("runtime", ["1.14", "2.21"])
def test_a_checkpoint_of_either_runtime_and_of_an_earlier_version_is_exported(in_tmp_path, runtime):
    answer = fixture_checkpoints(runtime)
    path, origin = export_checkpoint()
    np.testing.assert_allclose(run_graph(path, answer["images"]), answer["logits"], atol=1e-5)
    assert origin["checkpoint"] == "checkpoints/lenet5/lenet5-3"
    np.testing.assert_allclose(Predictor(path).logits(answer["images"]), answer["logits"], atol=1e-5)


@pytest.mark.parametrize("runtime", ["1.14", "2.21"])
def test_graph_and_metadata_of_either_runtime_and_of_an_earlier_version_are_read(runtime):
    folder = os.path.join(FIXTURES, f"tensorflow-{runtime}")
    answer = np.load(os.path.join(folder, "answer.npz"))
    predictor = Predictor(os.path.join(folder, "lenet5.pb"))
    assert predictor.classes == ["cat", "dog", "owl"]
    np.testing.assert_allclose(predictor.logits(answer["images"]), answer["logits"], atol=1e-5)


def test_settings_of_a_later_version_are_passed_over_and_missing_ones_take_their_default(in_tmp_path, capsys):
    answer = fixture_checkpoints("2.21")
    with open("checkpoints/lenet5/run.json") as file:
        record = json.load(file)
    del record["lenet5-3"]["settings"]["augment"], record["lenet5-3"]["settings"]["step_rate"]
    record["lenet5-3"]["settings"].update(dropout=0.5, teacher="none")
    with open("checkpoints/lenet5/run.json", "w") as file:
        json.dump(record, file)
    config, _, _ = CheckpointManager("checkpoints/lenet5").load("checkpoints/lenet5/lenet5-3")
    assert (config.augment, config.step_rate, config.img_size) == ("none", 1000, 16)
    expected = "note: checkpoint checkpoints/lenet5/lenet5-3: ignoring unknown settings: dropout, teacher\n"
    assert capsys.readouterr().err == expected
    path, _ = export_checkpoint()
    np.testing.assert_allclose(run_graph(path, answer["images"]), answer["logits"], atol=1e-5)
