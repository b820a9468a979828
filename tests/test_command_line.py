"""What run.py says: the first line, hints, --help, which graph answers; and the commands convert and runs FOLDER."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

import run
from src.errors import InputError
from src.settings import GROUPS, SETTINGS
from tests.conftest import REPOSITORY, make_folders
from utils.inference.exported import describe_origin

DATA = "--batch_size 8 --train_path train"


@pytest.fixture
def work(folders, in_tmp_path):
    folders({"cat": 20, "dog": 20})
    return in_tmp_path


def start(*words):
    return subprocess.Popen(
        [sys.executable, os.path.join(REPOSITORY, "run.py"), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def test_the_first_line_comes_before_tensorflow_and_ctrl_c_is_answered_at_once(work):
    """Importing TensorFlow takes over a second, so it has not ended 0.2 s after the line."""
    process = start(*DATA.split(), "--num_epoch", "3", "--img_size", "20")
    first = process.stdout.readline()
    outputs = "graph to weights/lenet5, logs to graphs/lenet5"
    assert first == f"lenet5 of 20 px on train, 3 epochs; {outputs}; starting TensorFlow\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "", "interrupted before it had started\n")
    assert os.listdir("checkpoints/lenet5") in ([], ["lock"]) and not os.path.exists("graphs")


def test_a_resumed_run_says_so_first(work, run_here):
    assert run_here(*DATA.split(), cwd=work).returncode == 0
    done = run_here("--resume", "--num_epoch", "2", cwd=work)
    assert done.stdout.startswith("resuming a run of lenet5 in checkpoints/lenet5; graph to weights/lenet5, ")


@pytest.mark.parametrize("word, hint", [
    ("test", "did you mean python run.py evaluate?"),
    ("val", "did you mean python run.py evaluate?"),
    ("infer", "did you mean python run.py predict?"),
    ("ls", "did you mean python run.py runs?"),
    ("tensorboard", "that is a program of its own: tensorboard --logdir graphs"),
    ("convrt", "did you mean convert?"),
    ("qqq", "python run.py --help lists them"),
])  # fmt: skip
def test_guesses_lead_to_the_command(word, hint, in_tmp_path, capfd):
    assert run.main([word]) == 2
    assert capfd.readouterr() == ("", f"error: unknown command {word}; {hint}\n")


def test_every_suggested_command_exists():
    assert {words.split()[0] for words in run.SYNONYMS.values()} <= {*run.COMMANDS, "--help"}


def test_help_groups_the_settings_as_the_config_does(capsys):
    with open(os.path.join(REPOSITORY, "src", "config.py"), encoding="utf-8") as file:
        headings = re.findall(r"^# (\w+)\n(\w+) = ", file.read(), re.MULTILINE)
    assert [(name, title) for title, name in headings] == list(GROUPS.items())
    with pytest.raises(SystemExit):
        run.main(["--help"])
    text = capsys.readouterr().out
    parts = re.split(r"^(\w+) settings:$", text, flags=re.MULTILINE)
    assert parts[1::2] == list(GROUPS.values())
    assert [name for part in parts[2::2] for name in re.findall(r"^  --(\w+)", part, re.MULTILINE)] == list(SETTINGS)
    assert "  --strides {paper,small}\n" in text and "(default: 0.01)" in " ".join(text.split())
    assert "python run.py convert " in text and "tensorboard --logdir graphs " in text


def test_convert_is_a_command_as_well(exported, capfd):
    assert run.main(["convert", "nowhere.pb"]) == 2
    assert capfd.readouterr().err.startswith("error: graph nowhere.pb: cannot be read")
    with pytest.raises(SystemExit):
        run.main(["convert", "--help"])
    assert capfd.readouterr().out.startswith("usage: python -m convert [GRAPH.pb]")


def test_json_has_all_classes_unless_top_is_given(exported, digits, run_here, in_tmp_path):
    image = os.path.join(digits, "test", "7", sorted(os.listdir(f"{digits}/test/7"))[0])
    for words, count in (([], 10), (["--top", "3"], 3)):
        done = run_here("predict", image, "--json", *words, cwd=in_tmp_path)
        predictions = json.loads(done.stdout)["predictions"]
        assert len(predictions) == count and predictions[0]["class"] == "7"
    assert sum(row["probability"] for row in json.loads(run_here("predict", image, "--json", cwd=in_tmp_path).stdout)[
        "predictions"]) == pytest.approx(1, abs=1e-5)  # fmt: skip


def test_runs_looks_in_the_folders_that_it_is_shown(trained, in_tmp_path, run_here):
    done = run_here("runs", cwd=in_tmp_path)
    hint = "; python run.py runs FOLDER looks in another folder\n"
    assert done.stdout == "no runs in checkpoints/lenet5, checkpoints/mobilenetv2" + hint
    (name,) = [name for name in os.listdir(str(trained / "checkpoints" / "lenet5")) if name.startswith("20")]
    shutil.copytree(str(trained / "checkpoints"), "project/checkpoints")
    for folder in ("project", "project/checkpoints", "project/checkpoints/lenet5"):
        lines = run_here("runs", folder, cwd=in_tmp_path).stdout.splitlines()
        assert len(lines) == 2 and lines[1].split()[:2] == [name, "lenet5"]
    done = run_here("runs", "nowhere", cwd=in_tmp_path)
    assert (done.returncode, done.stderr) == (
        2, "error: runs: found no folder nowhere, expected one with runs, such as another checkpoint_dir\n"
    )  # fmt: skip


@pytest.mark.parametrize("name, published", [
    ("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5", True), ("my.h5", False),
])  # fmt: skip
def test_a_missing_keras_file_is_named_with_its_address_before_tensorflow_starts(work, name, published):
    process = start(*DATA.split(), "--model_arch", "mobilenetv2", "--img_size", "32", "--pretrained", name)
    output, errors = process.communicate(timeout=60)
    address = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/" + name * published
    expected = f"setting pretrained: found no file {name}, expected weights of a MobileNetV2 from Keras"
    assert (process.returncode, output) == (2, "")  # not even the first line
    assert errors == f"error: {expected}; Keras publishes them at {address}\n"


RUN = "20260102-030405-x"
METADATA = {"model_arch": "lenet5", "classes": list("0123456789"), "run": {"run_folder": f"graphs/lenet5/{RUN}"}}


@pytest.mark.parametrize("changes, end", [
    ({"val_acc": 0.98765}, ", validation accuracy 0.9877"),
    ({"val_acc": 0.101}, ", validation accuracy 0.1010, hardly better than guessing one of 10 classes; python run.py "
     "runs lists other runs"),
    ({"val_acc": "1"}, ""),
    ({"val_acc": None, "run": {}}, ""),
])  # fmt: skip
def test_which_graph_answers(tmp_path, changes, end):
    path = str(tmp_path / "a.pb")
    with open(path, "w"):
        pass
    moment = time.mktime((2026, 11, 28, 9, 5, 0, 0, 0, -1))
    os.utime(path, (moment, moment))
    run_name = "an unknown run" if changes.get("run") == {} else RUN
    expected = f"{path}: lenet5 of {run_name}, written 2026-11-28 09:05{end}"
    assert describe_origin(path, dict(METADATA, **changes)) == expected


def test_the_classes_of_a_network_are_not_needed_to_list_runs(in_tmp_path):
    with pytest.raises(InputError):
        run.check_runs({"folders": ["none"]}, {})
    make_folders("some", {"cat": 1})
    assert [config.checkpoint_dir for config in run.check_runs({"folders": ["some"]}, {})] == ["some", "some"]


def test_what_was_found_is_printed_although_nothing_can_be_written(work, run_here, monkeypatch):
    assert run_here(*DATA.split(), "--test_path", "train", cwd=work).returncode == 0

    def read_only(*arguments, **options):
        raise OSError(30, "Read-only file system", "the disk")

    monkeypatch.setattr(os, "replace", read_only)
    done = run_here("evaluate", cwd=work)
    assert done.returncode == 2 and "\n40 images: loss " in done.stdout and "predicted class" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Read-only file system" in done.stderr
    done = run_here("check", *DATA.split()[2:], cwd=work)
    assert done.returncode == 2 and "train_path: 40 images of 2 classes\n" in done.stdout
    assert done.stderr.startswith("error: ") and "Read-only file system" in done.stderr
