"""A graph from elsewhere cannot take more of the machine than a network does, unless it is trusted."""

import json
import os
import re
import resource

import numpy as np
import pytest

from src.errors import InputError
from src.tf1 import tf
from tests.conftest import python
from utils.inference import graph_def as judged
from utils.inference.graph_def import check_resources
from utils.inference.predictor import Predictor
from utils.training.memory import numbers_in

SIZE = 16


def metadata(size=SIZE, classes=2):
    """What its JSON says of a graph."""
    return {
        "input": {"name": "Image", "shape": [None, size, size, 3]},
        "output": {"name": "output", "shape": [None, classes]},
        "image_normalize_mean": [0.5] * 3, "image_normalize_std": [0.5] * 3, "channel_order": "bgr",
        "classes": [str(number) for number in range(classes)],
    }  # fmt: skip


def make(build, size=SIZE, waits_for=None):
    """The GraphDef of a network: logits are the sum of each image and of what `build` makes of all images."""
    with tf.Graph().as_default() as graph:
        image = tf.placeholder(tf.float32, [None, size, size, 3], name="Image")
        made = build(image)
        sums = tf.reduce_sum(image, [1, 2])[:, :2]
        tf.identity(sums if waits_for else sums + tf.reduce_sum(tf.cast(made, tf.float32)), name="output")
    result = graph.as_graph_def()
    if waits_for:
        result.node[-1].input.append(f"^{waits_for}")
    return result


def write(path, graph_def, about=None):
    """Write a graph with its JSON; returns the path."""
    with open(f"{path}.pb", "wb") as file:
        file.write(graph_def.SerializeToString())
    with open(f"{path}.json", "w") as file:
        json.dump(about or metadata(), file)
    return f"{path}.pb"


def constant(shape, value=1.0):
    """A constant of that shape, of which the file holds one value."""
    value = tf.make_tensor_proto(value, shape=[1])
    del value.tensor_shape.dim[:]
    for size in shape:
        value.tensor_shape.dim.add(size=size)
    attributes = {"dtype": tf.AttrValue(type=value.dtype), "value": tf.AttrValue(tensor=value)}
    graph = tf.get_default_graph()
    return graph.create_op("Const", [], [tf.float32], name="large", attrs=attributes).outputs[0]


def shape_of_a_billion_numbers():
    """Only to know the shape of the reshaped images, TensorFlow calculates what says it, whatever its size."""
    graph_def = make(lambda image: tf.reshape(image, [-1], name="flat"))
    with tf.Graph().as_default() as graph:
        tf.fill([2**30], 2, name="fill")
    graph_def.node.extend(graph.as_graph_def().node)
    (flat,) = [node for node in graph_def.node if node.name == "flat"]
    flat.input[1] = "fill"
    return graph_def


def a_billion_outputs():
    graph_def = make(lambda image: tf.unstack(tf.fill([2], 1.0), name="parts"))
    (parts,) = [node for node in graph_def.node if node.name == "parts"]
    parts.attr["num"].i = 2**30
    return graph_def


def a_crowd():
    graph_def = make(tf.identity)
    for number in range(30000):
        graph_def.node.add(name=f"n{number}", op="NoOp")
    return graph_def


def a_chain(length=10000):
    graph_def = make(tf.identity)
    for number in range(length):
        node = graph_def.node.add(name=f"n{number}", op="Identity", input=[f"n{number - 1}" if number else "Image"])
        node.attr["T"].type = tf.float32.as_datatype_enum
    return graph_def


def doubled(image, times=32):
    for _ in range(times):
        image = tf.concat([image, image], 0)
    return image


def branches(image):
    """None of them is large, but all can be there before the first is added to another."""
    wide = [tf.tile(image, [1, 16, 16, 3 + number]) for number in range(30)]
    return tf.add_n([tf.reduce_sum(tensor) for tensor in wide])


def with_input(name):
    """The last node gets its input from the node of that name."""
    graph_def = make(tf.identity)
    graph_def.node[-1].input[0] = name
    return graph_def


