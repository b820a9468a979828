"""TensorFlow 1 graph mode on both runtimes: everybody writes `from src.tf1 import tf`.

The one place that knows there are two: TensorFlow 1.14 and TensorFlow 2.x both carry the TensorFlow 1 API as
tensorflow.compat.v1. TF_CPP_MIN_LOG_LEVEL=0 in the environment shows all that TensorFlow has to say.

TensorFlow 2.x has two sets of kernels for the CPU, and by default takes the fast one, oneDNN, on some processors only.
Here it is on everywhere, unless TF_ENABLE_ONEDNN_OPTS says otherwise.
"""

import contextlib
import os

from src.console import quiet
from src.errors import InputError, first_line
from src.signals import HeldSignals


@contextlib.contextmanager
def without_keras():
    """TensorFlow 2.x imports Keras at once, for half of its time, unless it is told of an older Keras.

    Nothing here needs it; tf.keras is there all the same for those who use it afterwards.
    """
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    try:
        yield
    finally:
        del os.environ["TF_USE_LEGACY_KERAS"]
        if before is not None:
            os.environ["TF_USE_LEGACY_KERAS"] = before


os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # read when TensorFlow is imported; 1.14 knows no such thing
quietly = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "0"
# TensorFlow 1.14 swallows what signals raise in an import.
with HeldSignals(), without_keras(), contextlib.ExitStack() as stack:
    if quietly:
        stack.enter_context(quiet())
    try:
        import tensorflow.compat.v1 as tf
    except ImportError:
        raise
    except Exception as error:  # of nonsense in the environment, which is then in the message
        raise InputError(f"TensorFlow: cannot be imported ({first_line(error)})") from error
    from tensorflow.python.ops import collective_ops  # noqa: F401 (for utils/cluster.py)

tf.logging.set_verbosity(tf.logging.ERROR)
tf.disable_v2_behavior()
IS_1_14 = tf.__version__.startswith("1.")  # for the few things that only one of them can do


def kernels():
    """The name of the kernels that run on the CPU."""
    onednn = not IS_1_14 and os.environ["TF_ENABLE_ONEDNN_OPTS"].lower() in ("1", "true")
    return "oneDNN" if onednn else "Eigen"


def describe_device(session):
    """The version of TensorFlow and what the session computes on, in a line."""
    gpus = [device.name.split(":", 2)[-1] for device in session.list_devices() if device.device_type == "GPU"]
    device = f"on {' and '.join(gpus)}" if gpus else f"on the CPU, with {kernels()} kernels"
    return f"TensorFlow {tf.__version__} {device}"


def open_session(device):
    """A session in the default graph, on the GPU if `device` is "gpu" and TensorFlow finds one, else on the CPU.

    It takes only as much of the GPU's memory as it needs; CUDA_VISIBLE_DEVICES decides which GPUs there are.
    """
    return tf.Session(config=session_options(device))


def session_options(device):
    """Those of a session of ours."""
    options = tf.ConfigProto(allow_soft_placement=True)
    options.gpu_options.allow_growth = True
    # For processes that train together: NVIDIA's library for messages between GPUs. Without GPUs, 1.14 crashes with it.
    options.experimental.collective_nccl = not IS_1_14
    if device == "cpu":
        options.device_count["GPU"] = 0
    return options
