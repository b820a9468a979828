"""run.py as its users run it: a process of its own in a folder of their own."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

import run
from tests.conftest import REPOSITORY, accuracy_in_opencv, python, run_py
from trainer import Trainer


def test_the_digits_are_learned(digits, tmp_path):
    done = run_py("--train_path", f"{digits}/train", "--test_path", f"{digits}/test", "--num_epoch", "30", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^epoch \d+/30: ", done.stdout, re.MULTILINE)) == 30
    assert done.stderr == ""  # no progress bar, no chatter, when it is not a terminal
    for place in ("weights/lenet5/lenet5.pb", "checkpoints/lenet5", "graphs/lenet5/", "tensorboard --logdir graphs"):
        assert place in done.stdout

    assert accuracy_in_opencv(str(tmp_path / "weights" / "lenet5" / "lenet5.pb"), f"{digits}/test") > 0.95


def test_a_script_of_three_lines_trains_and_exports(folders, in_tmp_path):
    folders({"cat": 30, "dog": 30}, name="data/cifar10png/train")
    exec("from trainer import Trainer\nT = Trainer()\nT.optimize(num_epoch=1)\nT.export()\n", {})
    assert os.path.exists("weights/lenet5/lenet5.pb")


def test_help_tells_every_verb_and_setting(capsys):
    with pytest.raises(SystemExit) as ended:
        run.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for word in ("prepare", "export", "--model_arch", "--batch_size", "--image_normalize_mean", "cifar10png/train"):
        assert word in text


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--model_arch", "resnet"], "setting model_arch: found 'resnet', expected lenet5 or mobilenetv2"),
        (["--batch_size", "many"], "setting batch_size: found 'many', expected a whole number"),
        (["--batch_size", "1000"], "setting batch_size: found 1000, expected at most"),
        (["--lr", "-1"], "setting lr: found -1, expected a number above 0"),
        (["--validation_size", "1.5"], "setting validation_size: found 1.5"),
        (["--train_path", "nowhere"], "setting train_path: found no folder nowhere"),
        (["--image_normalize_std", "0,1,1"], "setting image_normalize_std"),
        (["--checkpoint_dir", "/dev/null/x"], "setting checkpoint_dir: found /dev/null/x"),
        (["--batchsize", "3"], "--batchsize"),
        (["--batch", "3"], "--batch"),
        (["--batch_size"], "--batch_size"),
        (["fly"], "fly"),
        (["prepare", "imagenet"], "imagenet"),
        (["prepare", "digits", "--archive", "x"], "--archive: found x, expected none"),
        (["export", "--channel_order", "rgb"], "--channel_order"),
        (["prepare", "cifar10", "--archive", "nowhere.tar.gz"], "nowhere.tar.gz"),
        (["export"], "setting checkpoint_dir: found no run with checkpoints in checkpoints/lenet5"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folders, in_tmp_path, capfd, arguments, expected):
    train_path = folders({"cat": 20, "dog": 20})
    if arguments[0].startswith("-") and "--train_path" not in arguments:
        arguments = ["--train_path", train_path] + arguments
    assert run.main(arguments) == 2
    output = capfd.readouterr()
    assert expected in output.err
    assert output.err.startswith("error: ") and output.err.count("\n") == 1
    assert not os.path.exists("weights/lenet5/lenet5.pb")
    assert not os.path.exists("data") or os.listdir("data") == []


def test_a_broken_image_ends_training_with_its_name_and_a_checkpoint(folders, in_tmp_path, capfd):
    path = folders({"cat": 400, "dog": 400})
    with open(f"{path}/dog/007.png", "wb") as file:
        file.write(b"broken")
    assert run.main(["--train_path", path, "--batch_size", "2", "--num_epoch", "2"]) == 2
    output = capfd.readouterr()
    assert output.err.count("\n") == 1 and "dog/007.png" in output.err


@pytest.mark.parametrize("sent, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal(folders, tmp_path, run_here, sent, code):
    path = folders({"cat": 200, "dog": 200})
    process = subprocess.Popen(
        [sys.executable, os.path.join(REPOSITORY, "run.py"), "--train_path", path, "--num_epoch", "100000"],
        cwd=str(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        preexec_fn=lambda: signal.signal(sent, signal.SIG_DFL),
    )  # a shell's background jobs ignore Ctrl-C
    while not process.stdout.readline().startswith("epoch 3"):
        assert process.poll() is None
    time.sleep(0.05)
    process.send_signal(sent)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert "python run.py export" in output
    assert run_here("export", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("arguments, expected", [
    (["--lr", "x"], "setting lr: found 'x', expected a number above 0"),
    (["train", "--lr", "x"], "setting lr: found 'x', expected a number above 0"),
    (["--epochs", "3"], "unknown argument --epochs; did you mean --num_epoch?"),
    (["train", "--epochs=3"], "unknown argument --epochs; did you mean --num_epoch?"),
    (["predict", "a.png", "--tpo", "3"], "unknown argument --tpo; did you mean --top?"),
    (["evalute"], "unknown command evalute; did you mean evaluate?"),
    (["prepare", "digits", "--lr", "3"], "unknown argument --lr; python run.py prepare --help lists the options"),
])  # fmt: skip
def test_what_is_wrong_with_the_command_line_is_reported_before_tensorflow_is_imported(tmp_path, arguments, expected):
    """No module of TensorFlow can be found there."""
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import run; sys.exit(run.main({arguments!r}))"
    done = python("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {expected}\n")


def test_train_is_the_same_as_no_verb(folders, tmp_path, run_here):
    path = folders({"cat": 20, "dog": 20})
    for arguments in ([], ["train"]):
        done = run_here(*arguments, "--train_path", path, "--batch_size", "8", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "epoch 1/1: " in done.stdout and "weights/lenet5/lenet5.pb" in done.stdout


def test_printed_commands_work_in_folders_with_a_space(folders, in_tmp_path, monkeypatch, capsys):
    path = folders({"cat": 40, "dog": 40})
    save = Trainer.save

    def interrupt(trainer, monitor):
        save(trainer, monitor)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "save", interrupt)
    arguments = ["--train_path", path, "--checkpoint_dir", "my checkpoints", "--weight_dir", "my 'weights'"]
    assert run.main(arguments) == 130
    command = re.search("python run.py (export .*)", capsys.readouterr().out).group(1)
    assert run.main(shlex.split(command)) == 0
    assert os.path.exists("my 'weights'/lenet5.pb")


def test_class_names_with_commas_as_a_json_list(folders, in_tmp_path):
    path = folders({"cat, black": 20, "dog": 20, "owl": 20})
    assert run.main(["--train_path", path, "--classes", '["cat, black", "owl"]', "--batch_size", "8"]) == 0
    with open("weights/lenet5/labels.txt") as file:
        assert file.read() == "cat, black\nowl\n"