# How the graphs are made, and what is said of them; all but two have less than two kilobytes.
HARMFUL = {
    "constant": (lambda: make(lambda image: constant([40000, 40000])), "found that large makes it 6.4 GB for 100"),
    "constants": (
        lambda: make(lambda _: [constant([20000, 10000]) for _ in range(9)]),
        r"that large_\d makes it 4.8 GB",
    ),
    "fill": (lambda: make(lambda image: tf.fill([40000, 40000], 1.0, name="fill")), "found that fill makes it 6.4 GB"),
    "strings": (lambda: make(lambda _: tf.fill([2**28], "a", name="b"), waits_for="b"), "found that b makes it 8.6 GB"),
    "waiting": (
        lambda: make(lambda _: tf.fill([2**31 - 1], 1.0, name="a"), waits_for="a"),
        "found that a makes it 8.6 GB",
    ),
    "shape": (shape_of_a_billion_numbers, "found that fill makes it 4.3 GB"),
    "range": (lambda: make(lambda image: tf.range(2**31 - 1, name="range")), "found that range makes it 8.6 GB"),
    "tile": (lambda: make(lambda image: tf.tile(image, [1, 200, 200, 1], name="a")), "found that a makes it 12.3 GB"),
    "pad": (lambda: make(lambda image: tf.pad(image, [[0, 0], [0, 999984], [0, 0], [0, 0]])), "Pad makes it 19.2 GB"),
    "sum": (lambda: make(lambda _: tf.fill([60000, 1], 1.0) + tf.fill([1, 60000], 1.0)), "makes it 14.4 GB"),
    "product": (lambda: make(lambda _: tf.fill([60000, 1], 1.0) @ tf.fill([1, 60000], 1.0)), "makes it 14.4 GB"),
    "resize": (lambda: make(lambda image: tf.image.resize_bilinear(image, [9000, 9000])), "makes it 97.2 GB"),
    "concat": (lambda: make(doubled), r"found that concat_13 makes it 5.0 GB"),
    "branches": (lambda: make(branches), "found tensors of 41.* GB at the same time for 100 images"),
    "crowd": (a_crowd, r"found 300\d\d nodes and outputs of nodes, expected at most 30000; --trust_graph"),
    "chain": (a_chain, "found 10001 nodes in a row, expected at most 10000; --trust_graph runs it anyway"),
    "outputs": (a_billion_outputs, "found 1073741.* nodes and outputs of nodes, expected at most 30000"),
    "values": (
        lambda: make(lambda image: tf.fill([tf.cast(image[0, 0, 0, 0], tf.int32)], 1.0)),
        "that the size of Fill",
    ),
    "circle": (lambda: with_input("output"), "found a cycle, or two nodes of one name, expected an acyclic graph"),
    "missing": (lambda: with_input("nowhere"), "found an input of .* that is not in it, expected a complete graph"),
}


