"""The networks: models/NAME.py is the one that `model_arch` = "NAME" trains."""

import importlib

from src.errors import InputError, first_line
from src.tf1 import tf


def network(model_arch):
    """The module of a network, imported only now: its build(config, shape, is4Train, image), and the scope of its HEAD.

    Raises:
        InputError: there is none, or it lacks one of these.
    """
    expected = f"expected build and HEAD in models/{model_arch}.py"
    try:
        module = importlib.import_module(f"models.{model_arch}")
    except ImportError as error:
        raise InputError(f"setting model_arch: found an error ({first_line(error)}), {expected}") from error
    if not hasattr(module, "build") or not hasattr(module, "HEAD"):
        raise InputError(f"setting model_arch: found a module that lacks one, {expected}")
    return module


def build(config, is4Train, image=None):
    """Build config.model_arch into the default graph; returns the model.

    Args:
        is4Train: the network to train; if False, the one for inference.
        image: the input, if there is one already: then the network shares the variables of the one that has it.
    """
    # All that is random gets a seed of its own from that; with TF_DETERMINISTIC_OPS=1, TensorFlow insists on one.
    tf.set_random_seed(config.seed)
    shape = [None, config.img_size, config.img_size, config.numchannels]
    return network(config.model_arch).build(config, shape, is4Train, image)


def in_head(variable, model_arch):
    """Whether a variable belongs to the head of that network, the layer that gives the logits."""
    return variable.op.name.startswith(f"{network(model_arch).HEAD}/")


def learned_variables(config):
    """The trainable variables: all, or with train_layers "head" those of the head."""
    variables = tf.trainable_variables()
    return [variable for variable in variables if config.train_layers == "all" or in_head(variable, config.model_arch)]


def classify(logits, labels):
    """(cross entropy of each image, its mean, accuracy) of logits against one-hot labels, both [batch, classes]."""
    cross_entropy = tf.nn.softmax_cross_entropy_with_logits_v2(logits=logits, labels=labels)
    correct = tf.equal(tf.argmax(logits, 1), tf.argmax(labels, 1))
    return cross_entropy, tf.reduce_mean(cross_entropy), tf.reduce_mean(tf.cast(correct, tf.float32))
