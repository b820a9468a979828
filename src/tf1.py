"""TensorFlow 1 graph mode on both runtimes: all other modules use `from src.tf1 import tf`.

The only module that distinguishes them: TensorFlow 1.14 and 2.x both provide the TensorFlow 1 API as
tensorflow.compat.v1. TF_CPP_MIN_LOG_LEVEL=0 in the environment shows all of TensorFlow's log messages.

TensorFlow 2.x has two sets of CPU kernels, and by default uses the faster one, oneDNN, on some processors only. Here it
is always used, unless TF_ENABLE_ONEDNN_OPTS disables it.
"""

import contextlib
import os
import sys

from src.console import print_note, quiet
from src.errors import InputError, first_line
from src.gpu import OF_THE_DRIVER, find_gpus, missing_libraries
from src.processor import check_processor
from src.signals import HeldSignals


@contextlib.contextmanager
def without_keras():
    """Keep TensorFlow 2.x from importing Keras, half of its import time: TF_USE_LEGACY_KERAS makes the import lazy.

    tf.keras still works for those who use it afterwards.
    """
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    try:
        yield
    finally:
        del os.environ["TF_USE_LEGACY_KERAS"]
        if before is not None:
            os.environ["TF_USE_LEGACY_KERAS"] = before


check_processor()
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # read when TensorFlow is imported; 1.14 ignores it
was_imported = "tensorflow" in sys.modules
quietly = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "0"
# TensorFlow 1.14 swallows exceptions that signal handlers raise during its import.
with HeldSignals(), without_keras(), contextlib.ExitStack() as stack:
    if quietly:
        stack.enter_context(quiet())
    try:
        import tensorflow.compat.v1 as tf
    except ImportError as error:
        missing = [line.strip() for line in str(error).splitlines() if "DLL" in line]
        if not missing:
            raise
        hint = "docs/setup.md says what it needs on Windows"
        raise InputError(f"TensorFlow: cannot be imported ({missing[0]})", hint=hint) from error
    except Exception as error:  # an invalid environment variable, which the message then names
        raise InputError(f"TensorFlow: cannot be imported ({first_line(error)})") from error
    from tensorflow.python.ops import collective_ops  # noqa: F401 (for utils/cluster/)

tf.logging.set_verbosity(tf.logging.ERROR)
if was_imported and tf.executing_eagerly():
    print_note(
        "TensorFlow was imported before: from here on, this process is in graph mode, without eager tensors, "
        "tf.function and Keras' fit; use a process of its own for these"
    )
# Its parts cannot be had alone: with eager execution, tensors of a graph could not be keys of a feed_dict.
tf.disable_v2_behavior()
IS_1_14 = tf.__version__.startswith("1.")  # for this file only; what follows names the differences
if not IS_1_14:
    from tensorflow.python.framework.config import enable_op_determinism
WRITES_FLOAT16 = not IS_1_14  # to TensorFlow Lite
RUNS_INT8_FAST = not IS_1_14  # 1.14 takes a second per image


def cpu_kernel_library():
    onednn = not IS_1_14 and os.environ["TF_ENABLE_ONEDNN_OPTS"].lower() in ("1", "true")
    return "oneDNN" if onednn else "Eigen"


def lite_interpreter(path):
    """TensorFlow Lite's interpreter of a file; in 2.x it uses all processors."""
    return tf.lite.Interpreter(path, **({} if IS_1_14 else {"num_threads": os.cpu_count()}))


def describe_device(session, device):
    """One line: the version of TensorFlow, the devices of the session, and why there is no GPU if `device` is "gpu" and
    the machine has one."""
    gpus = [found.name.split("/device:")[-1] for found in session.list_devices() if found.device_type == "GPU"]
    if gpus:
        return f"TensorFlow {tf.__version__} on {' and '.join(gpus)}"
    reason = f": {why_no_gpu()}" if device == "gpu" and find_gpus() else ""
    return f"TensorFlow {tf.__version__} on the CPU, with {cpu_kernel_library()} kernels{reason}"


def why_no_gpu():
    """Why TensorFlow does not use the GPU of this machine, and what to do about it."""
    if not tf.test.is_built_with_cuda():
        return "this build of TensorFlow cannot use the GPU; see docs/setup.md"
    missing = missing_libraries()
    if not missing:
        return "why it does not use the GPU is in its log, which TF_CPP_MIN_LOG_LEVEL=0 in the environment shows"
    *others, last = missing
    needs = f"to use the GPU, it needs {', '.join(others)}{' and ' * bool(others)}{last}"
    if set(missing) & set(OF_THE_DRIVER):
        return f"{needs}, part of NVIDIA's driver"
    if IS_1_14:
        return f"{needs}, part of CUDA 10.0 and cuDNN 7; see docs/setup.md"
    return f"{needs}, which make venv GPU=1 installs, or pip install 'tensorflow[and-cuda]=={tf.__version__}'"


def open_session(device):
    """A session in the default graph, on the GPU if `device` is "gpu" and TensorFlow finds one, else on the CPU.

    It allocates GPU memory as needed; CUDA_VISIBLE_DEVICES selects the GPUs.
    """
    return tf.Session(config=session_options(device))


def make_deterministic():
    """From here on, in the whole process, TensorFlow takes operations that give the same numbers each time.

    2.x fails at those that it has no such GPU kernel for. 1.14 has the choice for convolutions and max pooling only,
    and reads it at the first of them.
    """
    if IS_1_14:
        os.environ["TF_CUDNN_DETERMINISTIC"] = "1"
    else:
        enable_op_determinism()


def session_options(device):
    options = tf.ConfigProto(allow_soft_placement=True)
    options.gpu_options.allow_growth = True
    # NCCL, for clusters of GPUs. Without GPUs, 1.14 crashes with it.
    options.experimental.collective_nccl = not IS_1_14
    if device == "cpu":
        options.device_count["GPU"] = 0
    return options
