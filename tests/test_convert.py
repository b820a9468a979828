"""The converters. What they write is run here with nothing of convert/."""

import os
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest

from convert.compare import FLOAT32, compare
from dataset import read_test_set
from src.console import quiet
from src.settings import settings
from src.tf1 import IS_1_14, tf
from tests.conftest import FIXTURES, REPOSITORY, accuracy_in_opencv, preprocess, run_graph, without_origin
from tests.helpers.conversions import GRAPH, convert, files


def open_tflite(path):
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(path)
        interpreter.allocate_tensors()
    return interpreter


def run_tflite(path, images):
    interpreter, answers = open_tflite(path), []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[np.newaxis])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0].copy())
    return np.array(answers)


def softmax(logits):
    shares = np.exp(logits.astype(np.float64))
    return shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    "quantize, name, size, difference",
    [
        ("none", "lenet5.tflite", 1.0, 1e-5),
        ("float16", "lenet5-float16.tflite", 0.53, 0.01),
        ("int8", "lenet5-int8.tflite", 0.31, 0.2),
    ],
)
def test_tflite_answers_as_the_graph_does(exported, images, monkeypatch, capsys, quantize, name, size, difference):
    if quantize == "float16" and IS_1_14:
        assert convert(monkeypatch, "convert.pb2tflite", "--quantize", "float16") == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and "float16, which TensorFlow 1.14 cannot write" in err
        assert files() == exported
        return
    assert convert(monkeypatch, "convert.pb2tflite", "--quantize", quantize) == 0
    assert set(files()) - set(exported) == {"weights/lenet5/" + name}
    interpreter = open_tflite("weights/lenet5/" + name)
    for details, label, shape in (
        (interpreter.get_input_details(), "Image", [1, 32, 32, 3]),
        (interpreter.get_output_details(), "output", [1, 10]),
    ):
        assert [entry["name"] for entry in details] == [label]
        assert details[0]["dtype"] == np.float32 and list(details[0]["shape"]) == shape
    expected, found = run_graph(GRAPH, images), run_tflite("weights/lenet5/" + name, images)
    assert np.abs(found - expected).max() <= difference * np.abs(expected).max()
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.95
    assert os.path.getsize("weights/lenet5/" + name) <= size * os.path.getsize(GRAPH) + 2000


