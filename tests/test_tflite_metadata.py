"""Metadata in .tflite files, and --rgb. What is written is read by hand, by TensorFlow and by MediaPipe."""

import json
import os
import struct
import zipfile

import cv2
import numpy as np
import pytest

from src.tf1 import IS_1_14
from tests.conftest import run_graph, without_origin
from tests.helpers.conversions import GRAPH, convert, files
from tests.test_convert import open_tflite, run_tflite, softmax

PATH = "weights/lenet5/lenet5.tflite"
JSON = "weights/lenet5/lenet5.json"
PHONE_FILES = {
    "none": "weights/lenet5/lenet5-rgb.tflite",
    "float16": "weights/lenet5/lenet5-rgb-float16.tflite",
    "int8": "weights/lenet5/lenet5-rgb-int8.tflite",
}
NOTE = "takes {}, normalized per channel; MediaPipe and ML Kit need python -m convert.pb2tflite --rgb\n"
UNKNOWN, RGB = 0, 1  # ColorSpaceType


def number(data, position, kind="<I"):
    return struct.unpack_from(kind, data, position)[0]


def field(data, table, index):
    """The position of a field of a table, None if the table does not have it."""
    layout = table - number(data, table, "<i")
    is_there = 4 + 2 * index < number(data, layout, "<H") and number(data, layout + 4 + 2 * index, "<H")
    return table + number(data, layout + 4 + 2 * index, "<H") if is_there else None


def find(data, table, *path):
    """The position of what a path of fields leads to; each is a reference, of a vector to its first entry."""
    for index in path:
        place = field(data, table, abs(index))
        table = place + number(data, place)
        if index < 0:  # a vector of tables
            assert number(data, table) == 1
            table += 4 + number(data, table + 4)
    return table


def text(data, table, index):
    start = find(data, table, index)
    return bytes(data[start + 4 : start + 4 + number(data, start)]).decode("utf-8")


def floats(data, table, index):
    start = find(data, table, index)
    return np.frombuffer(data, "<f4", number(data, start), start + 4)


def tables(data, table, index):
    start = find(data, table, index)
    places = [start + 4 + 4 * entry for entry in range(number(data, start))]
    return [place + number(data, place) for place in places]


def metadata_of(path):
    """The metadata of a .tflite file, a FlatBuffer by the schema that MediaPipe publishes."""
    with open(path, "rb") as file:
        data = file.read()
    model = number(data, 0)
    assert data[4:8] == b"TFL3"
    (entry,) = [entry for entry in tables(data, model, 6) if text(data, entry, 0) == "TFLITE_METADATA"]
    buffer = tables(data, model, 4)[number(data, field(data, entry, 1))]
    start = find(data, buffer, 0)
    return data[start + 4 : start + 4 + number(data, start)]


def normalization(path):
    """(colour space, mean, std) of the input, after checking the rest of the metadata."""
    data = metadata_of(path)
    model = number(data, 0)
    assert data[4:8] == b"M001" and text(data, model, 0) == "lenet5" and text(data, model, 7) == "1.0.0"
    image, output = find(data, model, -3, -2), find(data, model, -3, -3)
    assert text(data, image, 0) == "Image" and text(data, output, 0) == "output"
    labels, content, process = find(data, output, -6), find(data, image, 3), find(data, image, -4)
    assert text(data, labels, 0) == "labels.txt" and data[field(data, labels, 2)] == 2  # TENSOR_AXIS_LABELS
    assert data[field(data, content, 0)] == 2 and data[field(data, process, 0)] == 1  # image, normalization
    threshold = find(data, output, -4)
    assert data[field(data, threshold, 0)] == 3  # score thresholding; logits below 0 count as well
    assert number(data, field(data, find(data, threshold, 1), 0), "<f") < -1e6
    colour, options = data[field(data, find(data, content, 1), 0)], find(data, process, 1)
    return colour, floats(data, options, 0), floats(data, options, 1)


