"""The networks, by the names that `model_arch` can have."""

from models.lenet5 import LeNet
from models.mobilenetv2 import MobileNetv2
from src.errors import InputError
from src.tf1 import tf

MODELS = {
    "lenet5": lambda shape, is4Train, config, image: LeNet(shape, config.total_class, image),
    "mobilenetv2": lambda shape, is4Train, config, image: MobileNetv2(
        shape, is4Train, config.width, config.total_class, config.batch_norm_momentum, config.strides, image
    ),
}


def build(config, is4Train, image=None):
    """Build config.model_arch into the default graph; returns the model.

    Args:
        is4Train: the network to train; if False, the one for inference.
        image: the input, if there is one already: then the network shares the variables of the one that has it.
    """
    if config.model_arch not in MODELS:
        raise InputError(f"setting model_arch: found no {config.model_arch} in MODELS of models/__init__.py")
    # All that is random gets a seed of its own from that; with TF_DETERMINISTIC_OPS=1, TensorFlow insists on one.
    tf.set_random_seed(config.seed)
    shape = [None, config.img_size, config.img_size, config.numchannels]
    return MODELS[config.model_arch](shape, is4Train, config, image)


def learned_variables(train_layers):
    """What learns: "all" that can; or the "head", the last layer that was made."""
    variables = tf.trainable_variables()
    head = variables[-1].op.name.split("/")[0]
    return [variable for variable in variables if train_layers == "all" or variable.op.name.split("/")[0] == head]


def classify(logits, labels):
    """(cross entropy of each image, its mean, accuracy) of logits against one-hot labels, both [batch, classes]."""
    cross_entropy = tf.nn.softmax_cross_entropy_with_logits_v2(logits=logits, labels=labels)
    correct = tf.equal(tf.argmax(logits, 1), tf.argmax(labels, 1))
    return cross_entropy, tf.reduce_mean(cross_entropy), tf.reduce_mean(tf.cast(correct, tf.float32))