@pytest.mark.skipif(not IS_1_14, reason="only TensorFlow 1.14 has toco_from_protos")
def test_toco_is_found_in_an_environment_that_is_not_active(exported):
    done = subprocess.run(
        [sys.executable, "-m", "convert.pb2tflite"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": REPOSITORY},
        universal_newlines=True,
    )
    assert done.returncode == 0 and without_origin(done.stderr).count("\n") == 1  # the note on --rgb


def run_savedmodel(folder, images):
    """(logits, probabilities) of serving_default, and the class names."""
    with tf.Graph().as_default(), tf.Session() as session:
        meta = tf.saved_model.load(session, ["serve"], folder)
        signature = meta.signature_def["serving_default"]
        assert list(signature.inputs) == ["Image"] and sorted(signature.outputs) == ["output", "probabilities"]
        assert signature.method_name == "tensorflow/serving/predict"
        answers = session.run(
            [signature.outputs[name].name for name in ("output", "probabilities")],
            {signature.inputs["Image"].name: images},
        )
        assert os.listdir(os.path.join(folder, "assets")) == ["labels.txt"]
        with open(os.path.join(folder, "assets", "labels.txt")) as file:
            return answers[0], answers[1], file.read().split()


def test_a_savedmodel_answers_as_the_graph_does(exported, images, monkeypatch):
    for _ in range(2):  # the second overwrites the first
        assert convert(monkeypatch, "convert.pb2savedmodel") == 0
    folder = "weights/lenet5/lenet5-savedmodel"
    assert os.listdir(folder) == ["1"] and sorted(os.listdir("weights/lenet5")) == [
        "labels.txt",
        "lenet5-savedmodel",
        "lenet5.json",
        "lenet5.pb",
    ]
    logits, probabilities, classes = run_savedmodel(folder + "/1", images)
    np.testing.assert_allclose(logits, run_graph(GRAPH, images), atol=1e-5)
    np.testing.assert_allclose(probabilities, softmax(logits), atol=1e-6)
    assert classes == [str(digit) for digit in range(10)]


@pytest.mark.skipif(IS_1_14, reason="tf.saved_model.load for eager mode came with TensorFlow 2")
def test_eager_tensorflow_2_reads_a_savedmodel(exported, images, monkeypatch):
    assert convert(monkeypatch, "convert.pb2savedmodel") == 0
    np.save("images.npy", images)
    code = (
        "import numpy, tensorflow as tf; model = tf.saved_model.load('weights/lenet5/lenet5-savedmodel/1'); "
        "answer = model.signatures['serving_default'](tf.constant(numpy.load('images.npy'))); "
        "numpy.save('logits.npy', answer['output'])"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
    np.testing.assert_allclose(np.load("logits.npy"), run_graph(GRAPH, images), atol=1e-5)


@pytest.mark.parametrize("runtime", ["1.14", "2.21"])
def test_a_savedmodel_of_either_runtime_answers_on_this_one(runtime):
    """Fixtures, made by tests/fixtures/make.py."""
    folder = os.path.join(FIXTURES, "tensorflow-" + runtime)
    answer = np.load(os.path.join(folder, "answer.npz"))
    logits, probabilities, classes = run_savedmodel(os.path.join(folder, "savedmodel"), answer["images"])
    np.testing.assert_allclose(logits, answer["logits"], atol=1e-5)
    np.testing.assert_allclose(probabilities, softmax(answer["logits"]), atol=1e-6)
    assert classes == ["cat", "dog", "owl"]


def test_onnx_answers_as_the_graph_does(exported, images, monkeypatch):
    import onnx
    import onnxruntime

    assert convert(monkeypatch, "convert.pb2onnx") == 0
    assert set(files()) - set(exported) == {"weights/lenet5/lenet5.onnx"}
    onnx.checker.check_model(onnx.load("weights/lenet5/lenet5.onnx"))
    session = onnxruntime.InferenceSession("weights/lenet5/lenet5.onnx")
    (image,), (output,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.shape, output.name, output.shape) == ("Image", ["n", 32, 32, 3], "output", ["n", 10])
    np.testing.assert_allclose(session.run(["output"], {"Image": images})[0], run_graph(GRAPH, images), atol=1e-5)


def test_all_conversions_make_one_table(exported, digits, monkeypatch, capsys):
    """Accuracy is what OpenCV makes of the graph; sizes are those of the files."""
    assert convert(monkeypatch, "convert") == 0
    out, err = capsys.readouterr()
    assert re.match("note: weights/lenet5/lenet5.tflite takes BGR, .*--rgb\n$", without_origin(err))
    made = (
        ["lenet5.pb", "lenet5.tflite"]
        + ["lenet5-float16.tflite"] * (not IS_1_14)
        + ["lenet5-int8.tflite", "lenet5-savedmodel/1", "lenet5.onnx"]
    )
    assert out.startswith("skipping float16") == IS_1_14
    rows = [line.split() for line in out.splitlines()[2 + IS_1_14 :]]
    assert [row[0] for row in rows] == made
    accuracy = f"({accuracy_in_opencv(GRAPH, digits + '/test'):.4f})"
    for row in rows:
        count = row.index("200" if IS_1_14 and "int8" in row[0] else "360")
        if row[count] == "360":
            assert row[count + 5] == accuracy
        if not row[0].endswith("/1"):
            assert row[count + 6] == f"{os.path.getsize('weights/lenet5/' + row[0]) / 1000000.0:.2f}"


def test_conversions_of_an_earlier_graph_are_reported(exported, monkeypatch, capsys):
    for module in ("convert.pb2tflite", "convert.pb2onnx"):
        assert convert(monkeypatch, module) == 0
        assert "older" not in capsys.readouterr().err
    later = os.path.getmtime("weights/lenet5/lenet5.onnx") + 3600
    os.utime(GRAPH, (later, later))  # as if training had exported it again, in an hour
    os.utime("weights/lenet5/lenet5.onnx", (later, later))
    assert convert(monkeypatch, "convert.pb2savedmodel") == 0
    assert without_origin(capsys.readouterr().err).splitlines() == [
        f"note: weights/lenet5/lenet5{end} is older than the graph, so it was converted from another"
        for end in (".tflite", "-savedmodel/1")
    ]


def test_what_is_compared(reference, digits):
    """A model that sees nothing but zeros, with a logit of 1 for them: its figures follow from the graph's answers."""
    zero = np.eye(10, dtype=np.float32)[:1]
    with open("model", "wb") as file:
        file.write(bytes(1000))
    found = compare(reference, lambda images: zero, "model", "a runtime", FLOAT32)
    data, _ = read_test_set(settings(train_path=digits + "/train", test_path=digits + "/test"), preprocess(32))
    logits = run_graph(GRAPH, np.concatenate([images for images, _, _, _ in data.batches(100)]))
    assert found.images == 360
    assert found.difference == pytest.approx(np.abs(logits - zero).max() / np.abs(logits).max(), rel=1e-4)
    assert found.same_class == pytest.approx((logits.argmax(axis=1) == 0).mean())
    zeros = len(os.listdir(digits + "/test/0"))
    assert found.accuracy == pytest.approx([zeros / 360.0, accuracy_in_opencv(GRAPH, digits + "/test")])
    assert found.sizes == [1000, os.path.getsize(GRAPH)]
    assert found.seconds[0] < found.seconds[1] < 1


def test_names_given_do_without_a_json(exported, digits, images, monkeypatch, capsys):
    os.remove("weights/lenet5/lenet5.json")
    names = ["--input", "Image", "--output", "output"]
    assert convert(monkeypatch, "convert.pb2onnx", *names) == 2
    assert "error: setting train_path: found no class folders" in capsys.readouterr().err
    assert (
        convert(
            monkeypatch,
            "convert.pb2onnx",
            *(names + ["--train_path", digits + "/train", "--test_path", digits + "/test"]),
        )
        == 0
    )
    assert set(files()) - set(exported) == {"weights/lenet5/lenet5.onnx"}
