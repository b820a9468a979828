"""MobileNetV2 beside the one in Keras and the tables of the paper."""

import os

import cv2
import numpy as np
import pytest
import sklearn.datasets

from models.mobilenetv2 import MobileNetv2
from src.settings import settings
from src.tf1 import tf
from tests.conftest import REPOSITORY, assert_images_differ_alike, preprocess, python
from trainer import Trainer
from utils.checkpoints.manager import assign

HALVED = {"small": ["block4/depthwise", "block7/depthwise", "block14/depthwise"]}  # what has stride 2
HALVED["paper"] = ["first", "block2/depthwise"] + HALVED["small"]
KERAS = os.path.join(REPOSITORY, "tests", "helpers", "keras_mobilenetv2.py")


def photos(count, size):
    """Crops of the two photos that come with scikit-learn, normalized as everything is."""
    folder = os.path.join(os.path.dirname(sklearn.datasets.__file__), "images")
    images = []
    for index in range(count):
        photo = cv2.imread(os.path.join(folder, ("china.jpg", "flower.jpg")[index % 2]))
        images.append(photo[20 * index : 20 * index + 300, 40 * index : 40 * index + 300])
    prepared = preprocess(size)
    return prepared.normalize(np.stack([prepared.fit(image) for image in images]))


def build(size, width, is4Train, strides="paper"):
    graph = tf.Graph()
    with graph.as_default():
        return graph, MobileNetv2([None, size, size, 3], is4Train, width, 10, momentum=0.999, strides=strides)


def load(session, values):
    variables = tf.global_variables()  # in the order of the layers, as Keras has them
    assert [variable.shape.as_list() for variable in variables] == [list(value.shape) for value in values]
    assign(session, variables, {variable.op.name: value for variable, value in zip(variables, values)})


