"""python run.py predict, and evaluate, with nothing but the files of an export."""

import json
import os
import shutil

import cv2
import numpy as np
import pytest

from run import main
from src.errors import InputError
from tests.conftest import REPOSITORY, python, run_opencv, run_py, without_checksum, without_origin
from utils.commands.predict import print_predictions
from utils.images.image_folders import list_images
from utils.inference.predictor import Predictor


@pytest.fixture
def shipped(trained, tmp_path):
    """A folder with nothing but what an export leaves."""
    folder = tmp_path / "shipped"
    shutil.copytree(str(trained / "weights" / "lenet5"), str(folder))
    assert sorted(os.listdir(str(folder))) == ["labels.txt", "lenet5.json", "lenet5.pb"]
    return folder


def test_predict_needs_only_the_files_of_the_export(shipped, digits):
    done = run_py("predict", "--weights", "lenet5.pb", "--json", "--top", "2", f"{digits}/test/7", cwd=shipped)
    assert (done.returncode, without_origin(done.stderr)) == (0, "")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    files = sorted(os.listdir(f"{digits}/test/7"))
    assert [answer["image"] for answer in answers] == [os.path.join(digits, "test", "7", name) for name in files]
    assert np.mean([answer["predictions"][0]["class"] == "7" for answer in answers]) > 0.9
    for answer in answers:
        image = cv2.resize(cv2.imread(answer["image"]), (32, 32))
        image = (image / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        logits = run_opencv(str(shipped / "lenet5.pb"), image[np.newaxis].astype(np.float32))[0].astype(float)
        shares = np.exp(logits) / np.exp(logits).sum()
        best = np.argsort(-shares)[:2]
        assert [found["class"] for found in answer["predictions"]] == [str(index) for index in best]
        assert [found["probability"] for found in answer["predictions"]] == pytest.approx(list(shares[best]), abs=1e-4)


def test_predict_prints_a_table(shipped, digits, run_here):
    image = sorted(os.path.join(digits, "test", "7", name) for name in os.listdir(f"{digits}/test/7"))[0]
    done = run_here("predict", image, "--weights", "lenet5.pb", cwd=shipped)
    assert done.returncode == 0 and without_origin(done.stderr) == ""
    words = done.stdout.split()
    assert words[:2] == [image, "7"] and len(words) == 1 + 5 * 3
    assert done.stdout.isprintable() is False and done.stdout.count("\n") == 1 and "\x1b" not in done.stdout


def test_columns_of_names_with_wide_letters_are_aligned(capsys):
    """As in a terminal, where each of these Chinese and Korean letters takes two columns."""

    class Known:
        classes = ["cat", "고양이"]
        ranked = Predictor.ranked

        def classify(self, paths):
            return [(path, np.array([0.25, 0.75])) for path in paths]

    print_predictions(Known(), ["猫/1.png", "cat.png"], 2, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "猫/1.png  고양이  75.0 %  cat     25.0 %",
        "cat.png   고양이  75.0 %  cat     25.0 %",
    ]


def test_images_of_any_kind_and_broken_ones(shipped, run_here):
    random = np.random.RandomState(0)
    kinds = {
        "dot.png": random.randint(0, 256, (1, 1, 3)).astype(np.uint8),
        "large.jpg": random.randint(0, 256, (1500, 2000, 3)).astype(np.uint8),
        "grey.png": random.randint(0, 256, (40, 30)).astype(np.uint8),
        "alpha.png": random.randint(0, 256, (40, 30, 4)).astype(np.uint8),
        "deep.png": random.randint(0, 65536, (40, 30, 3)).astype(np.uint16),
        "wide.bmp": random.randint(0, 256, (1, 500, 3)).astype(np.uint8),
    }
    (shipped / "images" / "deeper").mkdir(parents=True)
    for name, pixels in kinds.items():
        assert cv2.imwrite(str(shipped / "images" / "deeper" / name), pixels)
    done = run_here("predict", "--weights", "lenet5.pb", "--json", "images", cwd=shipped)
    assert (done.returncode, without_origin(done.stderr)) == (0, "")
    assert sorted(os.path.basename(json.loads(line)["image"]) for line in done.stdout.splitlines()) == sorted(kinds)

    (shipped / "images" / "broken.png").write_text("no image")
    done = run_here("predict", "--weights", "lenet5.pb", "--json", "images", "missing.png", cwd=shipped)
    assert done.returncode == 1
    assert [line.split(":")[1] for line in without_origin(done.stderr).splitlines()] == [
        " image images/broken.png",
        " image missing.png",
    ]
    assert len(done.stdout.splitlines()) == len(kinds)
    done = run_here("predict", "--weights", "lenet5.pb", "images/broken.png", cwd=shipped)
    assert (done.returncode, done.stdout) == (1, "")


def test_names_that_break_lines_are_printed_on_one(shipped):
    random = np.random.RandomState(0)
    for name in (b"two\nlines.png", b"not utf-8 \xff.png"):
        with open(os.path.join(os.fsencode(str(shipped)), name), "wb") as file:
            file.write(cv2.imencode(".png", random.randint(0, 256, (9, 9, 3)).astype(np.uint8))[1].tobytes())
    (shipped / "no\nimage.png").write_text("")
    done = run_py("predict", "--weights", "lenet5.pb", ".", cwd=shipped)
    assert (done.returncode, len(done.stdout.splitlines()), len(without_origin(done.stderr).splitlines())) == (1, 2, 2)
    assert done.stderr.startswith("note: skipped in .: 1 .json, 1 .pb, 1 .txt\n")
    assert "./two\\nlines.png" in done.stdout and "./not utf-8 \\udcff.png" in done.stdout


@pytest.mark.parametrize(
    "run", [None, [1], {"run_folder": 5, "test_path": ["a"]}, {"run_folder": "a\0b", "train_path": "\ud800"}]
)
def test_evaluate_without_knowing_the_run(shipped, digits, run_here, run):
    with open(str(shipped / "lenet5.json")) as file:
        metadata = json.load(file)
    (shipped / "lenet5.json").write_text(json.dumps(dict(metadata, run=run)))
    done = run_here("evaluate", "--weights", "lenet5.pb", "--test_path", f"{digits}/test", cwd=shipped)
    assert done.returncode == 0, done.stderr
    assert len(list((shipped / "graphs" / "lenet5").iterdir())) == 1


def test_a_batch_gives_the_same_probabilities_as_single_images(shipped, digits):
    predictor = Predictor(str(shipped / "lenet5.pb"))
    paths = list_images(f"{digits}/test")[0]
    together = [shares for _, shares in predictor.classify(paths)]
    assert len(together) == 360
    for index in (0, 99, 100, 359):
        ((path, alone),) = predictor.classify(paths[index : index + 1])
        assert path == paths[index]
        np.testing.assert_allclose(together[index], alone, atol=1e-5)
        assert alone.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "damage, expected",
    [
        (lambda pb, text: (None, text), "graph lenet5.pb: cannot be read"),
        (lambda pb, text: (pb[:1000], text), "graph lenet5.pb: "),
        (lambda pb, text: (b"", text), "graph lenet5.pb: found no operation 'Image'"),
        (lambda pb, text: (b"no graph at all", text), "graph lenet5.pb: found a file that is corrupt"),
        (lambda pb, text: (pb, None), "metadata lenet5.json: cannot be read"),
        (
            lambda pb, text: (pb, text.replace('"lenet5"', "5")),
            "metadata lenet5.json: found 5 for model_arch, expected",
        ),
        (lambda pb, text: (pb, "[1]"), "metadata lenet5.json: found None for classes"),
        (lambda pb, text: (pb, "{"), "metadata lenet5.json: found a file that is not JSON"),
        (lambda pb, text: (pb, text.replace('"Image"', '"Picture"')), "graph lenet5.pb: found no operation 'Picture'"),
        (lambda pb, text: (pb, text.replace("32", "64")), "graph lenet5.pb: found shape"),
        (lambda pb, text: (pb, text.replace("32", "0")), "metadata lenet5.json: found"),
        (lambda pb, text: (pb, text.replace('"9"', '"9", "10"')), "metadata lenet5.json: found"),
        (lambda pb, text: (pb, text.replace('"bgr"', '"gbr"')), "metadata lenet5.json: found 'gbr' for channel_order"),
        (lambda pb, text: (pb, text.replace('"output",', '"a:b",')), "graph lenet5.pb: found no operation 'a:b'"),
        (lambda pb, text: (pb, text.replace("null", "[1], 2")), "metadata lenet5.json: found"),
        (lambda pb, text: (pb, text.replace('"9"', '"\\ud800"')), "metadata lenet5.json: found"),
        (lambda pb, text: (pb, text.replace('"output": {', '"result": {')), "metadata lenet5.json: found None for out"),
    ],
)
def test_a_corrupt_export_is_reported_in_one_line(shipped, monkeypatch, capsys, damage, expected):
    monkeypatch.chdir(str(shipped))
    with open("lenet5.pb", "rb") as pb, open("lenet5.json") as text:
        contents = damage(pb.read(), without_checksum(text.read()))
    for name, content in zip(("lenet5.pb", "lenet5.json"), contents):
        os.remove(name)
        if content is not None:
            with open(name, "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
    assert main(["predict", "--weights", "lenet5.pb", "image.png"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {expected}") and error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], "the following arguments are required"),
        (["a.png", "--top", "0"], "--top: found 0"),
        (["a.png", "--top", "x"], "argument --top"),
        (["."], "folder .: found no images"),
    ],
)
def test_predict_says_what_is_wrong_with_its_options(shipped, tmp_path, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(str(tmp_path))
    assert main(["predict", "--weights", "shipped/lenet5.pb"] + arguments) == 2
    assert expected in capsys.readouterr().err


def test_a_reader_that_stops_ends_predict_quietly(shipped, digits):
    done = python(
        "-c",
        "import subprocess, sys; first = subprocess.Popen([sys.executable] + sys.argv[1:], "
        "stdout=subprocess.PIPE); print(len(first.stdout.readline())); first.stdout.close(); "
        "first.wait()",
        os.path.join(REPOSITORY, "run.py"),
        "predict",
        "--weights",
        "lenet5.pb",
        digits,
        cwd=shipped,
    )
    assert int(done.stdout) > 10 and without_origin(done.stderr) == ""


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(InputError, match="found no images"):
        list_images(str(tmp_path))
