"""MobileNetV2 trained on the digits: its export, its weight decay, and other networks that start from it."""

import os

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dataset import read_test_set
from src.errors import InputError
from src.settings import settings
from src.tf1 import tf
from tests.conftest import load_graph, preprocess, run_graph, run_opencv, run_py
from trainer import Trainer
from utils.checkpoints.manager import find_checkpoint
from utils.checkpoints.pretrained import inherit_settings


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """A small network after 111 steps, exported; 40 px, because OpenCV 4.14 gets depthwise convolutions of 1x1 pixels
    wrong, as there are at 32 px."""
    folder = str(tmp_path_factory.mktemp("trained"))
    trainer = Trainer(
        model_arch="mobilenetv2",
        train_path=f"{digits}/train",
        img_size=40,
        width=0.35,
        checkpoint_dir=folder,
        weight_dir=folder,
        tensorboard_dir=folder,
    )
    trainer.optimize(num_epoch=3)
    trainer.path = trainer.export(last=True)  # whichever epoch is the best on this processor
    return trainer


def test_an_image_alone_is_answered_as_within_a_batch(trained):
    images = trained.data.valid.next_batch(8)[0]
    with trained.graph.as_default():
        logits = trained.graph.get_tensor_by_name("inference/output:0")
    expected = trained.session.run(logits, {trained.x: images})
    assert len(set(expected.argmax(axis=1))) > 3  # not one class for every image
    scale = np.abs(expected).max()
    for index in range(8):
        alone = images[index : index + 1]
        for answer in (
            trained.session.run(logits, {trained.x: alone}),
            run_graph(trained.path, alone),
            run_opencv(trained.path, alone),
        ):
            assert np.abs(answer[0] - expected[index]).max() <= 1e-4 * scale
    assert np.abs(run_graph(trained.path, images) - expected).max() <= 1e-4 * scale
    assert np.abs(run_opencv(trained.path, images) - expected).max() <= 1e-4 * scale


def test_batch_norm_is_folded_into_the_convolutions(trained):
    nodes = load_graph(trained.path).node
    assert {node.op for node in nodes} == {
        "Placeholder",
        "Const",
        "Conv2D",
        "DepthwiseConv2dNative",
        "BiasAdd",
        "Relu6",
        "AddN",
        "Mean",
        "MatMul",
        "Identity",
    }
    assert sum(node.op == "Conv2D" for node in nodes) == 35 and sum(node.op == "BiasAdd" for node in nodes) == 53


def test_folded_answers_equal_batch_norm_s(trained):
    """Against the learning network, its batch norms told to use the moving statistics."""
    images = trained.data.valid.next_batch(32)[0]
    unfolded = trained.graph.as_graph_def()
    norms = [node for node in unfolded.node if node.op.startswith("FusedBatchNorm") and "gradients" not in node.name]
    assert len(norms) == 52
    for node in norms:
        scope = node.name.rsplit("/", 1)[0]
        node.attr["is_training"].b = False
        node.input[3], node.input[4] = f"{scope}/moving_mean/read", f"{scope}/moving_variance/read"
    values = trained.session.run({variable.op.name: variable for variable in trained.variables})
    with tf.Graph().as_default(), tf.Session() as session:
        (expected,) = tf.import_graph_def(unfolded, return_elements=["output:0"], name="")
        reads = {f"{name}:0": value for name, value in values.items()}
        expected = session.run(expected, dict(reads, **{"Image:0": images}))
    found = run_graph(trained.path, images)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_validation_is_usable_after_100_steps(trained):
    assert trained.step == 111
    assert trained.val_acc > 0.5


def test_weight_decay_is_part_of_the_cost_and_logged(trained):
    images, labels, _, _ = trained.data.train.next_batch(32)
    cross_entropy, cost, weight_loss = trained.session.run(
        [trained.cross_entropy, trained.cost, trained.train_graph.scalars["weight_loss"]],
        {trained.x: images, trained.y_true: labels},
    )
    kernels = trained.session.run([variable for variable in trained.variables if "kernel" in variable.op.name])
    assert len(kernels) == 53
    assert weight_loss == pytest.approx(4e-5 / 2 * sum((kernel**2).sum() for kernel in kernels), rel=1e-4)
    assert cost == pytest.approx(cross_entropy.mean() + weight_loss, rel=1e-5)
    events = EventAccumulator(trained.run_folder)
    events.Reload()
    assert len(events.Scalars("weight_loss")) == 2


