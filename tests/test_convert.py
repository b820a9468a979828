"""The converters. What they write is run here with nothing of convert/."""

import os
import runpy
import shutil
import subprocess
import sys
import warnings

import cv2
import numpy as np
import pytest

from convert.compare import (
    FLOAT16,
    FLOAT32,
    INT8,
    Comparison,
    compare,
    convert_and_verify,
    exceeded_tolerance,
    open_reference,
    report,
)
from dataset import read_test_set
from src.console import quiet
from src.errors import InputError
from src.settings import settings
from src.tf1 import IS_1_14, tf
from tests.conftest import REPOSITORY, accuracy_in_opencv, preprocess, run_graph, without_checksum

FIXTURES = os.path.join(os.path.dirname(__file__), "fixtures")
GRAPH = "weights/lenet5/lenet5.pb"


@pytest.fixture
def exported(trained, in_tmp_path):
    """Work in a folder with nothing but what the export has left. Returns its files."""
    shutil.copytree(str(trained / "weights"), "weights")
    return files()


@pytest.fixture
def reference(exported):
    return open_reference()


@pytest.fixture
def images(digits):
    """20 test digits as the network takes them, by OpenCV and numpy alone."""
    paths = sorted(os.path.join(folder, name) for folder, _, names in os.walk(digits + "/test") for name in names)[::18]
    pixels = np.array([cv2.resize(cv2.imread(path), (32, 32)) for path in paths])
    return ((pixels / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)


def files():
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk("weights") for name in names)


def convert(monkeypatch, module, *arguments):
    """What `python -m module` does, but in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", [module] + list(arguments))
    with pytest.raises(SystemExit) as stopped, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the module was imported before
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    return stopped.value.code


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
        assert out == "" and err.count("\n") == 1 and "float16: TensorFlow 1.14 cannot" in err
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
    assert (done.returncode, done.stderr) == (0, "")


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
    assert err == ""
    made = (
        ["lenet5.pb", "lenet5.tflite"]
        + ["lenet5-float16.tflite"] * (not IS_1_14)
        + ["lenet5-int8.tflite", "lenet5-savedmodel/1", "lenet5.onnx"]
    )
    assert out.startswith("float16 is left out") == IS_1_14
    rows = [line.split() for line in out.splitlines()[2 + IS_1_14 :]]
    assert [row[0] for row in rows] == made
    accuracy = f"({accuracy_in_opencv(GRAPH, digits + '/test'):.4f})"
    for row in rows:
        count = row.index("200" if IS_1_14 and "int8" in row[0] else "360")
        if row[count] == "360":
            assert row[count + 5] == accuracy
        if not row[0].endswith("/1"):
            assert row[count + 6] == f"{os.path.getsize('weights/lenet5/' + row[0]) / 1000000.0:.2f}"


def test_a_conversion_that_changes_the_answers_keeps_a_name_that_says_so(reference, digits, monkeypatch, capsys):
    def write(path):
        with open(path, "w") as file:
            file.write("new")

    def prove(factor):
        return report(
            reference,
            [
                lambda: convert_and_verify(
                    reference,
                    "weights/lenet5/lenet5.onnx",
                    write,
                    lambda path: lambda images: np.float32(factor) * reference.predictor.logits(images),
                    "a runtime",
                )
            ],
        )

    assert prove(1.0) == 0
    with open("weights/lenet5/lenet5.onnx", "w") as file:
        file.write("old")
    before = files()
    assert prove(1.002) == 1
    assert set(files()) - set(before) == {"weights/lenet5/lenet5-failed.onnx"}
    with open("weights/lenet5/lenet5.onnx") as file:
        assert file.read() == "old"
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert "lenet5-failed.onnx in a runtime: logits differ by 0.002 of the largest, allowed are 0.001" in err
    assert out.splitlines()[-1].split()[:6] == ["lenet5-failed.onnx", "a", "runtime", "360", "2.0e-03", "100.0"]
    assert prove(float("nan")) == 1
    assert prove(1.0) == 0
    assert files() == before  # what had failed gives way


def test_conversions_of_an_earlier_graph_are_told(exported, monkeypatch, capsys):
    assert convert(monkeypatch, "convert.pb2tflite") == convert(monkeypatch, "convert.pb2onnx") == 0
    assert capsys.readouterr().err == ""
    later = os.path.getmtime("weights/lenet5/lenet5.onnx") + 10
    os.utime(GRAPH, (later, later))  # as if training had exported it anew
    os.utime("weights/lenet5/lenet5.onnx", (later, later))
    assert convert(monkeypatch, "convert.pb2savedmodel") == 0
    assert capsys.readouterr().err.splitlines() == [
        f"note: weights/lenet5/lenet5{end} is older than the graph, so it was made from another"
        for end in (".tflite", "-savedmodel/1")
    ]


def test_what_is_compared(reference, digits):
    """A model that sees nothing but zeros, with a logit of 1 for them: its figures follow from the graph's answers."""
    zero = np.eye(10, dtype=np.float32)[:1]
    with open("model", "wb") as file:
        file.write(bytes(1000))
    found = compare(reference, lambda images: zero, "model", "a runtime", FLOAT32)
    data = read_test_set(settings(train_path=digits + "/train", test_path=digits + "/test"), preprocess(32))
    logits = run_graph(GRAPH, np.concatenate([images for images, _, _, _ in data.batches(100)]))
    assert found.images == 360
    assert found.difference == pytest.approx(np.abs(logits - zero).max() / np.abs(logits).max(), rel=1e-4)
    assert found.same_class == pytest.approx((logits.argmax(axis=1) == 0).mean())
    zeros = len(os.listdir(digits + "/test/0"))
    assert found.accuracy == pytest.approx([zeros / 360.0, accuracy_in_opencv(GRAPH, digits + "/test")])
    assert found.sizes == [1000, os.path.getsize(GRAPH)]
    assert found.seconds[0] < found.seconds[1] < 1


