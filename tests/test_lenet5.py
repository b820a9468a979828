import numpy as np
import pytest

from models.lenet5 import LeNet
from src import config
from src.tf1 import tf


def build(size, total_class):
    graph = tf.Graph()
    with graph.as_default():
        model = LeNet([None, size, size, 3], total_class)
        shapes = {variable.op.name: variable.shape.as_list() for variable in tf.trainable_variables()}
    return graph, model, shapes


def test_shapes_and_parameters_are_those_worked_out_by_hand():
    graph, model, shapes = build(32, 10)
    assert shapes == {
        "conv1/kernel": [5, 5, 3, 6],
        "conv1/bias": [6],
        "conv2/kernel": [5, 5, 6, 16],
        "conv2/bias": [16],
        "fc1/kernel": [400, 120],
        "fc1/bias": [120],
        "fc2/kernel": [120, 84],
        "fc2/bias": [84],
        "fc3/kernel": [84, 10],
        "fc3/bias": [10],
    }
    # 456 + 2,416 + 48,120 + 10,164 + 850
    assert sum(np.prod(shape) for shape in shapes.values()) == 62006
    assert [op.outputs[0].shape.as_list() for op in graph.get_operations() if op.type in ("Conv2D", "MaxPool")] == [
        [None, 28, 28, 6],
        [None, 14, 14, 6],
        [None, 10, 10, 16],
        [None, 5, 5, 16],
    ]
    assert model.getInput().name == "Image:0" and model.getInput() is model.inputImage
    assert model.getOutput().name == "output:0" and model.getOutput() is model.output
    assert model.getOutput().shape.as_list() == [None, 10]


@pytest.mark.parametrize("size, flat", [(16, 16), (28, 256), (33, 400), (64, 2704)])  # 16 * side * side
def test_other_sizes_and_class_counts(size, flat):
    _, model, shapes = build(size, 3)
    assert shapes["fc1/kernel"] == [flat, 120]
    assert model.getOutput().shape.as_list() == [None, 3]


def test_class_count_comes_from_the_config_if_not_given(monkeypatch):
    monkeypatch.setitem(vars(config), "total_class", 7)
    assert build(32, None)[1].getOutput().shape.as_list() == [None, 7]


def test_first_weights_are_truncated_normal_of_sigma_a_tenth_and_biases_zero():
    graph, _, _ = build(32, 10)
    with graph.as_default(), tf.Session() as session:
        session.run(tf.global_variables_initializer())
        values = {variable.op.name: session.run(variable) for variable in tf.trainable_variables()}
    for name, value in values.items():
        if name.endswith("/bias"):
            assert not value.any()
        else:
            assert abs(value).max() <= 0.2  # nothing beyond two sigma
    # A normal distribution cut off at two sigma has 0.8796 of its sigma left.
    assert abs(values["fc1/kernel"].std() - 0.08796) < 0.001
    assert abs(values["fc1/kernel"].mean()) < 0.002


def test_forward_pass_equals_one_in_numpy():
    graph, model, _ = build(20, 4)
    image = np.random.RandomState(0).randn(1, 20, 20, 3).astype(np.float32)
    with graph.as_default(), tf.Session() as session:
        session.run(tf.global_variables_initializer())
        w = {variable.op.name: session.run(variable) for variable in tf.trainable_variables()}
        w["conv1/bias"] = np.linspace(-1, 1, 6)
        w["fc3/bias"] = np.linspace(-1, 1, 4)
        for variable in tf.trainable_variables():
            variable.load(w[variable.op.name], session)
        found = session.run(model.getOutput(), {model.getInput(): image})

    x = image[0].astype(np.float64)
    for name in ("conv1", "conv2"):
        side = x.shape[0] - 4
        x = np.array(
            [
                [np.tensordot(x[i : i + 5, j : j + 5], w[f"{name}/kernel"], 3) + w[f"{name}/bias"] for j in range(side)]
                for i in range(side)
            ]
        )
        x = np.maximum(x, 0).reshape(side // 2, 2, side // 2, 2, -1).max(axis=(1, 3))
    x = x.ravel()
    for name in ("fc1", "fc2"):
        x = np.maximum(x.dot(w[f"{name}/kernel"]) + w[f"{name}/bias"], 0)
    np.testing.assert_allclose(found[0], x.dot(w["fc3/kernel"]) + w["fc3/bias"], rtol=1e-4, atol=1e-5)
