"""A graph that takes images as phones have them: RGB levels from 0 to 255."""

import numpy as np

from src.tf1 import tf

GREY = (0.299, 0.587, 0.114)  # of red, green, blue; ITU-R BT.601, as OpenCV


def mean_and_std(preprocess):
    """Mean and standard deviation of each of the network's input channels, for levels from 0 to 255: float64 arrays."""
    return 255 * np.array(preprocess.image_normalize_mean), 255 * np.array(preprocess.image_normalize_std)


def to_levels(preprocess, images):
    """What the network takes, as RGB levels: float32 [n, img_size, img_size, 3], from 0 to 255."""
    return preprocess.to_rgb(images).astype(np.float32)


def taking_rgb(graph_def, name, preprocess):
    """The GraphDef with RGB levels from 0 to 255 as its input.

    A 1x1 convolution brings the channels into the network's order and normalizes them: unlike operations made to
    reorder channels, it runs on any accelerator of a phone, and stays precise with 8-bit integers.

    Args:
        graph_def: of a network.
        name: of its placeholder.
        preprocess: its Preprocess.
    """
    mean, std = mean_and_std(preprocess)
    kernel = np.diag(1 / std)  # [red, green or blue; the network's channel]
    if preprocess.numchannels == 1:
        kernel = np.array(GREY)[:, np.newaxis] / std
    elif preprocess.channel_order == "bgr":
        kernel = kernel[::-1]
    network = tf.GraphDef()
    network.CopyFrom(graph_def)
    del network.node[:]
    network.node.extend(node for node in graph_def.node if node.name != name)
    with tf.Graph().as_default() as graph:
        image = tf.placeholder(tf.float32, [None, preprocess.img_size, preprocess.img_size, 3], name=name)
        with tf.name_scope("from_rgb"):
            image = tf.nn.conv2d(image, kernel[np.newaxis, np.newaxis].astype(np.float32), [1, 1, 1, 1], "VALID")
            image = tf.nn.bias_add(image, (-mean / std).astype(np.float32))
        tf.import_graph_def(network, {f"{name}:0": image}, name="")
        return graph.as_graph_def()