def line(**changed):
    """A Comparison without a failure, but for what is changed."""
    return Comparison("x", "x", 1000, 0.0, 1.0, [0.8, 0.8], [1, 1], [1.0, 1.0], None)._replace(**changed)


@pytest.mark.parametrize(
    "tolerance, changed, failure",
    [
        (FLOAT32, {"difference": 0.001}, None),
        (FLOAT32, {"difference": 0.00101}, "logits differ by 0.001"),
        (FLOAT16, {"difference": 0.01}, None),
        (FLOAT16, {"difference": 0.0101}, "logits differ by 0.01"),
        (FLOAT32, {"difference": float("nan")}, "logits are not all finite"),
        (INT8, {"difference": float("nan")}, "logits are not all finite"),
        (INT8, {"difference": float("inf")}, "logits are not all finite"),
        (INT8, {"difference": 0.5}, None),
        (INT8, {"same_class": 0.95}, None),
        (INT8, {"same_class": 0.949}, "94.9 % of the images get the same class"),
        (INT8, {"same_class": 0.5, "accuracy": [0.6, 0.6]}, None),
        (INT8, {"same_class": 0.5, "accuracy": [0.601, 0.601]}, "50.0 % of the images"),
        (INT8, {"accuracy": [0.785, 0.8]}, None),
        (INT8, {"accuracy": [0.784, 0.8]}, "accuracy falls from 0.8000 to 0.7840"),
        (INT8, {"accuracy": [0.9, 0.8]}, None),
    ],
)
def test_limits(tolerance, changed, failure):
    found = exceeded_tolerance(line(**changed), tolerance)
    assert found is None if failure is None else found.startswith(failure)


