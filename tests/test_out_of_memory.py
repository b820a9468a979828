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
GPU_0 = "OOM when allocating tensor with shape[32,6,28,28] and type float on {}GPU:0 by allocator GPU_0_bfc".format(
    "/job:localhost/replica:0/task:0/device:"
)
NODES = "\n\t [[{{node Conv2D}}]]\nHint: If you want to see a list of allocated tensors when OOM happens, add"
# How a GPU's memory runs out, and the line of it to be printed: in an operation, in two of them (1.14, 2.x), while
# images are copied to it, and at the start because another process has it.
ON_A_GPU = [
    (tf.errors.ResourceExhaustedError, GPU_0 + NODES, GPU_0),
    (tf.errors.ResourceExhaustedError, f"2 root error(s) found.\n  (0) Resource exhausted: {GPU_0}{NODES}", GPU_0),
    (
        tf.errors.ResourceExhaustedError,
        "Graph execution error:\n\nDetected at node 'Conv2D' defined at (most recent call last):\n"
        f"Node: 'Conv2D'\n2 root error(s) found.\n  (0) RESOURCE_EXHAUSTED:  {GPU_0}{NODES}",
        GPU_0,
    ),
    (tf.errors.InternalError, f"Dst tensor is not initialized.{NODES}", "Dst tensor is not initialized."),
    (
        tf.errors.InternalError,
        "2 root error(s) found.\n  (0) Internal: Dst tensor is not initialized.\n\t [[{{node _arg_input}}]]",
        "Dst tensor is not initialized.",
    ),
    (
        tf.errors.InternalError,
        "CUDA runtime implicit initialization on GPU:0 failed. Status: out of memory",
        "CUDA runtime implicit initialization on GPU:0 failed. Status: out of memory",
    ),
]
ON_THE_GPU = "nvidia-smi shows what else uses the GPU, --device cpu does without it"


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


def test_running_out_of_gpu_memory_keeps_the_last_checkpoint(two_classes, monkeypatch):
    trainer = Trainer(**vars(two_classes))
    trainer.optimize(1)
    monkeypatch.setattr(TrainGraph, "step", raising(tf.errors.ResourceExhaustedError(None, None, ON_A_GPU[0][1])))
    with pytest.raises(InputError, match=r"by allocator GPU_0_bfc\), expected a smaller batch_size"):
        trainer.optimize(1)
    assert trainer.last_checkpoint.endswith("lenet5-4")
    for kind, message, printed in ON_A_GPU:
        monkeypatch.setattr(trainer.session, "run", raising(kind(None, None, message)))
        with pytest.raises(InputError) as caught:
            trainer.evaluate(trainer.data.valid)
        assert str(caught.value) == (
            f"setting batch_size: found 8 at img_size 16, when memory ran out ({printed}), "
            f"expected a smaller batch_size or img_size; last checkpoint: {trainer.last_checkpoint}; {ON_THE_GPU}"
        )


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


def test_running_out_of_gpu_memory_in_a_graph_names_the_way_without_it(trained, digits, run_here, monkeypatch):
    monkeypatch.setattr(tf.Session, "run", raising(tf.errors.ResourceExhaustedError(None, None, GPU_0 + NODES)))
    done = run_here("predict", f"{digits}/test/0", cwd=trained)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith(f"found too little memory ({GPU_0}), expected a smaller one, or more memory; {ON_THE_GPU}")


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
    illegal = "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"  # of a GPU that fails
    gpu = tf.errors.InternalError(None, None, f"could not synchronize on CUDA stream: {illegal}")
    full = tf.errors.ResourceExhaustedError(None, None, "lenet5-4.index; No space left on device")
    others = [gpu, full, RuntimeError("dead"), ValueError("memory"), cv2.error("(-215:Assertion failed) !buf.empty()")]
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