def load_all(folder):
    """Load each of them with 2 GB of memory; print {name: what is said}, and the megabytes that it took to say it."""
    Predictor(write(os.path.join(folder, "harmless"), make(tf.identity)))
    before = numbers_in("/proc/self/status")["VmHWM"]  # ru_maxrss would begin at pytest's
    with open("/proc/self/statm") as file:
        room = int(file.read().split()[0]) * resource.getpagesize() + 2 * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    said = {}
    for name, (build, _) in HARMFUL.items():
        path = write(os.path.join(folder, name), build())
        try:
            Predictor(path)
        except InputError as error:
            said[name] = str(error)
    print(json.dumps([said, (numbers_in("/proc/self/status")["VmHWM"] - before) / 1024]))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("harmful"))
    done = python(
        "-c", "import sys; from tests.test_graph_def import load_all; load_all(sys.argv[1])", folder, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.parametrize("name", HARMFUL)
def test_a_graph_that_would_take_the_machine_is_refused_before_it_is_built(loaded, name):
    folder, (said, _) = loaded
    assert re.match(f"graph {folder}/{name}.pb: .*{HARMFUL[name][1]}", said[name]) and "\n" not in said[name]
    small = os.path.getsize(f"{folder}/{name}.pb") < 2000
    assert small or name in ("crowd", "chain", "concat", "branches", "constants")


def test_to_judge_them_takes_little_memory(loaded):
    assert loaded[1][1] < 500


def residual_network(blocks, depths, size):
    """As large as a frozen network that was not folded: after each convolution batch norm, a bias and swish."""

    def layer(x, depth, side, stride=1):
        kernel = constant([side, side, x.shape.as_list()[-1], depth])
        x = tf.nn.conv2d(x, kernel, [1, stride, stride, 1], "SAME")
        x = tf.nn.fused_batch_norm(x, *[constant([depth]) for _ in range(4)], is_training=False)[0]
        x = tf.nn.bias_add(x, constant([depth]))
        return x * tf.sigmoid(x)

    def build(image):
        x = layer(image, depths[0], 7, 2)
        for count, depth in zip(blocks, depths):
            for number in range(count):
                y = layer(layer(layer(x, depth, 1, 2 - (number > 0)), depth, 3), 4 * depth, 1)
                x = y + x if number else y
        return tf.reduce_mean(x, [1, 2])

    return make(build, size)


@pytest.mark.parametrize("blocks, depths, size, batch, nodes", [
    ((3, 8, 36, 3), (64, 128, 256, 512), 224, 34, 1500),  # ResNet-152, with more after each convolution
    ((4, 7, 7, 10, 10, 13, 4), (48, 48, 80, 160, 224, 384, 640), 600, 4, 1500),  # EfficientNet-B7, deeper at 300 px
])  # fmt: skip
def test_the_largest_networks_of_imagenet_are_not_too_large(blocks, depths, size, batch, nodes):
    graph_def = residual_network(blocks, depths, size)
    assert len(graph_def.node) > nodes
    check_resources(graph_def, metadata(size), "large", batch)


def test_what_can_be_in_memory_at_the_same_time_is_counted(monkeypatch):
    """For 5 images of 16 px, 4 bytes a number, worked out by hand."""
    graph_def = make(lambda image: tf.nn.relu(tf.nn.elu(image)) + constant([3]))
    always = 4 * (3 + 2 + 4 + 3 * 2)  # the constant; axes of both sums; begin, end and strides of the slice
    at_once = 2 * 15360 + 4 * 5 * (3 + 2)  # what ELU and ReLU give; the sum of each image and its slice
    monkeypatch.setattr(judged, "MAX_BYTES", always + at_once)
    check_resources(graph_def, metadata(), "graph", 5)
    monkeypatch.setattr(judged, "MAX_BYTES", always + at_once - 1)
    with pytest.raises(InputError, match="at the same time for 5 images"):
        check_resources(graph_def, metadata(), "graph", 5)


def test_sizes_that_tensorflow_works_out_from_shapes_are_known(tmp_path):
    """As Keras writes them: a switch for training, and a flattening that takes the shape of what it flattens."""

    def build(image):
        training = tf.placeholder_with_default(False, [])
        x = tf.cond(training, lambda: image * 2.0, lambda: image)
        return tf.reshape(x, tf.stack([tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:])]))

    images = np.ones([3, SIZE, SIZE, 3], np.float32)
    logits = Predictor(write(str(tmp_path / "keras"), make(build))).logits(images)
    np.testing.assert_allclose(logits, np.full([3, 2], 256 + 3 * 768))


def test_what_only_training_needs_can_have_any_size(tmp_path):
    def build(image):
        labels = tf.placeholder(tf.float32, [None, None])
        tf.reduce_sum(tf.tile(labels, [7, 7]))
        return image

    Predictor(write(str(tmp_path / "leftovers"), make(build)))


def test_a_graph_that_is_trusted_can_be_of_any_size(tmp_path, monkeypatch):
    path = write(str(tmp_path / "graph"), make(tf.identity))
    for limit in ("MAX_NODES", "MAX_DEPTH", "MAX_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(judged, limit, 3)
            with pytest.raises(InputError, match="--trust_graph runs it anyway"):
                Predictor(path)
            Predictor(path, trusted=True)


def test_a_graph_that_fails_on_some_images_only_is_reported_in_one_line(tmp_path):
    """It takes the row of a table that the first pixel says."""
    graph_def = make(lambda image: tf.gather([1.0, 2.0], tf.cast(image[0, 0, 0, 0], tf.int32)))
    predictor = Predictor(write(str(tmp_path / "graph"), graph_def))
    with pytest.raises(InputError, match="cannot be run on 1 float32 images") as raised:
        predictor.logits(np.full([1, SIZE, SIZE, 3], 9, np.float32))
    assert "\n" not in str(raised.value)