@pytest.mark.parametrize(
    "module, arguments, expected",
    [
        ("pb2tflite", ["missing.pb"], "graph missing.pb: cannot be read (No such file or directory)"),
        ("pb2tflite", ["weights"], "graph weights: cannot be read (Is a directory)"),
        ("pb2tflite", ["truncated.pb"], "graph truncated.pb: found a file that is damaged, cut short or no graph"),
        ("pb2tflite", ["picture.pb"], "graph picture.pb: found a file that is damaged, cut short or no graph"),
        ("pb2tflite", ["empty.pb"], "graph empty.pb: found no operation 'Image' in it"),
        ("pb2savedmodel", ["alone.pb"], "metadata alone.json: found none"),
        ("pb2savedmodel", ["alone.pb", "--input", "Image"], "metadata alone.json: found none"),
        (
            "pb2savedmodel",
            ["alone.pb", "--input", "Image", "--output", "output", "--train_path", "nowhere"],
            "setting train_path: found no class folders in nowhere",
        ),
        (
            "pb2onnx",
            [GRAPH, "--weight_dir", "elsewhere"],
            "--weight_dir: found elsewhere beside weights/lenet5/lenet5.pb",
        ),
        (
            "pb2savedmodel",
            [GRAPH, "--input", "image"],
            "graph weights/lenet5/lenet5.pb: found no operation 'image' in it; "
            "its placeholders are: Image; its last operation: output",
        ),
        ("pb2savedmodel", [GRAPH, "--output", "nowhere"], f"graph {GRAPH}: found no operation 'nowhere' in it"),
        (
            "pb2onnx",
            ["smaller.pb"],
            "graph smaller.pb: found shape (?, 32, 32, 3) for Image, expected [None, 28, 28, 3]",
        ),
        ("pb2onnx", ["fewer.pb"], "graph fewer.pb: found shape (?, 10) for output, expected [None, 9]"),
        ("pb2tflite", ["--quantize", "int4"], "argument --quantize: invalid choice: 'int4'"),
        ("pb2tflite", ["--quantize", "int8", "--train_path", "nowhere"], "setting train_path: found no folder nowhere"),
        ("pb2tflite", ["--test_path", "nowhere"], "setting test_path: found no folder nowhere"),
        ("pb2savedmodel", ["--quantize", "none"], "unknown argument --quantize"),
        ("pb2onnx", ["--model_arch", "mobilenetv2"], "graph weights/mobilenetv2/mobilenetv2.pb: cannot be read"),
    ],
)
def test_bad_input_is_said_in_one_line(exported, monkeypatch, capsys, module, arguments, expected):
    """And nothing is written."""
    with open(GRAPH, "rb") as pb, open(GRAPH[:-3] + ".json") as text:
        content, metadata = pb.read(), without_checksum(text.read())
    for name, graph, json in (
        ("truncated", content[:-1000], metadata),
        ("picture", b"\x89PNG" * 1000, metadata),
        ("empty", b"", metadata),
        ("alone", content, None),
        ("smaller", content, metadata.replace("32", "28")),
        ("fewer", content, metadata.replace('"8",', '"8"').replace('"9"', "").replace("10", "9")),
    ):
        with open(name + ".pb", "wb") as file:
            file.write(graph)
        if json:
            with open(name + ".json", "w") as file:
                file.write(json)
    before = sorted(os.listdir("."))
    assert convert(monkeypatch, "convert." + module, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: " + expected) and err.count("\n") == 1
    assert files() == exported and sorted(os.listdir(".")) == before


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


def sums(image):
    """[n, 3]: as the logits of three classes."""
    return tf.reduce_sum(tf.cast(image, tf.float32), axis=[1, 2])


@pytest.mark.parametrize(
    "kind, shape, answer, expected",
    [
        (tf.uint8, [None, 32, 32, 3], sums, "found uint8 for x, expected float32"),
        (tf.float32, [None, 32, 32, 3], lambda image: sums(image) > 0, "found bool for y, expected float32"),
        (
            tf.float32,
            None,
            lambda image: tf.reduce_sum(image, axis=1),
            "found an output of shape [1, 32, 3] for images [1, ...]",
        ),
        (tf.float32, [4, 32, 32, 3], sums, "cannot be run on 1 float32 images (Cannot feed"),
        (
            tf.float32,
            [None, 32, 32, 3],
            lambda image: sums(image) + tf.placeholder(tf.float32, [3]),
            "cannot be run on 1 float32 images (",
        ),
    ],
)
def test_graphs_from_elsewhere_that_are_no_classifiers(
    exported, folders, monkeypatch, capsys, kind, shape, answer, expected
):
    with tf.Graph().as_default() as graph:
        tf.identity(answer(tf.placeholder(kind, shape, name="x")), name="y")
    with open("other.pb", "wb") as file:
        file.write(graph.as_graph_def().SerializeToString())
    path = folders({"cat": 2, "dog": 2, "owl": 2})
    before = sorted(os.listdir("."))
    assert (
        convert(
            monkeypatch,
            "convert",
            "other.pb",
            "--input",
            "x",
            "--output",
            "y",
            "--train_path",
            path,
            "--test_path",
            path,
        )
        == 2
    )
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: graph other.pb: " + expected) and err.count("\n") == 1
    assert sorted(os.listdir(".")) == before


@pytest.mark.parametrize("missing", ["tf2onnx", "onnxruntime"])
def test_a_converter_that_is_not_installed(exported, monkeypatch, capsys, missing):
    monkeypatch.setitem(sys.modules, missing, None)  # importing it now fails
    assert convert(monkeypatch, "convert.pb2onnx") == 2
    assert "make convert installs it" in capsys.readouterr().err
    assert files() == exported
    assert convert(monkeypatch, "convert") == 2  # and does all the others
    assert "weights/lenet5/lenet5-savedmodel/1/saved_model.pb" in files()


def test_a_graph_that_cannot_be_converted(reference, monkeypatch, capsys):
    def fail(path):
        with open(path, "w") as file:
            file.write("half")
        raise ValueError("no such operation\nand a long explanation")

    before = files()
    with pytest.raises(InputError, match=rf"^graph {GRAPH}: cannot be converted to x \(no such operation\)$"):
        convert_and_verify(reference, "x", fail, None, "a runtime")
    assert files() == before and not os.path.exists("x")


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "convert"],
        ["-m", "convert.pb2tflite"],
        ["-m", "convert.pb2savedmodel"],
        ["-m", "convert.pb2onnx"],
        [os.path.join(REPOSITORY, "run.py")],
    ],
)
def test_a_python_without_packages_is_told_in_one_line(command, tmp_path):
    done = subprocess.run(
        [sys.executable, "-S"] + command,
        cwd=str(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=REPOSITORY),
        universal_newlines=True,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: No module named") and done.stderr.count("\n") == 1