def three_classes(digits):
    path, classes = f"{digits}/train", ["3", "5", "8"]
    return {"model_arch": "mobilenetv2", "train_path": path, "img_size": 40, "width": 0.35, "classes": classes}


def test_fine_tuning_to_other_classes(trained, digits, in_tmp_path, capsys):
    weights = trained.session.run({variable.op.name: variable for variable in trained.variables})
    capsys.readouterr()
    folder, last = trained.config.checkpoint_dir, trained.last_checkpoint
    for source in (folder, trained.checkpoints.folder, last):
        assert os.path.samefile(f"{find_checkpoint('setting pretrained', source)}.index", f"{last}.index")
    tuned = Trainer(pretrained=folder, **three_classes(digits))
    assert "loaded 260 of 262 variables, all but logits/kernel, logits/bias" in capsys.readouterr().out
    for name, value in tuned.session.run({v.op.name: v for v in tuned.variables}).items():
        assert np.array_equal(value, weights[name]) == (not name.startswith("logits"))
    assert tuned.session.run(tuned.global_step) == 0


def test_fine_tuning_needs_checkpoints_that_fit(trained, shallow, digits, in_tmp_path):
    folder = trained.config.checkpoint_dir
    for source in ("nowhere", str(in_tmp_path), f"{folder}/mobilenetv2-9"):
        with pytest.raises(InputError, match=f"setting pretrained: found {source}"):
            Trainer(pretrained=source, **three_classes(digits))
    with pytest.raises(InputError, match="setting pretrained: found no weights in .* that match"):
        Trainer(pretrained=folder, train_path=f"{digits}/train")


def test_size_width_and_normalization_are_those_of_the_pretrained_network(trained, digits, in_tmp_path, capsys):
    """trained: 40 px and width 0.35."""
    folder = trained.checkpoints.folder
    given = {"model_arch": "mobilenetv2", "train_path": f"{digits}/train", "pretrained": folder, "classes": ["3", "5"]}
    tuned = Trainer(**given)
    assert (tuned.config.img_size, tuned.config.width, tuned.config.channel_order) == (40, 0.35, "bgr")
    assert f"weights of {folder}/mobilenetv2-111: loaded 260 of 262" in capsys.readouterr().out
    assert inherit_settings(dict(given, img_size=48)).img_size == 48
    with open(os.path.join(folder, "run.json")) as file:
        record = file.read()
    with open(os.path.join(folder, "run.json"), "w") as file:
        file.write(record.replace('"bgr"', '"rgb"').replace("0.485", "0.5"))
    config, kept = inherit_settings(given), inherit_settings(dict(given, channel_order="bgr"))
    with open(os.path.join(folder, "run.json"), "w") as file:
        file.write(record)
    assert kept.channel_order == "bgr" and config.channel_order == "rgb" and config.image_normalize_mean[0] == 0.5


def test_small_strides_learn_the_digits_and_stay_through_export_and_transfer(digits, in_tmp_path):
    """Five digits, in three epochs: .96 to .99 of the test images, as the seed may be."""
    given = {
        "model_arch": "mobilenetv2", "strides": "small", "width": 0.35, "img_size": 32, "train_path": f"{digits}/train",
        "classes": "0,1,2,3,4", "num_epoch": 3, "batch_size": 16, "lr": 0.005, "epsilon": 0.001, "step_rate": 30,
        "decay": 0.5,
    }  # fmt: skip
    done = run_py(*[word for name, value in given.items() for word in (f"--{name}", str(value))], cwd=in_tmp_path)
    assert done.returncode == 0, done.stderr
    path = "weights/mobilenetv2/mobilenetv2.pb"
    (pooling,) = [node for node in load_graph(path).node if node.op == "Mean"]
    with tf.Graph().as_default():
        (features,) = tf.import_graph_def(load_graph(path), return_elements=[f"{pooling.input[0]}:0"])
    assert features.shape.as_list()[1:3] == [4, 4]  # 1x1 with the strides of the paper
    config = settings(train_path=f"{digits}/train", test_path=f"{digits}/test", classes=list("01234"))
    ((images, labels, _, _),) = read_test_set(config, preprocess(32))[0].batches(360)
    logits = run_graph(path, images)
    assert len(images) > 150 and np.mean(logits.argmax(axis=1) == labels.argmax(axis=1)) > 0.95
    assert np.abs(logits - run_opencv(path, images)).max() <= 1e-4 * np.abs(logits).max()
    inherited = inherit_settings({"model_arch": "mobilenetv2", "pretrained": "checkpoints/mobilenetv2"})
    assert inherited.strides == "small"
