"""What is known to go wrong with GPUs, imitated on a machine without one."""

import argparse
import ctypes
import os
import re
import shutil
import subprocess

import pytest
from tensorflow.python.client import session as tf_session

from convert.command import run
from convert.pb2tflite import pb2tflite
from run import main
from src import gpu, tf1
from src.errors import InputError
from src.settings import settings
from src.tf1 import tf
from utils.cluster import launch, server

# What TensorFlow logged where an imitated driver, a libcuda.so.1 of a few lines of C, told of a GPU. Left out of it:
# dates, LD_LIBRARY_PATH, and lines that name no library.
LOGS = {
    "1.14": """
I tensorflow/stream_executor/platform/default/dso_loader.cc:42] Successfully opened dynamic library libcuda.so.1
I tensorflow/stream_executor/platform/default/dso_loader.cc:53] Could not dlopen library 'libcudart.so.10.0'; \
dlerror: libcudart.so.10.0: cannot open shared object file: No such file or directory
I tensorflow/stream_executor/platform/default/dso_loader.cc:53] Could not dlopen library 'libcudnn.so.7'; \
dlerror: libcudnn.so.7: cannot open shared object file: No such file or directory
W tensorflow/core/common_runtime/gpu/gpu_device.cc:1663] Cannot dlopen some GPU libraries. Skipping registering GPU \
devices...
""",
    "2.21": """
I0000 00:00:1795890811.028950   28845 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will \
not be used.
I0000 00:00:1795890814.942507   28845 dso_loader.cc:133] Successfully opened dynamic library libcuda.so.1
I0000 00:00:1795890814.948106   28947 dso_loader.cc:144] Could not load dynamic library 'libcudnn.so.9'; dlerror: \
libcudnn.so.9: cannot open shared object file: No such file or directory
I0000 00:00:1795890814.952648   28845 dso_loader.cc:144] Could not load dynamic library 'libcudart.so.12'; dlerror: \
libcudart.so.12: cannot open shared object file: No such file or directory
I0000 00:00:1795890814.954431   28845 dso_loader.cc:144] Could not load dynamic library 'libcudnn.so.9'; dlerror: \
libcudnn.so.9: cannot open shared object file: No such file or directory
W0000 00:00:1795890814.954452   28845 gpu_device.cc:2365] Cannot dlopen some GPU libraries. Please make sure the \
missing libraries mentioned above are installed properly if you would like to use GPU. Follow the guide at \
https://www.tensorflow.org/install/gpu for how to download and setup the required libraries for your platform.
""",
}
ONE_GPU = "echo 0"


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A function that puts an nvidia-smi on PATH which runs these commands of a shell."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)

    def install(commands):
        path = tmp_path / "bin" / "nvidia-smi"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{commands}\n")
        path.chmod(0o755)

    return install


@pytest.mark.parametrize("commands, expected", [
    ("echo 0; echo 1", ["0", "1"]),
    ('[ "$*" = "--query-gpu=index --format=csv,noheader" ] && echo 0', ["0"]),
    ("echo 'No devices were found'", []),
    ("echo 'No devices were found'; exit 6", []),
    ("echo \"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\"; exit 9", []),
    ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", []),
    ("echo 0; echo 'Unable to determine the device handle for GPU0000:02:00.0: Unknown Error'; exit 15", ["0"]),
    ("echo 0 >&2; exit 1", []),
    ("printf '\\377\\n'", []),
])  # fmt: skip
def test_only_numbers_that_nvidia_smi_prints_are_gpus(nvidia_smi, commands, expected):
    nvidia_smi(commands)
    assert gpu.find_gpus() == expected


def test_an_nvidia_smi_that_does_not_run_or_does_not_answer_names_no_gpus(nvidia_smi, monkeypatch, tmp_path):
    nvidia_smi("exec sleep 60")
    monkeypatch.setattr(gpu, "SECONDS", 0.2)
    assert gpu.find_gpus() == []
    (tmp_path / "bin" / "nvidia-smi").write_bytes(b"\x7fELF of another processor")
    assert gpu.find_gpus() == []


