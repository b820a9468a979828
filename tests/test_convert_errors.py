"""Graphs that cannot be converted, conversions that answer otherwise, and wrong arguments of the converters."""

import os
import subprocess
import sys

import numpy as np
import pytest

from convert.compare import FLOAT16, FLOAT32, INT8, convert_and_verify, exceeded_tolerance, run_conversions
from src.errors import InputError
from src.tf1 import tf
from tests.conftest import REPOSITORY, without_checksum
from tests.helpers.conversions import GRAPH, convert, files, line


def test_a_conversion_that_changes_the_answers_keeps_a_name_that_says_so(reference, digits, monkeypatch, capsys):
    def write(path):
        with open(path, "w") as file:
            file.write("new")

    def prove(factor):
        return run_conversions(
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
    assert err.count("error: ") == 1 and err.count("note: weights/lenet5/lenet5.pb: lenet5 of ") == 2
    assert "lenet5-failed.onnx in a runtime: logits differ by 0.002 of the largest, expected at most 0.001" in err
    assert out.splitlines()[-1].split()[:6] == ["lenet5-failed.onnx", "a", "runtime", "360", "2.0e-03", "100.0"]
    assert prove(float("nan")) == 1
    assert prove(1.0) == 0
    assert files() == before  # what had failed gives way


@pytest.mark.parametrize(
    "tolerance, changed, failure",
    [
        (FLOAT32, {"difference": 0.001}, None),
        (FLOAT32, {"difference": 0.00101}, "logits differ by 0.001"),
        (FLOAT16, {"difference": 0.01}, None),
        (FLOAT16, {"difference": 0.0101}, "logits differ by 0.01"),
        (FLOAT32, {"difference": float("nan")}, "logits contain NaN or Inf"),
        (INT8, {"difference": float("nan")}, "logits contain NaN or Inf"),
        (INT8, {"difference": float("inf")}, "logits contain NaN or Inf"),
        (INT8, {"difference": 0.5}, None),
        (INT8, {"same_class": 0.95}, None),
        (INT8, {"same_class": 0.949}, "94.9 % of the images get the same class"),
        (INT8, {"same_class": 0.5, "accuracy": [0.6, 0.6]}, None),
        (INT8, {"same_class": 0.5, "accuracy": [0.601, 0.601]}, "50.0 % of the images"),
        (INT8, {"accuracy": [0.785, 0.8]}, None),
        (INT8, {"accuracy": [0.784, 0.8]}, "accuracy drops from 0.8000 to 0.7840"),
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
        ("pb2tflite", ["truncated.pb"], "graph truncated.pb: found a file that is corrupt, truncated or not a graph"),
        ("pb2tflite", ["picture.pb"], "graph picture.pb: found a file that is corrupt, truncated or not a graph"),
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
            "graph weights/lenet5/lenet5.pb: found no operation 'image' in it, expected its input; "
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
def test_bad_input_is_reported_in_one_line(exported, monkeypatch, capsys, module, arguments, expected):
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
    assert "make convert installs them" in capsys.readouterr().err
    assert files() == exported
    assert convert(monkeypatch, "convert") == 2  # and does all the others
    assert "weights/lenet5/lenet5-savedmodel/1/saved_model.pb" in files()


def test_a_graph_that_cannot_be_converted(reference, monkeypatch, capsys):
    def fail(path):
        with open(path, "w") as file:
            file.write("half")
        raise ValueError("no such operation\nand a long explanation")

    before = files()
    expected = rf"^graph {GRAPH}: found an error in the conversion to x \(no such operation\), expected a graph "
    with pytest.raises(InputError, match=expected):
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
