"""NVIDIA's GPUs: which of them there are, hiding them, and why TensorFlow does not use one that is there."""

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import sys

# Numbers or names of GPUs in CUDA_VISIBLE_DEVICES, where CUDA ignores all that follows anything else, such as -1.
GPU_NAME = re.compile(r"[0-9]+|(GPU|MIG)-.+")
SECONDS = 60  # for another program to answer
# TensorFlow opens a GPU's libraries when the first session is opened, and only logs what it could not open.
OPEN_GPU = "import tensorflow.compat.v1 as tf; tf.Session().list_devices()"
VERBOSE = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "dso_loader=1", "TF_USE_LEGACY_KERAS": "1"}
NOT_OPENED = re.compile("Could not (?:dlopen|load dynamic) library '([^']+)'")  # 1.14 and 2.x
OF_THE_DRIVER = ("libcuda.so.1", "libnvidia-ml.so.1")


def find_gpus():
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them: a list of text."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        names = [name.strip() for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",")]
        return list(itertools.takewhile(GPU_NAME.fullmatch, names))
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    lines = output_of(query, "stdout").splitlines() if shutil.which(query[0]) else []
    return [line for line in lines if line.isdigit()]  # it prints errors there too, such as "No devices were found"


@contextlib.contextmanager
def hidden_gpus(device):
    """Within the block, CUDA finds no GPU if `device` is "cpu".

    It has to be entered before the first session is opened. TensorFlow Lite's converter opens a session of its
    own, which would otherwise start CUDA and take all of a GPU's memory.
    """
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    try:
        yield
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def missing_libraries():
    """The names of the libraries that TensorFlow looks for to use a GPU, and cannot open; it takes some seconds."""
    log = output_of([sys.executable, "-c", OPEN_GPU], "stderr", VERBOSE)
    return list(dict.fromkeys(NOT_OPENED.findall(log)))


def output_of(command, stream, environment=()):
    """What a program prints to that stream; "" if it does not run."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    streams[stream] = subprocess.PIPE
    environment = {**os.environ, **dict(environment)}
    try:
        done = subprocess.run(command, env=environment, timeout=SECONDS, encoding="utf-8", errors="replace", **streams)
    except (OSError, subprocess.SubprocessError):
        return ""
    return getattr(done, stream)