@pytest.mark.parametrize("chosen, expected", [
    ("0", ["0"]), ("2,0", ["2", "0"]), ("0, 1", ["0", "1"]), ("", []), ("-1", []), ("NoDevFiles", []),
    ("0,-1,1", ["0"]),  # CUDA ignores what follows a -1
    ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,1", ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "1"]),
])  # fmt: skip
def test_the_gpus_of_the_environment_are_those_that_cuda_takes_them_for(nvidia_smi, monkeypatch, chosen, expected):
    nvidia_smi("echo 0; echo 1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert gpu.find_gpus() == expected


def test_each_worker_gets_one_gpu_and_none_where_there_is_an_error_instead(nvidia_smi):
    def given(workers, **overrides):
        return [worker.get("CUDA_VISIBLE_DEVICES") for worker in launch.environments(settings(**overrides), workers)]

    nvidia_smi("echo 0; echo 1; echo 2")
    assert given(2) == ["0", "1"]
    assert given(2, device="cpu") == [None, None]
    with pytest.raises(InputError, match="^--workers: found 4, expected at most 3, one for each GPU, or --device cpu$"):
        given(4)
    nvidia_smi("echo 'No devices were found'; exit 6")
    assert given(5) == [None] * 5


@pytest.mark.parametrize("log, expected", [
    (LOGS["1.14"], ["libcudart.so.10.0", "libcudnn.so.7"]), (LOGS["2.21"], ["libcudnn.so.9", "libcudart.so.12"]),
    ("", []),
])  # fmt: skip
def test_missing_libraries_are_those_that_tensorflow_logs(monkeypatch, log, expected):
    monkeypatch.setattr(gpu, "output_of", lambda *arguments: log)
    assert gpu.missing_libraries() == expected


CPU = f"TensorFlow {tf.__version__} on the CPU, with {tf1.cpu_kernel_library()} kernels"
PIP = f"pip install 'tensorflow[and-cuda]=={tf.__version__}'"


@pytest.mark.parametrize("missing, is_1_14, expected", [
    (["libcudnn.so.9"], False, f"to use the GPU, it needs libcudnn.so.9, which make venv GPU=1 installs, or {PIP}"),
    (["a", "b", "c"], False, f"to use the GPU, it needs a, b and c, which make venv GPU=1 installs, or {PIP}"),
    (["a", "b"], True, "to use the GPU, it needs a and b, part of CUDA 10.0 and cuDNN 7; see docs/setup.md"),
    (["libcuda.so.1"], False, "to use the GPU, it needs libcuda.so.1, part of NVIDIA's driver"),
    (["libcuda.so.1"], True, "to use the GPU, it needs libcuda.so.1, part of NVIDIA's driver"),
    ([], False, "why it does not use the GPU is in its log, which TF_CPP_MIN_LOG_LEVEL=0 in the environment shows"),
])  # fmt: skip
def test_a_gpu_that_tensorflow_does_not_use_is_explained(nvidia_smi, monkeypatch, missing, is_1_14, expected):
    nvidia_smi(ONE_GPU)
    monkeypatch.setattr(tf1, "IS_1_14", is_1_14)
    monkeypatch.setattr(tf1, "missing_libraries", lambda: missing)
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: True)
    assert tf1.why_no_gpu() == expected


def session_of(*devices):
    """Stands in for a session with these devices."""
    path = "/job:localhost/replica:0/task:0/device:"  # as both TensorFlows have it
    named = [argparse.Namespace(device_type=name[:3], name=path + name) for name in devices]
    return argparse.Namespace(list_devices=lambda: named)


def test_the_first_line_explains_only_a_gpu_that_is_there_and_wanted(nvidia_smi, monkeypatch):
    explained = []
    monkeypatch.setattr(tf1, "why_no_gpu", lambda: explained.append(1) or "a reason")
    nvidia_smi("echo 'No devices were found'")
    assert tf1.describe_device(session_of("CPU:0"), "gpu") == CPU
    nvidia_smi(ONE_GPU)
    assert tf1.describe_device(session_of("CPU:0"), "cpu") == CPU
    on_two = f"TensorFlow {tf.__version__} on GPU:0 and GPU:1"
    assert tf1.describe_device(session_of("CPU:0", "GPU:0", "GPU:1"), "gpu") == on_two
    assert explained == []
    assert tf1.describe_device(session_of("CPU:0"), "gpu") == f"{CPU}: a reason"


