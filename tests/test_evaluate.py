"""python run.py evaluate, and settings that commands do not use."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import sys

import cv2
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from convert.compare import open_reference
from convert.pb2savedmodel import pb2savedmodel
from run import main
from src import config
from src.errors import InputError
from src.tf1 import tf
from tests.conftest import accuracy_in_opencv, run_file, run_opencv, run_py, without_origin
from utils.images import preprocess
from utils.images.image_folders import list_images


def report(run_evaluate, trained, *arguments):
    """What evaluate printed, in a process of its own (run_py) or in this one (run_here), and the lines of its CSV."""
    done = run_evaluate("evaluate", *arguments, cwd=trained)
    assert done.returncode == 0, done.stderr
    assert without_origin(done.stderr) == ""
    (run_folder,) = (trained / "graphs" / "lenet5").iterdir()
    with open(str(run_folder / "predictions.csv")) as file:
        rows = list(csv.DictReader(file))
    for name in ("confusion.png", "mistakes.png", "train_batch.png", "curves.png"):
        assert cv2.imread(str(run_folder / name)).std() > 5
    assert (run_folder / "evaluation.txt").read_text() in done.stdout
    return done.stdout, rows


def test_what_evaluate_prints_is_what_scikit_learn_makes_of_its_csv(trained, digits):
    printed, rows = report(run_py, trained)
    true, predicted = [row["true"] for row in rows], [row["predicted"] for row in rows]
    classes = [str(digit) for digit in range(10)]
    assert len({row["image"] for row in rows}) == len(rows) == 360
    assert all(os.path.basename(os.path.dirname(row["image"])) == row["true"] for row in rows)
    accuracy = accuracy_score(true, predicted)
    assert f"accuracy {accuracy:.4f}" in printed.splitlines()[1] and accuracy > 0.9
    for digit, f1 in zip(classes, f1_score(true, predicted, average=None)):
        assert any(line.split()[:1] == [digit] and line.split()[3:4] == [f"{f1:.3f}"] for line in printed.splitlines())
    for digit, counts in zip(classes, confusion_matrix(true, predicted)):
        assert " ".join([digit] + [str(count) for count in counts]) in " ".join(printed.split())
    assert accuracy_in_opencv(str(trained / "weights" / "lenet5" / "lenet5.pb"), f"{digits}/test") == accuracy


def test_loss_is_that_of_opencv_s_logits_with_and_without_mirror_images(trained, digits, run_here):
    printed, rows = report(run_here, trained, "--flip")
    images = [cv2.resize(cv2.imread(row["image"]), (32, 32)) for row in rows]
    images = (np.array(images) / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]

    def shares(images):
        graph = str(trained / "weights" / "lenet5" / "lenet5.pb")
        powers = np.exp(run_opencv(graph, images.astype(np.float32)).astype(float))
        return powers / powers.sum(axis=1, keepdims=True)

    true, plain, mirrored = [int(row["true"]) for row in rows], shares(images), shares(images[:, :, ::-1])
    losses = [log_loss(true, answer, labels=list(range(10))) for answer in (plain, (plain + mirrored) / 2)]
    hits = ((plain + mirrored).argmax(axis=1) == true).sum()
    found = re.findall(r"loss (\S+), accuracy (\S+)", printed)
    assert [float(loss) for loss, _ in found] == pytest.approx(losses, abs=2e-4)
    assert losses[1] > losses[0] + 0.1 and float(found[1][1].strip(",")) == pytest.approx(hits / 360, abs=1e-4)
    assert [float(row["probability"]) for row in rows] == pytest.approx(list(plain.max(axis=1)), abs=1e-4)


def test_each_file_is_decoded_once_also_for_its_mirror_image(trained, run_here, monkeypatch):
    read, paths = preprocess.read_image, []
    monkeypatch.setattr(preprocess, "read_image", lambda path, *how: paths.append(path) or read(path, *how))
    monkeypatch.setattr("utils.commands.evaluate.explain_mistakes", lambda *_: None)  # which reads some again
    _, rows = report(run_here, trained, "--flip")
    assert sorted(paths) == sorted(row["image"] for row in rows)


def test_all_files_are_written_before_a_reader_can_stop_it(trained, monkeypatch, capfd):
    """As behind `| head`, but for the signal, which would end the tests as well."""

    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    page = os.path.join(os.path.dirname(run_file("history.csv", str(trained / "graphs" / "lenet5"))), "report.html")
    with contextlib.suppress(FileNotFoundError):  # unless another test has evaluated it
        os.remove(page)
    monkeypatch.chdir(str(trained))
    monkeypatch.setattr(sys, "stdout", Closed())
    assert main(["evaluate"]) == 2
    assert os.path.exists(page)


NONSENSE = {"model_arch": "mobilenetv2", "img_size": 28, "lr": "fast", "batch_size": 0, "classes": 5, "total_class": -1}


@pytest.fixture
def nonsense(trained, tmp_path, monkeypatch):
    """A copy of the trained folder, while src/config.py is nonsense, but for what the commands use."""
    shutil.copytree(str(trained), str(tmp_path / "copy"))
    monkeypatch.chdir(str(tmp_path / "copy"))
    for name, value in NONSENSE.items():
        monkeypatch.setitem(vars(config), name, value)


@pytest.mark.parametrize("words", [
    "predict IMAGE", "evaluate", "explain IMAGE", "runs", "export", "--resume --num_epoch 5",
    "evaluate --checkpoint CHECKPOINT",
])  # fmt: skip
def test_settings_that_a_command_does_not_use_do_not_stop_it(nonsense, digits, capfd, words):
    image, checkpoint = list_images(f"{digits}/test/3")[0][0], os.path.splitext(run_file("*.index"))[0]
    words = words.replace("IMAGE", image).replace("CHECKPOINT", checkpoint).split()
    code = main(words + ["--model_arch", "lenet5"])
    errors = capfd.readouterr().err
    assert (code, without_origin(errors) if words[0] in ("predict", "evaluate", "explain") else errors) == (0, "")


def test_converters_take_no_notice_of_settings_that_they_do_not_use(nonsense):
    assert open_reference("weights/lenet5/lenet5.pb").predictor.img_size == 32
    with pytest.raises(InputError, match="^setting train_path: found 5"):
        open_reference("weights/lenet5/lenet5.pb", train_path=5)


@pytest.fixture
def devices(monkeypatch):
    """How many GPUs each session may use, of all that are opened: a list; None: as many as there are."""
    found = []
    session = tf.Session

    def opened(*arguments, **options):
        found.append(dict(options["config"].device_count).get("GPU") if "config" in options else None)
        return session(*arguments, **options)

    monkeypatch.setattr(tf, "Session", opened)
    return found


@pytest.mark.parametrize("words", ["predict IMAGE", "evaluate", "explain IMAGE", "evaluate --checkpoint CHECKPOINT"])
def test_commands_keep_off_the_gpu_if_device_says_so(trained, digits, monkeypatch, devices, words):
    monkeypatch.chdir(str(trained))
    image, checkpoint = list_images(f"{digits}/test/3")[0][0], os.path.splitext(run_file("*.index"))[0]
    words = words.replace("IMAGE", image).replace("CHECKPOINT", checkpoint).split()
    assert main(words + ["--device", "gpu"]) == 0
    assert None in devices
    del devices[:]
    assert main(words + ["--device", "cpu"]) == 0
    assert devices and set(devices) == {0}
    del devices[:]
    monkeypatch.setitem(vars(config), "device", "cpu")
    assert main(words) == 0
    assert devices and set(devices) == {0}


def test_converters_keep_off_the_gpu_if_device_says_so(trained, in_tmp_path, devices):
    shutil.copytree(str(trained / "weights"), "weights")
    assert pb2savedmodel(open_reference(device="cpu")).failure is None
    assert devices and set(devices) == {0}


def test_checkpoint_and_frozen_graph_are_equally_good(trained, run_here):
    with open(str(trained / "weights" / "lenet5" / "lenet5.json")) as file:
        val_acc = json.load(file)["val_acc"]
    with open(run_file("run.json", str(trained / "checkpoints" / "lenet5"))) as file:
        record = json.load(file)
    del record["history"], record["time"]
    (name,) = [name for name, entry in record.items() if entry["val_acc"] == val_acc][-1:]
    prefix = os.path.relpath(run_file(f"{name}.index", str(trained / "checkpoints" / "lenet5")), str(trained))[:-6]
    graph, of_graph = report(run_here, trained)
    checkpoint, of_checkpoint = report(run_here, trained, "--checkpoint", prefix)
    assert graph.splitlines()[1:] == checkpoint.splitlines()[1:]
    assert graph.splitlines()[0].startswith("weights/lenet5/lenet5.pb on ")
    assert checkpoint.splitlines()[0].startswith(f"{prefix} on ")
    assert [row["predicted"] for row in of_graph] == [row["predicted"] for row in of_checkpoint]


def test_a_test_set_given_counts(trained, digits, tmp_path, run_here):
    for digit in range(10):
        folder = tmp_path / "few" / str(digit)
        folder.mkdir(parents=True)
        source = os.path.join(digits, "test", "3")
        shutil.copy(os.path.join(source, sorted(os.listdir(source))[0]), str(folder))
    printed, rows = report(run_here, trained, "--test_path", str(tmp_path / "few"))
    assert len(rows) == 10 and sum(row["true"] == row["predicted"] for row in rows) == 1
    report(run_here, trained)  # for the next test, as it was


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--weights", "none.pb"], "graph none.pb: cannot be read"),
        (["--checkpoint", "checkpoints/lenet5/lenet5-7"], "checkpoint: found checkpoints/lenet5/lenet5-7"),
        (["--checkpoint", "a", "--weights", "b"], "--checkpoint: found a beside --weights"),
        (["--test_path", "nowhere"], "setting test_path: found no folder nowhere"),
    ],
)
def test_evaluate_says_what_is_wrong(trained, capsys, monkeypatch, arguments, expected):
    monkeypatch.chdir(str(trained))
    assert main(["evaluate"] + arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {expected}") and error.count("\n") == 1
