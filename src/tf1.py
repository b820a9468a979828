"""TensorFlow 1 graph mode on both runtimes: everybody writes `from src.tf1 import tf`.

The one place that knows there are two: TensorFlow 1.14 and TensorFlow 2.x both carry the TensorFlow 1 API as
tensorflow.compat.v1. TF_CPP_MIN_LOG_LEVEL=0 in the environment shows all that TensorFlow has to say.
"""
import contextlib
import os


@contextlib.contextmanager
def quiet():
    """Hide what TensorFlow 2.x writes while it is imported, before it looks at its log level."""
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
    import tensorflow.compat.v1 as tf
else:
    with quiet():
        import tensorflow.compat.v1 as tf

tf.logging.set_verbosity(tf.logging.ERROR)
tf.disable_v2_behavior()
