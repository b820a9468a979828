"""Running out of memory, anywhere: the last checkpoint is kept, and a line says what to reduce."""

import argparse
import glob
import os
import threading

import cv2
import pytest

import dataset
from src.errors import InputError, is_out_of_memory
from src.tf1 import tf
from trainer import Trainer
from utils.checkpoints import resume
from utils.images import decode
from utils.images.preprocess import Preprocess
from utils.training.graph import TrainGraph

OOM = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[32,28,28,6]")
NO_THREAD = RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    "error", [OOM, MemoryError("Unable to allocate 1.1 GiB"), NO_THREAD], ids=["TF", "numpy", "thread"]
)
def test_running_out_of_memory_in_a_step_keeps_the_last_checkpoint(two_classes, run_here, monkeypatch, tmp_path, error):
    step, done = TrainGraph.step, []

    def failing(self, session, batch, requests):
        done.append(1)
        if len(done) == 6:  # of 4 in an epoch
            session.run(self.variables[0].initializer)  # weights that are half of one step, half of another
            raise error
        return step(self, session, batch, requests)

    monkeypatch.setattr(TrainGraph, "step", failing)
    options = "--train_path", two_classes.train_path, "--img_size", "16", "--batch_size", "8", "--num_epoch", "3"
    result = run_here(*options, cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    (index,) = glob.glob("checkpoints/lenet5/2*/*.index")
    assert line == (
        f"error: setting batch_size: found 8 at img_size 16, when memory ran out ({str(error) or 'MemoryError'}), "
        f"expected a smaller batch_size or img_size; last checkpoint: {index[:-6]}"
    )
    assert index.endswith("lenet5-4.index")
    assert glob.glob("**/*partial*", recursive=True) + glob.glob("**/*tempstate*", recursive=True) == []


def failing_normalize(monkeypatch):
    monkeypatch.setattr(Preprocess, "normalize", raising(MemoryError("Unable to allocate 1.1 GiB")))


def failing_threads(monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", raising(NO_THREAD))


def failing_initializers(monkeypatch):
    monkeypatch.setattr(tf.Session, "run", raising(OOM))


def raising(error):
    def fail(*arguments, **options):
        raise error

    return fail


@pytest.mark.parametrize("fail", [failing_normalize, failing_threads, failing_initializers])
def test_running_out_of_memory_before_the_first_step_leaves_no_run(two_classes, run_here, monkeypatch, tmp_path, fail):
    with monkeypatch.context() as patch:
        fail(patch)
        done = run_here("--train_path", two_classes.train_path, "--img_size", "16", "--batch_size", "8", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: setting batch_size: found 8 at img_size 16, when memory ran out (")
    assert line.endswith("last checkpoint: none yet")
    assert glob.glob("checkpoints/lenet5/2*") == []


def test_running_out_of_memory_in_validation_keeps_the_epoch(two_classes, monkeypatch):
    trainer = Trainer(**vars(two_classes))
    monkeypatch.setattr(dataset.DataSet, "batches", raising(MemoryError()))
    with pytest.raises(InputError, match="when memory ran out"):
        trainer.optimize()
    assert trainer.last_checkpoint.endswith("lenet5-4")


def test_a_checkpoint_for_which_there_is_no_memory_is_not_taken_for_a_corrupt_one(two_classes, monkeypatch):
    trainer = Trainer(**vars(two_classes))
    trainer.optimize(2)
    monkeypatch.setattr(tf.train, "NewCheckpointReader", raising(MemoryError()))
    with pytest.raises(InputError, match=f"^checkpoint {trainer.last_checkpoint}: found too little memory"):
        resume.latest_valid_checkpoint(trainer.checkpoints)


@pytest.mark.parametrize("command", ["predict", "evaluate", "explain"])
def test_running_out_of_memory_in_a_graph_names_it(trained, digits, run_here, monkeypatch, command):
    monkeypatch.setattr(tf.Session, "run", raising(OOM))
    arguments = [] if command == "evaluate" else [f"{digits}/test/0"]
    done = run_here(command, *arguments, cwd=trained)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: graph weights/lenet5/lenet5.pb on 1 images of 32 px: found too little memory (OOM ")


def test_running_out_of_memory_elsewhere_ends_in_one_line(folders, run_here, monkeypatch, tmp_path):
    monkeypatch.setattr(threading.Thread, "start", raising(NO_THREAD))
    done = run_here("check", "--train_path", folders({"cat": 3, "dog": 3}), cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    found = "too little (can't start new thread)"
    assert line == f"error: memory: found {found}, expected more of it, smaller images, or a smaller graph"


@pytest.mark.parametrize(
    "error", [MemoryError(), cv2.error("OpenCV(4) (-4:Insufficient memory) Failed to allocate 900000000 bytes")]
)
def test_an_image_for_which_there_is_no_memory_is_named_but_not_skipped(two_classes, monkeypatch, error):
    monkeypatch.setattr(cv2, "imdecode", raising(error))
    path = os.path.join(two_classes.train_path, "cat", "000.png")
    with pytest.raises(InputError, match=f"image {path}: found too little memory"):
        decode.read_image(path)
    with pytest.raises(InputError, match="too little memory"):
        dataset.read_train_sets(argparse.Namespace(**dict(vars(two_classes), bad_images="skip")))


def test_other_errors_are_not_taken_for_a_want_of_memory():
    full = tf.errors.ResourceExhaustedError(None, None, "lenet5-4.index; No space left on device")
    others = [full, RuntimeError("dead"), ValueError("memory"), cv2.error("(-215:Assertion failed) !buf.empty()")]
    assert not any(map(is_out_of_memory, others))


@pytest.mark.parametrize("trace", [
    "Detected at node 'Sum' defined at (most recent call last):\n    File \"utils/training/memory.py\", line 7, in f\n"
    "Node: 'Sum'\n{}\n\t [[...]]\n\nOriginal stack trace for 'Sum':\n  File \"memory.py\", line 7, in f\n",
    "{}\n\t [[node Sum (defined at utils/training/memory.py:7) ]]\n\nOriginal stack trace for 'Sum':\n"
    '  File "utils/training/memory.py", line 7, in f\n    check_memory(self)\n',
], ids=["2.21", "1.14"])  # fmt: skip
def test_names_of_files_in_a_message_of_tensorflow_do_not_matter(trace):
    reset, oom = trace.format("Connection reset by peer"), trace.format("OOM when allocating tensor with shape[3]")
    assert not is_out_of_memory(tf.errors.UnavailableError(None, None, reset))
    assert is_out_of_memory(tf.errors.ResourceExhaustedError(None, None, oom))
