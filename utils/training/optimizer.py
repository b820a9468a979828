"""The learning rate and the optimizer: the place for other ones."""

from src.tf1 import tf


def build_learning_rate(config, global_step, steps):
    """The learning rate of each step, a float32 scalar: lr * decay ** (global_step // step_rate).

    Args:
        global_step: the number of steps done, a variable.
        steps: steps of an epoch, for schedules that depend on it.
    """
    return tf.train.exponential_decay(
        float(config.lr), global_step, config.step_rate, float(config.decay), staircase=True
    )


def build_optimizer(config, learning_rate):
    """Adam (Kingma and Ba 2015, section 2), a tf.train.Optimizer."""
    return tf.train.AdamOptimizer(learning_rate, epsilon=config.epsilon)
