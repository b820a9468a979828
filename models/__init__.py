"""The networks: models/NAME.py builds the one of model_arch "NAME"."""

import importlib

from src.errors import InputError, first_line
from src.tf1 import tf


def network(model_arch):
    """The module of a network: its build(config, shape, is4Train, image), and HEAD, the scope of its last layer.

    Raises:
        InputError: it cannot be imported, or lacks one of these.
    """
    expected = f"build and HEAD in models/{model_arch}.py"
    try:
        module = importlib.import_module(f"models.{model_arch}")
    except ImportError as error:
        raise InputError("setting model_arch", f"an error ({first_line(error)})", expected) from error
    if not hasattr(module, "build") or not hasattr(module, "HEAD"):
        raise InputError("setting model_arch", "a module that lacks one", expected)
    return module


def build(config, is4Train, image=None):
    """Build config.model_arch in the default graph; returns the model.

    Args:
        is4Train: build the network for training; if False, the one for inference.
        image: the input of a network that was built before, to share its input and variables; None: a placeholder.
    """
    # TensorFlow derives the seed of each random op from this one, and requires it with TF_DETERMINISTIC_OPS=1.
    tf.set_random_seed(config.seed)
    shape = [None, config.img_size, config.img_size, config.numchannels]
    return network(config.model_arch).build(config, shape, is4Train, image)


def in_head(variable, model_arch):
    """Whether a variable belongs to the head of the network, the layer that computes the logits."""
    return variable.op.name.startswith(f"{network(model_arch).HEAD}/")


def learned_variables(config):
    """All trainable variables, or with train_layers "head" those of the head."""
    variables = tf.trainable_variables()
    return [variable for variable in variables if config.train_layers == "all" or in_head(variable, config.model_arch)]
