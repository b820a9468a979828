"""Weights of others: what they become here, against the Keras that wrote them; and which layers learn."""

import os
import re

import cv2
import numpy as np
import pytest
import sklearn.datasets

import run
from src.tf1 import IS_1_14
from tests.conftest import REPOSITORY, assert_images_differ_alike, python
from trainer import Trainer
from utils.checkpoints.pretrained import inherit_settings

KERAS = os.path.join(REPOSITORY, "tests", "helpers", "keras_pretrained.py")
SIZE = 96
KINDS = {
    "published": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{width}_96.h5",
    "without the classifier": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{width}_96_no_top.h5",
    "of this Keras": "keras.h5" if IS_1_14 else "keras.weights.h5",
}


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    """A folder with photos in ten class folders; for two widths with weight files and Keras' answers to the photos."""
    folder = tmp_path_factory.mktemp("keras")
    photos = os.path.join(os.path.dirname(sklearn.datasets.__file__), "images")
    images = []
    for index in range(20):
        photo = cv2.imread(os.path.join(photos, ("china.jpg", "flower.jpg")[index % 2]))
        image = photo[10 * index : 10 * index + SIZE, 20 * index : 20 * index + SIZE]
        os.makedirs(str(folder / "train" / str(index // 2)), exist_ok=True)
        cv2.imwrite(str(folder / "train" / str(index // 2) / f"{index % 2}.png"), image)
        images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    np.savez(str(folder / "images.npz"), images=np.array(images))
    done = python(KERAS, "images.npz", str(folder), str(SIZE), "0.35", "1.0", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("kind, width", [
    ("published", "1.0"), ("without the classifier", "0.35"), ("of this Keras", "0.35"),
])  # fmt: skip
def test_a_network_with_the_weights_of_keras_answers_as_keras_does(keras, in_tmp_path, capsys, kind, width):
    path = str(keras / width / KINDS[kind].format(width=width))
    given = {} if "mobilenet_v2" in path else {"width": float(width), "img_size": SIZE}
    trainer = Trainer(model_arch="mobilenetv2", pretrained=path, train_path=str(keras / "train"), batch_size=2, **given)
    config, output = trainer.config, capsys.readouterr().out
    assert (config.width, config.img_size, config.channel_order) == (float(width), SIZE, "rgb")
    expected = f"img_size 96, numchannels 3, width {float(width)}, strides paper, image_normalize_mean [0.5, 0.5, 0.5]"
    assert f"preprocessing and architecture: {expected}" in output
    if kind == "without the classifier":
        assert "loaded 260 of 262 variables, all but logits/kernel, logits/bias" in output
        return
    assert "loaded 262 of 262 variables\n" in output
    data = trainer.data.train
    logits = trainer.graph.get_tensor_by_name("inference/output:0")
    batch = next(data.batches(data.num_examples))
    found = trainer.session.run(logits, {trainer.x: batch.images}).astype(np.float64)
    order = [int(cls) * 2 + int(name[0]) for cls, name in zip(batch.cls, batch.ids)]
    expected = np.load(str(keras / width / "answer.npz"))["logarithms"][order]
    found -= found.mean(axis=1, keepdims=True)
    expected -= expected.mean(axis=1, keepdims=True)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert_images_differ_alike(found, expected)


def test_what_is_given_counts_more_than_what_the_weights_want(keras):
    path = os.path.join(keras, "0.35", KINDS["published"].format(width="0.35"))
    config = inherit_settings({"model_arch": "mobilenetv2", "pretrained": path, "channel_order": "bgr", "img_size": 64})
    assert (config.channel_order, config.img_size, config.width) == ("bgr", 64, 0.35)
    assert config.image_normalize_mean == config.image_normalize_std == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("name, content, arguments, expected", [
    ("none.h5", None, [], "setting pretrained: found no file none.h5, expected weights of a MobileNetV2 from Keras"),
    ("text.h5", b"no HDF5", [], "setting pretrained: found text.h5, expected a readable file from Keras"),
    ("cut.h5", 2000, [], "setting pretrained: found cut.h5, expected a readable file from Keras"),
    ("good.h5", "good", ["--model_arch", "lenet5"], "setting pretrained: found no weights in good.h5 that match, exp"),
    ("other.h5", "other", [], "setting pretrained: found other.h5 with layers dense_1, expected one MobileNetV2 from"),
    ("nan.h5", np.nan, ["--width", "0.35"], "setting pretrained: found NaN or Inf in first/kernel of nan.h5, expect"),
    ("word.h5", b"1.5", [], "setting pretrained: found word.h5 with |S3 numbers in first/kernel, expected f"),
])  # fmt: skip
def test_weight_files_that_cannot_be_used(keras, shallow, in_tmp_path, capsys, name, content, arguments, expected):
    import h5py

    with open(str(keras / "0.35" / KINDS["published"].format(width="0.35")), "rb") as file:
        good = file.read()
    if content == "other":
        with h5py.File(name, "w") as file:
            file.attrs["layer_names"] = [b"dense_1"]
            file.create_group("dense_1").attrs["weight_names"] = []
    elif content in (np.nan, b"1.5"):
        with open(name, "wb") as file:
            file.write(good)
        with h5py.File(name, "r+") as file:
            shape = file["Conv1/Conv1/kernel:0"].shape
            del file["Conv1/Conv1/kernel:0"]
            file["Conv1/Conv1/kernel:0"] = np.full(shape, content)
    elif content is not None:
        with open(name, "wb") as file:
            file.write({"good": good}.get(content) or (good[:content] if isinstance(content, int) else content))
    given = [
        "--model_arch",
        "mobilenetv2",
        "--train_path",
        str(keras / "train"),
        "--img_size",
        "32",
        "--batch_size",
        "2",
    ]
    assert run.main(given + ["--pretrained", name] + arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {expected}") and errors.count("\n") == 1


@pytest.mark.parametrize("model_arch, head", [("lenet5", "fc3"), ("mobilenetv2", "logits")])
def test_only_the_head_learns(folders, shallow, in_tmp_path, model_arch, head):
    """The rest stays as it is to the last bit, and so do the moving statistics of batch norm."""
    path = folders({"cat": 20, "dog": 20}, size=32)
    trainer = Trainer(
        model_arch=model_arch, train_layers="head", train_path=path, img_size=32, batch_size=8, width=0.35
    )
    before = trainer.session.run({variable.op.name: variable for variable in trainer.variables})
    trainer.optimize(2)
    after = trainer.session.run({variable.op.name: variable for variable in trainer.variables})
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {f"{head}/kernel", f"{head}/bias"}
    batch = trainer.data.train.next_batch(8)
    inference = trainer.graph.get_tensor_by_name("inference/output:0")
    learning, other = trainer.session.run([trainer.model.getOutput(), inference], {trainer.x: batch.images})
    np.testing.assert_allclose(learning, other, atol=1e-5)  # both with the moving statistics


def test_weight_decay_is_on_what_learns_alone(folders, in_tmp_path):
    path = folders({"cat": 20, "dog": 20})
    trainer = Trainer(train_layers="head", train_path=path, img_size=16, batch_size=8, weight_decay=0.1)
    kernel = trainer.session.run("fc3/kernel:0")
    assert trainer.session.run(trainer.train_graph.scalars["weight_loss"]) == pytest.approx(
        0.1 * (kernel**2).sum() / 2, rel=1e-5
    )


def test_a_head_that_learned_goes_on_with_all_layers(folders, in_tmp_path):
    """The recipe of two stages."""
    path = folders({"cat": 20, "dog": 20})
    given = {"train_path": path, "img_size": 16, "batch_size": 8}
    head = Trainer(train_layers="head", **given)
    head.optimize(1)
    both = Trainer(pretrained="checkpoints/lenet5", lr=0.001, **given)
    for name in ("conv1/kernel:0", "fc3/kernel:0"):
        assert np.array_equal(both.session.run(name), head.session.run(name))
    both.optimize(1)
    assert not np.array_equal(both.session.run("conv1/kernel:0"), head.session.run("conv1/kernel:0"))
    assert re.match(r"weights/lenet5/lenet5.pb", both.export())
