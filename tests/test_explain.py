"""Heat maps (Grad-CAM) against an example worked out by hand, and where the answer is known; report.html."""

import os
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

import run
from src.errors import InputError
from src.tf1 import tf
from trainer import Trainer
from utils.images.plots import draw_grid, escape_label
from utils.inference.evaluation import evaluate
from utils.inference.explain import Explainer, draw_explained_mistakes, draw_explanations, grad_cam
from utils.inference.html_report import render_html
from utils.inference.predictor import Predictor


def metadata(size, classes):
    return {
        "classes": classes, "channel_order": "bgr", "image_normalize_mean": [0, 0, 0], "image_normalize_std": [1, 1, 1],
        "resize": "stretch", "input": {"name": "Image", "shape": [None, size, size, 3]},
        "output": {"name": "output", "shape": [None, len(classes)]}, "run": {},
    }  # fmt: skip


def test_a_heat_map_worked_out_by_hand():
    """The weights are the means of the gradients, 1 and -2; relu(1 * f0 - 2 * f1) = relu([[4 - 2, 1], [0 - 2, 3]])."""
    features = np.array([[[4, 1], [1, 0]], [[0, 1], [3, 0]]], np.float32)
    gradients = np.array([[[0, -2], [2, -2]], [[1, -4], [1, 0]]], np.float32)
    np.testing.assert_allclose(grad_cam(features, gradients, 2), [[2, 1], [0, 3]], rtol=1e-6)
    assert grad_cam(-features, np.ones_like(gradients), 2).max() == 0  # nothing speaks for it


def linear_network():
    """A 1x1 convolution with ReLU, its mean, and a matrix product: the gradients of the logits are known."""
    kernel = np.array([[1, 0], [0, 1], [0, 0]], np.float32).reshape(1, 1, 3, 2)
    matrix = np.array([[2, -1], [-3, 4]], np.float32)
    with tf.Graph().as_default() as graph:
        image = tf.placeholder(tf.float32, [None, 4, 4, 3], name="Image")
        features = tf.nn.relu(tf.nn.conv2d(image, tf.constant(kernel), [1, 1, 1, 1], "SAME"))
        tf.matmul(tf.reduce_mean(features, [1, 2]), tf.constant(matrix), name="output")
        return graph.as_graph_def(), matrix


def test_the_heat_maps_of_a_linear_network_have_one_scale():
    """Its gradients are the same everywhere: the column of the matrix / 16; a map is relu(features . column) / 16."""
    graph_def, matrix = linear_network()
    explainer = Explainer(Predictor(graph_def, metadata(4, ["a", "b"]), "linear"))
    image = np.random.RandomState(0).rand(4, 4, 3).astype(np.float32)
    expected = np.stack([np.maximum(image[..., :2] @ matrix[:, label], 0) for label in (0, 1)])
    assert expected[0].max() < 0.6 * expected[1].max()
    np.testing.assert_allclose(explainer.heat_maps(image, [0, 1]), expected / expected.max(), atol=1e-5)
    (alone,) = explainer.heat_maps(image, [0])
    np.testing.assert_allclose(alone, expected[0] / expected[0].max(), atol=1e-5)


def test_the_heat_is_where_the_square_is(in_tmp_path):
    """A coloured square somewhere on a grey ground decides the class: at least 90 % of the maxima lie in it."""
    random, size = np.random.RandomState(0), 64
    side, places = size * 3 // 8, {}
    for part, count in (("train", 120), ("test", 25)):
        for name, colour in (("blue", (255, 0, 0)), ("red", (0, 0, 255))):
            os.makedirs(f"{part}/{name}")
            for number in range(count):
                image = random.randint(90, 160, (size, size, 3)).astype(np.uint8)
                top, left = random.randint(0, size - side, 2)
                image[top : top + side, left : left + side] = colour
                path = f"{part}/{name}/{number}.png"
                places[path] = (top, left)
                cv2.imwrite(path, image)
    trainer = Trainer(train_path="train", test_path="test", batch_size=16, img_size=size)
    trainer.optimize(8)
    explainer = Explainer(Predictor(trainer.export(last=True)))
    hits = []
    for path in [path for path in places if path.startswith("test")]:
        _, ((name, _, heat_map),) = explainer.explain(path, count=1)
        assert name == path.split("/")[1]
        row, column = np.unravel_index(heat_map.argmax(), heat_map.shape)
        top, left = places[path]
        hits.append(top <= row < top + side and left <= column < left + side)
    assert np.mean(hits) >= 0.9


def test_a_network_without_convolutions_cannot_be_explained():
    with tf.Graph().as_default() as graph:
        image = tf.placeholder(tf.float32, [None, 4, 4, 3], name="Image")
        tf.matmul(tf.reshape(image, [-1, 48]), tf.ones([48, 2]), name="output")
        predictor = Predictor(graph.as_graph_def(), metadata(4, ["a", "b"]), "flat.pb")
    with pytest.raises(InputError, match="graph flat.pb: found no convolution, expected one for Grad-CAM"):
        Explainer(predictor)