# A driver as far as TensorFlow asks it before it opens the libraries of CUDA.
DRIVER = """
#include <string.h>
int cuInit(unsigned f) {return 0;}
int cuDriverGetVersion(int *v) {*v = 12080; return 0;}
int cuDeviceGetCount(int *n) {*n = 1; return 0;}
int cuDeviceGet(int *d, int number) {*d = number; return 0;}
int cuDeviceGetName(char *name, int n, int d) {strncpy(name, "Imitated", n); return 0;}
int cuDeviceGetAttribute(int *v, int a, int d) {*v = 9; return 0;}
int cuDeviceComputeCapability(int *a, int *b, int d) {*a = 9; *b = 0; return 0;}
int cuDeviceTotalMem_v2(size_t *n, int d) {*n = 1ul << 33; return 0;}
int cuDeviceGetProperties(void *p, int d) {return 0;}
int cuDeviceGetPCIBusId(char *p, int n, int d) {strncpy(p, "0000:01:00.0", n); return 0;}
int cuDevicePrimaryCtxRetain(void **c, int d) {*c = (void *)1; return 0;}
int cuDevicePrimaryCtxSetFlags(int d, unsigned f) {return 0;}
int cuDevicePrimaryCtxGetState(int d, unsigned *f, int *a) {*f = 0; *a = 1; return 0;}
int cuCtxGetCurrent(void **c) {*c = (void *)1; return 0;}
int cuCtxSetCurrent(void *c) {return 0;}
int cuCtxGetDevice(int *d) {*d = 0; return 0;}
int nvmlInit_v2() {return 0;}
int nvmlInit() {return 0;}
int nvmlShutdown() {return 0;}
"""


def has_library(name):
    try:
        return bool(ctypes.CDLL(name))
    except OSError:
        return False


@pytest.mark.skipif(has_library("libcuda.so.1"), reason="has NVIDIA's driver")
@pytest.mark.skipif(
    not shutil.which("gcc") or not tf.test.is_built_with_cuda(), reason="needs gcc, TensorFlow with CUDA"
)
def test_tensorflow_names_the_libraries_missing_beside_a_driver(nvidia_smi, monkeypatch, tmp_path):
    nvidia_smi(ONE_GPU)
    (tmp_path / "driver.c").write_text(DRIVER)
    for name in gpu.OF_THE_DRIVER:
        command = ["gcc", "-w", "-shared", "-fPIC", "-o", str(tmp_path / name), str(tmp_path / "driver.c")]
        subprocess.run(command, check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path), prepend=os.pathsep)
    with tf.Session() as session:
        line = tf1.describe_device(session, "gpu")
    assert line.startswith(f"{CPU}: to use the GPU, it needs ")
    for name in ["libcudart.so.10.0", "libcudnn.so.7"] if tf1.IS_1_14 else ["libcudart.so.12", "libcudnn.so.9"]:
        assert re.search(rf"\b{name}\b", line)
    assert "driver" not in line


@pytest.fixture
def visible(monkeypatch):
    """CUDA_VISIBLE_DEVICES whenever a session of TensorFlow is opened, by whichever library: a list."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found, init = [], tf_session.BaseSession.__init__

    def recording(*arguments, **options):
        found.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
        init(*arguments, **options)

    monkeypatch.setattr(tf_session.BaseSession, "__init__", recording)
    return found


def test_with_device_cpu_no_command_starts_cuda(folders, in_tmp_path, visible, monkeypatch):
    path = folders({"cat": 10, "dog": 10})
    image, data = f"{path}/cat/000.png", ["--train_path", path, "--test_path", path]

    def convert(words):
        run(words, "convert.pb2tflite", "", lambda reference: [lambda: pb2tflite(reference)])

    for command in (
        lambda cpu: main([*data, "--img_size", "16", "--batch_size", "4", *cpu]),
        lambda cpu: main(["--resume", "--num_epoch", "2", *cpu]),
        lambda cpu: main(["evaluate", *cpu]),
        lambda cpu: main(["predict", image, *cpu]),
        lambda cpu: main(["explain", image, *cpu]),
        convert,
    ):
        del visible[:]
        assert not command(["--device", "cpu"])
        assert visible and set(visible) == {"-1"}
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
    del visible[:]
    assert main(["predict", image]) == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    for device in ("cpu", "gpu"):
        assert main(["predict", image, "--device", device]) == 0
    assert visible == [None, "-1", "1"] and os.environ["CUDA_VISIBLE_DEVICES"] == "1"


def test_the_server_of_a_cluster_has_the_device_of_the_settings(monkeypatch):
    configs = []
    monkeypatch.setattr(tf.train, "Server", lambda *arguments, config: configs.append(config))
    addresses = {"chief 0": "127.0.0.1:1", "worker 0": "127.0.0.1:2"}
    for device in ("gpu", "cpu"):
        server.Server(addresses, 0, device)
    assert [dict(config.device_count) for config in configs] == [{}, {"GPU": 0}]