def read_labels(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["labels.txt"]
        return archive.read("labels.txt").decode("utf-8")


def change_json(**changed):
    with open(JSON) as file:
        about = json.load(file)
    with open(JSON, "w") as file:
        json.dump(dict(about, **changed), file)


@pytest.fixture
def levels(digits):
    """The fixture images before normalization: uint8, channels blue, green, red."""
    paths = sorted(os.path.join(folder, name) for folder, _, names in os.walk(digits + "/test") for name in names)[::18]
    images = np.array([cv2.resize(cv2.imread(path), (32, 32)) for path in paths])
    images[..., 0] //= 2  # digits are grey: the order of the channels must matter
    return images


def prepared(levels):
    """As the network takes them."""
    return ((levels / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_metadata_of_a_file_that_takes_what_the_graph_takes(exported, monkeypatch, capsys, quantize):
    path = PATH if quantize == "none" else PATH.replace(".", "-int8.")
    assert convert(monkeypatch, "convert.pb2tflite", "--quantize", quantize) == 0
    assert without_origin(capsys.readouterr().err) == f"note: {path} {NOTE.format('BGR')}"
    colour, mean, std = normalization(path)
    assert colour == UNKNOWN
    np.testing.assert_allclose(mean, [123.675, 116.28, 103.53], rtol=1e-6)  # 255 times 0.485, 0.456, 0.406
    np.testing.assert_allclose(std, [58.395, 57.12, 57.375], rtol=1e-6)  # 255 times 0.229, 0.224, 0.225
    assert read_labels(path) == "".join(f"{digit}\n" for digit in range(10))


@pytest.mark.parametrize("order", ["bgr", "rgb"])
@pytest.mark.parametrize("quantize, difference", [("none", 1e-5), ("float16", 0.01), ("int8", 0.2)])
def test_a_file_for_phones_takes_rgb_levels(exported, levels, monkeypatch, capsys, order, quantize, difference):
    if quantize == "float16" and IS_1_14:
        pytest.skip("TensorFlow 1.14 cannot write float16")
    change_json(channel_order=order)
    assert convert(monkeypatch, "convert.pb2tflite", "--rgb", "--quantize", quantize) == 0
    assert without_origin(capsys.readouterr().err) == ""
    (path,) = set(files()) - set(exported)
    assert path == PHONE_FILES[quantize]
    colour, mean, std = normalization(path)
    assert (colour, mean.tolist(), std.tolist()) == (RGB, [0, 0, 0], [1, 1, 1])
    (image,), (output,) = open_tflite(path).get_input_details(), open_tflite(path).get_output_details()
    assert (image["name"], image["dtype"], output["name"], output["dtype"]) == (
        "Image",
        np.float32,
        "output",
        np.float32,
    )

    rgb = levels[..., ::-1]
    taken = ((levels if order == "bgr" else rgb) / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    expected, found = run_graph(GRAPH, taken.astype(np.float32)), run_tflite(path, rgb.astype(np.float32))
    assert np.abs(found - expected).max() <= difference * np.abs(expected).max()
    assert quantize == "int8" or (found.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_a_network_that_phones_can_feed_needs_no_note(exported, monkeypatch, capsys):
    same = {"image_normalize_mean": [0.5] * 3, "image_normalize_std": [0.25] * 3}
    change_json(channel_order="rgb", **same)
    assert convert(monkeypatch, "convert.pb2tflite") == 0
    assert without_origin(capsys.readouterr().err) == ""
    colour, mean, std = normalization(PATH)
    assert (colour, mean.tolist(), std.tolist()) == (RGB, [127.5] * 3, [63.75] * 3)
    change_json(channel_order="bgr", **same)
    assert convert(monkeypatch, "convert.pb2tflite") == 0
    assert NOTE.format("BGR") in capsys.readouterr().err
    change_json(channel_order="rgb")
    change_json(image_normalize_std=[0.25, 0.25, 0.5])
    assert convert(monkeypatch, "convert.pb2tflite") == 0
    assert NOTE.format("RGB") in capsys.readouterr().err


NAMES = ["a, b", "Äpfel", "猫", "🦉", 'say "x"', "  spaces  ", "semi;colon", "\u0661", "100 %", "x" * 200]


def test_odd_class_names(reference):
    from convert.pb2tflite import convert as write

    reference.predictor.metadata["classes"] = NAMES
    write(reference, "none", False, "odd.tflite")
    assert read_labels("odd.tflite").split("\n") == NAMES + [""]


@pytest.mark.parametrize("names", [["a\nb"], [""], ["\u2028"], ["a", "a"], ["\ud800"]])
def test_class_names_that_a_list_of_labels_cannot_hold(exported, monkeypatch, capsys, names):
    change_json(classes=names + [str(digit) for digit in range(10 - len(names))])
    assert convert(monkeypatch, "convert.pb2tflite", "--rgb") == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: metadata {JSON}: found ") and "for classes" in err and err.count("\n") == 1
    assert files() == exported


def test_the_same_graph_gives_the_same_file(exported, monkeypatch):
    written = []
    for _ in range(2):
        assert convert(monkeypatch, "convert.pb2tflite", "--rgb") == 0
        with open(PHONE_FILES["none"], "rb") as file:
            written.append(file.read())
    assert written[0] == written[1]


def as_text(model):
    """All fields of an object of the generated reader."""
    return json.dumps(model, default=lambda part: str(list(part)) if hasattr(part, "__iter__") else vars(part))


@pytest.mark.skipif(IS_1_14, reason="TensorFlow 1.14 has no reader of the schema")
def test_tensorflow_finds_all_that_was_in_the_file_before(reference):
    """By the reader that is generated from its schema."""
    from tensorflow.lite.python import schema_py_generated as schema

    from convert.tflite_metadata import with_metadata
    from src.tf1 import tf

    before = tf.lite.TFLiteConverter.from_frozen_graph(GRAPH, ["Image"], ["output"]).convert()
    after = with_metadata(before, b"new")
    old, new = (schema.ModelT.InitFromPackedBuf(data, 0) for data in (before, after))
    entry, buffer = new.metadata.pop(), new.buffers.pop()
    assert (entry.name, entry.buffer, bytes(buffer.data)) == (b"TFLITE_METADATA", len(old.buffers), b"new")
    assert as_text(old) == as_text(new)
    assert after.index(before) % 16 == 0  # weights stay aligned


@pytest.mark.parametrize("quantize, difference", [("none", 1e-5), ("int8", 0.2)])
def test_mediapipe_answers_as_the_graph_does(exported, levels, monkeypatch, quantize, difference):
    mediapipe = pytest.importorskip("mediapipe", reason="needs mediapipe")
    vision = mediapipe.tasks.vision
    assert convert(monkeypatch, "convert.pb2tflite", "--rgb", "--quantize", quantize) == 0
    path = PHONE_FILES[quantize]
    options = vision.ImageClassifierOptions(base_options=mediapipe.tasks.BaseOptions(model_asset_path=path))
    found = []
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for image in levels:
            pixels = mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(image[..., ::-1]))
            categories = classifier.classify(pixels).classifications[0].categories
            scores = {category.category_name: category.score for category in categories}
            found.append([scores[str(digit)] for digit in range(10)])
    expected = run_graph(GRAPH, prepared(levels))
    assert np.abs(np.array(found) - expected).max() <= difference * np.abs(expected).max()
    if quantize == "none":
        np.testing.assert_allclose(softmax(np.array(found)), softmax(expected), atol=1e-4)
