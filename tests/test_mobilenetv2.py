import os

import cv2
import numpy as np
import pytest
import sklearn.datasets
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dataset import read_test_set
from models.mobilenetv2 import MobileNetv2
from src.errors import InputError
from src.settings import settings
from src.tf1 import tf
from tests.conftest import REPOSITORY, load_graph, preprocess, python, run_graph, run_opencv, run_py
from trainer import Trainer
from utils.checkpoints.manager import assign, find_checkpoint
from utils.checkpoints.pretrained import inherit_settings

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


def assert_images_differ_alike(found, expected):
    """Answers [n, classes], less that to the first image: of random weights, most is the same for every image."""
    found, expected = found - found[0], expected - expected[0]
    assert np.abs(expected).max() > 0.01
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()


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


def test_weight_decay_is_part_of_the_cost_and_logged(trained):
    images, labels, _, _ = trained.data.train.next_batch(32)
    cross_entropy, cost, weight_loss = trained.session.run(
        [trained.cross_entropy, trained.cost, trained.learning.scalars["weight_loss"]],
        {trained.x: images, trained.y_true: labels},
    )
    kernels = trained.session.run([variable for variable in trained.variables if "kernel" in variable.op.name])
    assert len(kernels) == 53
    assert weight_loss == pytest.approx(4e-5 / 2 * sum((kernel**2).sum() for kernel in kernels), rel=1e-4)
    assert cost == pytest.approx(cross_entropy.mean() + weight_loss, rel=1e-5)
    events = EventAccumulator(trained.run_folder)
    events.Reload()
    assert len(events.Scalars("weight_loss")) == 2


def test_the_reported_cost_is_that_of_the_weights_before_the_step(digits, in_tmp_path):
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
    assert "took 260 of 262 variables, all but logits/kernel, logits/bias" in capsys.readouterr().out
    for name, value in tuned.session.run({v.op.name: v for v in tuned.variables}).items():
        assert np.array_equal(value, weights[name]) == (not name.startswith("logits"))
    assert tuned.session.run(tuned.global_step) == 0


def test_fine_tuning_needs_checkpoints_that_fit(trained, shallow, digits, in_tmp_path):
    folder = trained.config.checkpoint_dir
    for source in ("nowhere", str(in_tmp_path), f"{folder}/mobilenetv2-9"):
        with pytest.raises(InputError, match=f"setting pretrained: found {source}"):
            Trainer(pretrained=source, **three_classes(digits))
    with pytest.raises(InputError, match="setting pretrained: found nothing in .* that fits"):
        Trainer(pretrained=folder, train_path=f"{digits}/train")


def test_size_width_and_normalization_are_those_of_the_pretrained_network(trained, digits, in_tmp_path, capsys):
    """trained: 40 px and width 0.35."""
    folder = trained.checkpoints.folder
    given = {"model_arch": "mobilenetv2", "train_path": f"{digits}/train", "pretrained": folder, "classes": ["3", "5"]}
    tuned = Trainer(**given)
    assert (tuned.config.img_size, tuned.config.width, tuned.config.channel_order) == (40, 0.35, "bgr")
    assert f"weights of {folder}/mobilenetv2-111: took 260 of 262" in capsys.readouterr().out
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
    ((images, labels, _, _),) = read_test_set(config, preprocess(32)).batches(360)
    logits = run_graph(path, images)
    assert len(images) > 150 and np.mean(logits.argmax(axis=1) == labels.argmax(axis=1)) > 0.95
    assert np.abs(logits - run_opencv(path, images)).max() <= 1e-4 * np.abs(logits).max()
    inherited = inherit_settings({"model_arch": "mobilenetv2", "pretrained": "checkpoints/mobilenetv2"})
    assert inherited.strides == "small"
