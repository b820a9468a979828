"""Building blocks of the networks. Each creates its variables in the current variable scope."""

from src.tf1 import tf

BATCH_NORM_EPSILON = 1e-3


def kernel(shape, sigma):
    """The weights of a convolution or a fully connected layer, initialized from a truncated normal with mean 0."""
    return tf.get_variable("kernel", shape, initializer=tf.truncated_normal_initializer(stddev=sigma))


def bias(depth):
    """One value per channel, initialized to 0."""
    return tf.get_variable("bias", [depth], initializer=tf.zeros_initializer())


def fully_connected(x, units, sigma):
    """[batch, n] -> [batch, units]: matrix product and bias."""
    x = tf.matmul(x, kernel([x.shape.as_list()[-1], units], sigma))
    return tf.nn.bias_add(x, bias(units))


def convolution(x, depth, size, sigma):
    """[batch, h, w, n] -> [batch, h - size + 1, w - size + 1, depth]: convolution without padding, and bias."""
    x = tf.nn.conv2d(x, kernel([size, size, x.shape.as_list()[-1], depth], sigma), [1, 1, 1, 1], "VALID")
    return tf.nn.bias_add(x, bias(depth))


def normalized_convolution(x, depth, size, stride, is4Train, momentum, sigma, depthwise=False):
    """[batch, h, w, n] -> [batch, ceil(h / stride), ceil(w / stride), depth]: convolution and batch norm.

    Batch norm: Ioffe & Szegedy (2015), algorithms 1 and 2. In training it uses the mean and variance of the batch; the
    ops that update the moving averages are in the collection UPDATE_OPS. In inference it uses the moving averages.

    Args:
        depth: of the output; ignored if depthwise, where it is that of the input.
        momentum: moving = momentum * moving + (1 - momentum) * batch.
        depthwise: one kernel per channel, instead of one per pair of channels.
    """
    convolve = tf.nn.depthwise_conv2d if depthwise else tf.nn.conv2d
    n = x.shape.as_list()[-1]
    depth = n if depthwise else depth
    w = kernel([size, size, n, 1 if depthwise else depth], sigma)
    strides = [1, stride, stride, 1]
    gamma = tf.get_variable("gamma", [depth], initializer=tf.ones_initializer())
    beta = tf.get_variable("beta", [depth], initializer=tf.zeros_initializer())
    mean = tf.get_variable("moving_mean", [depth], initializer=tf.zeros_initializer(), trainable=False)
    variance = tf.get_variable("moving_variance", [depth], initializer=tf.ones_initializer(), trainable=False)
    if is4Train:
        x = convolve(x, w, strides, "SAME")
        x, batch_mean, batch_variance = tf.nn.fused_batch_norm(x, gamma, beta, epsilon=BATCH_NORM_EPSILON)
        for moving, batch in ((mean, batch_mean), (variance, batch_variance)):
            tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, tf.assign_sub(moving, (moving - batch) * (1 - momentum)))
        return x
    # With fixed mean and variance, batch norm is linear and can be folded into the convolution:
    # gamma * (conv(x, w) - mean) / sqrt(variance + epsilon) + beta
    scale = gamma * tf.rsqrt(variance + BATCH_NORM_EPSILON)
    w = w * (tf.reshape(scale, [depth, 1]) if depthwise else scale)
    return tf.nn.bias_add(convolve(x, w, strides, "SAME"), beta - mean * scale)