NETWORKS = [(224, 1.0, "paper"), (32, 0.5, "small")]
LABELS = np.eye(10, dtype=np.float32)[[3, 1, 4, 1]]


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory):
    """A folder with what keras_mobilenetv2.py takes and writes for all of them, in one process."""
    folder, arguments = tmp_path_factory.mktemp("keras"), []
    for size, width, strides in NETWORKS:
        np.savez(str(folder / f"in{size}.npz"), images=photos(4, size), labels=LABELS)
        arguments += [f"in{size}.npz", f"out{size}.npz", str(size), str(width), strides]
    done = python(KERAS, *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module", params=NETWORKS, ids=str)
def keras(request, keras_files):
    """What Keras's network is and does: size, width, strides, the images, and the .npz of keras_mobilenetv2.py."""
    size, width, strides = request.param
    found = dict(np.load(str(keras_files / f"out{size}.npz")))
    found["weights"] = [found[name] for name in sorted(found) if name.startswith("w")]
    found["after"] = [found[name] for name in sorted(found) if name.startswith("after")]
    return size, width, strides, photos(4, size), LABELS, found


def test_predictions_equal_keras_s(keras):
    size, width, strides, images, _, expected = keras
    graph, model = build(size, width, False, strides)
    with graph.as_default(), tf.Session() as session:
        load(session, expected["weights"])
        logits = session.run(model.getOutput(), {model.getInput(): images})
    logarithms = np.log(expected["probabilities"].astype(np.float64))  # logits but for a constant for each image
    found = logits - logits.mean(axis=1, keepdims=True)
    logarithms -= logarithms.mean(axis=1, keepdims=True)
    assert np.abs(found - logarithms).max() <= 1e-4 * np.abs(found).max()
    assert_images_differ_alike(found, logarithms)


def test_a_training_step_equals_keras_s(keras):
    size, width, strides, images, labels, expected = keras
    graph, model = build(size, width, True, strides)
    with graph.as_default(), tf.Session() as session:
        y_true = tf.placeholder(tf.float32, [None, 10])
        cost = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(logits=model.getOutput(), labels=y_true))
        kernels = [variable for variable in tf.trainable_variables() if variable.op.name.endswith("kernel")]
        gradients = tf.gradients(cost, [kernels[0], kernels[-1]])
        load(session, expected["weights"])
        feed = {model.getInput(): images, y_true: labels}
        found_cost, (first, last) = session.run([cost, gradients], feed)
        session.run(tf.get_collection(tf.GraphKeys.UPDATE_OPS), feed)
        after = session.run({variable.op.name: variable for variable in tf.global_variables()})
        names = [variable.op.name for variable in tf.global_variables()]

    assert found_cost == pytest.approx(float(expected["cost"]), rel=1e-4)
    for found, name in ((first, "first_gradient"), (last, "last_gradient")):
        assert np.abs(found - expected[name]).max() <= 1e-3 * np.abs(expected[name]).max()

    # Keras 3 follows the variance of the batch, fused batch norm that of the population: N / (N - 1) times as much.
    side, corrected = size, tf.__version__.startswith("1.")
    for name, before, theirs in zip(names, expected["weights"], expected["after"]):
        if name in [f"{scope}/kernel" for scope in HALVED[strides]]:
            side = -(-side // 2)  # stride 2
        count = len(images) * side * side
        if name.endswith("moving_mean"):
            np.testing.assert_allclose(
                (after[name] - 0.999 * before) / 0.001, (theirs - 0.999 * before) / 0.001, rtol=1e-3, atol=1e-3
            )
        if name.endswith("moving_variance"):
            variance = (theirs - 0.999 * before) / 0.001 * (1 if corrected else count / (count - 1.0))
            np.testing.assert_allclose((after[name] - 0.999 * before) / 0.001, variance, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "width, depths", [(0.35, [16, 8, 8, 16, 24, 32, 56, 112, 1280]), (1.4, [48, 24, 32, 48, 88, 136, 224, 448, 1792])]
)
def test_other_widths_are_rounded_to_multiples_of_8(width, depths):
    """The depths of the networks that TF-slim publishes for these widths."""
    graph, _ = build(96, width, is4Train=True)
    names = ["first"] + [f"block{block}/project" for block in (1, 2, 4, 7, 11, 14, 17)] + ["last"]
    assert [graph.get_tensor_by_name(f"{name}/kernel:0").shape.as_list()[-1] for name in names] == depths


def normalized(graph, name):
    """The shape of what batch norm leaves in that variable scope, without the batch."""
    return [
        operation.outputs[0].shape.as_list()[1:]
        for operation in graph.get_operations()
        if operation.name.startswith(f"{name}/FusedBatchNorm") and len(operation.outputs) > 1
    ][0]


def test_small_strides_leave_the_parameters_as_they_are_and_more_of_the_image():
    for strides, expected in (("paper", [16, 8, 4, 2, 1]), ("small", [32, 32, 16, 8, 4])):
        graph, _ = build(32, 1.0, True, strides)
        with graph.as_default():
            assert sum(np.prod(variable.shape.as_list()) for variable in tf.trainable_variables()) == 2236682
        names = ["first"] + [f"block{block}/project" for block in (3, 6, 13)] + ["last"]
        assert [normalized(graph, name)[0] for name in names] == expected


def test_parameters_and_shapes_of_the_paper():
    graph, model = build(224, 1.0, is4Train=True)
    with graph.as_default():
        # Keras's count for 1,000 classes, 3,504,872, less 990 * 1,281 for the classes that are missing.
        assert sum(np.prod(variable.shape.as_list()) for variable in tf.trainable_variables()) == 2236682
    assert model.getOutput().name == "output:0" and model.getInput().name == "Image:0"
    names = ["first"] + [f"block{block}/project" for block in (1, 3, 6, 10, 13, 16, 17)] + ["last"]
    assert [normalized(graph, name) for name in names] == [
        [112, 112, 32],
        [112, 112, 16],
        [56, 56, 24],
        [28, 28, 32],
        [14, 14, 64],
        [14, 14, 96],
        [7, 7, 160],
        [7, 7, 320],
        [7, 7, 1280],
    ]
    assert "block1/expand/kernel" not in [operation.name for operation in graph.get_operations()]  # t = 1


def test_momentum_of_the_moving_statistics_is_a_setting(digits, shallow, in_tmp_path):
    means = []
    for momentum in (0, 0.75):
        trainer = Trainer(
            model_arch="mobilenetv2",
            train_path=f"{digits}/train",
            img_size=32,
            width=0.35,
            batch_norm_momentum=momentum,
        )
        images, labels, _, _ = trainer.data.train.next_batch(32)
        trainer.session.run(trainer.optimizer, {trainer.x: images, trainer.y_true: labels})
        means.append(trainer.session.run(trainer.graph.get_tensor_by_name("first/moving_mean:0")))
    assert np.abs(means[0]).max() > 0.01
    np.testing.assert_allclose(means[1], means[0] / 4, rtol=1e-4, atol=1e-6)  # from 0, a quarter of the way


def test_the_reported_cost_is_that_of_the_weights_before_the_step(digits, shallow, in_tmp_path):
    trainer = Trainer(model_arch="mobilenetv2", train_path=f"{digits}/train", img_size=32, width=0.35, weight_decay=1.0)
    images, labels, _, _ = trainer.data.train.next_batch(32)
    feed = {trainer.x: images, trainer.y_true: labels}
    for _ in range(5):
        before = trainer.session.run(trainer.cost, feed)
        assert trainer.session.run([trainer.optimizer, trainer.cost], feed)[1] == pytest.approx(before, rel=1e-6)


def test_model_arch_alone_switches_size_weight_decay_and_folders():
    chosen = settings(model_arch="mobilenetv2")
    assert (chosen.img_size, chosen.weight_decay, chosen.width) == (224, 4e-5, 1.0)
    assert (chosen.checkpoint_dir, chosen.weight_dir, chosen.tensorboard_dir) == (
        "checkpoints/mobilenetv2",
        "weights/mobilenetv2",
        "graphs/mobilenetv2",
    )
    assert settings().weight_decay == 0