def test_a_network_whose_answer_has_no_gradient_cannot_be_explained():
    with tf.Graph().as_default() as graph:
        image = tf.placeholder(tf.float32, [None, 4, 4, 3], name="Image")
        features = tf.nn.conv2d(image, tf.ones([1, 1, 3, 2]), [1, 1, 1, 1], "SAME")
        tf.reduce_mean(tf.floor(features), [1, 2], name="output")
        predictor = Predictor(graph.as_graph_def(), metadata(4, ["a", "b"]), "flat.pb")
    with pytest.raises(InputError, match="graph flat.pb: found no gradient of the output with respect to"):
        Explainer(predictor)


class Links(HTMLParser):
    """What a page loads, how its elements are nested, and which tables are in no box that scrolls."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.open, self.text, self.too_wide = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "href")]
        if tag == "table" and self.open[-1] != "div":
            self.too_wide.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_of_an_evaluation_is_one_file_with_everything(folders, in_tmp_path):
    path = folders({"<b>cat & co": 20, "dog": 20})
    assert run.main(["--train_path", path, "--test_path", path, "--img_size", "16", "--batch_size", "8"]) == 0
    assert run.main(["evaluate"]) == 0
    (folder,) = os.listdir("graphs/lenet5")
    with open(f"graphs/lenet5/{folder}/report.html", encoding="utf-8") as file:
        page = file.read()
    found = Links(page)
    assert found.open == [] and found.too_wide == [] and len(found.loads) == 6
    assert "img { max-width: 100%; height: auto; }" in page  # pictures scale instead
    assert all(link.startswith("data:image/png;base64,") for link in found.loads)
    assert "<b>cat & co" in found.text and "Settings" in found.text


class Grids(list):
    """What draw_grid is asked to draw: (images, titles, heading) of each figure."""

    def __call__(self, path, images, titles, heading, columns):
        self.append((images, titles, heading))


@pytest.fixture
def grids(monkeypatch):
    found = Grids()
    monkeypatch.setattr("utils.inference.explain.draw_grid", found)
    return found


def test_heat_maps_are_under_the_names_of_their_files_and_have_one_scale(tmp_path, grids):
    graph_def, matrix = linear_network()
    predictor = Predictor(graph_def, metadata(4, ["cat", "a long name of a dog"]), "linear")
    pixels = np.random.RandomState(0).randint(0, 256, (4, 4, 3)).astype(np.uint8)
    folder = tmp_path / "a long name of a folder"
    folder.mkdir()
    paths = [str(folder / name) for name in ("1.png", "a_long_name_of_a_file_12.png")]
    for path in paths:
        cv2.imwrite(path, pixels)
    draw_explanations("explanation.png", Explainer(predictor), paths)
    draw_explained_mistakes("mistakes_explained.png", Explainer(predictor), paths[:1], np.array([0]))
    logits = pixels[..., :2].reshape(-1, 2).mean(axis=0) / 255 @ matrix
    dog = 100 / (1 + np.exp(logits[0] - logits[1]))
    assert dog > 50
    texts = [f"a long n… of a dog\n{dog:.1f} %", f"cat\n{100 - dog:.1f} %"]
    assert grids[0][1] == ["1.png", *texts, "a_long_n…le_12.png", *texts]
    assert grids[1][1] == ["1.png", f"predicted: {dog:.1f} %\na long n… of a dog", f"true: {100 - dog:.1f} %\ncat"]
    for images, _, heading in grids:
        assert heading.endswith("blue = no evidence,\nred = the strongest evidence in any map of its row")
        evidence = [np.maximum(pixels[..., :2] @ matrix[:, label], 0) for label in (1, 0)]
        for image, one in zip(images[1:], evidence):
            colours = cv2.applyColorMap(np.round(255 * one / np.max(evidence)).astype(np.uint8), cv2.COLORMAP_JET)
            expected = (pixels.astype(int) + colours)[..., ::-1] / 2
            assert np.abs(image - expected).max() <= 3


def test_names_that_are_not_utf_8_are_drawn(tmp_path):
    path = str(tmp_path / "grid.png")
    draw_grid(path, [np.zeros((4, 4, 3), np.uint8)], [escape_label(os.fsdecode(b"0\xff.png"), 18)], "heading")
    assert cv2.imread(path).std() > 5


PETS = evaluate(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]), ["cat", "dog"])


@pytest.mark.parametrize("content", [b"", "epoch,loss".encode("utf-16"), b'"' + b"x" * 200000])
def test_a_page_of_a_run_whose_history_is_damaged(tmp_path, content):
    (tmp_path / "history.csv").write_bytes(content)
    text = render_html("title", PETS, {"a": "b\x1b[31m"}, str(tmp_path))
    assert "Metrics of all epochs" not in text and "b\\x1b[31m" in text


def test_a_page_without_pictures(tmp_path):
    text = render_html("title", PETS, {"lr": 0.01}, str(tmp_path))
    assert "<td>cat</td><td>1.000</td><td>0.500</td><td>0.667</td><td>2</td>" in text and Links(text).loads == []
    assert "<p>3 images: loss 0.7419, accuracy 0.6667, balanced accuracy 0.7500, macro F1 0.6667</p>" in text
