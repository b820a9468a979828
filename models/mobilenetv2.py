"""MobileNetV2: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018)."""

from models.layers import fully_connected, normalized_convolution
from src import config
from src.tf1 import tf

HEAD = "logits"  # scope of the layer that computes the logits
SIGMA = 0.09  # standard deviation of the initial weights
# Table 2 of the paper; output shapes for width 1: of 224x224x3, and of 32x32x3 with small strides
FIRST_DEPTH = 32  # 112x112x32, 32x32x32
BOTTLENECKS = (  # t: expansion, c: depth, n: repetitions
    (1, 16, 1),  # 112x112x16, 32x32x16
    (6, 24, 2),  # 56x56x24, 32x32x24
    (6, 32, 3),  # 28x28x32, 16x16x32
    (6, 64, 4),  # 14x14x64, 8x8x64
    (6, 96, 3),  # 14x14x96, 8x8x96
    (6, 160, 3),  # 7x7x160, 4x4x160
    (6, 320, 1),  # 7x7x320, 4x4x320
)
LAST_DEPTH = 1280  # 7x7x1280, 4x4x1280
STRIDES = {  # of the first convolution, and of the first block of each row of BOTTLENECKS
    "paper": (2, (1, 2, 2, 2, 1, 2, 1)),  # total stride 32
    "small": (1, (1, 1, 2, 2, 1, 2, 1)),  # total stride 8
}


def rounded(depth):
    """`depth` rounded to a multiple of 8, which is at least 8 and at least 90 % of it."""
    result = max(8, int(depth + 4) // 8 * 8)
    return result if result >= 0.9 * depth else result + 8


class MobileNetv2:
    """The network from the placeholder `Image` to the logits `output`, both at the root of the default graph.

    Args:
        shape: of a batch of images, [None, height, width, 3]; 32 pixels a side or more.
        is4Train: batch norm with the statistics of the batch, and ops that update the moving averages (in the
            collection UPDATE_OPS); if False, with the moving averages.
        width: multiplier of the depth of every layer; alpha in section 4 of the paper.
        total_class: number of logits; None: that of src/config.py.
        momentum: of the moving averages.
        strides: a key of STRIDES; "small" suits images of about 32 pixels.
        image: an existing input; None: a placeholder.
    """

    def __init__(self, shape, is4Train, width=1.0, total_class=None, momentum=0.9, strides="paper", image=None):
        self.is4Train = is4Train
        self.momentum = momentum
        self.inputImage = tf.placeholder(tf.float32, shape, name="Image") if image is None else image

        first, others = STRIDES[strides]
        x = tf.nn.relu6(self._convolution("first", self.inputImage, rounded(FIRST_DEPTH * width), size=3, stride=first))
        block = 0
        for (t, c, n), s in zip(BOTTLENECKS, others):
            for i in range(n):
                block += 1
                with tf.variable_scope(f"block{block}"):
                    x = self._bottleneck(x, t, rounded(c * width), s if i == 0 else 1)
        x = tf.nn.relu6(self._convolution("last", x, rounded(LAST_DEPTH * max(1.0, width)), size=1))
        x = tf.reduce_mean(x, [1, 2])  # -> 1280
        with tf.variable_scope(HEAD, reuse=tf.AUTO_REUSE):
            x = fully_connected(x, total_class or config.total_class, SIGMA)
        self.output = tf.identity(x, name="output")

    def _bottleneck(self, x, expansion, depth, stride):
        """Inverted residual with a linear bottleneck: expand, filter each channel, project; paper, section 3."""
        shortcut, n = x, x.shape.as_list()[-1]
        if expansion > 1:
            x = tf.nn.relu6(self._convolution("expand", x, expansion * n, size=1))
        x = tf.nn.relu6(self._convolution("depthwise", x, None, size=3, stride=stride, depthwise=True))
        x = self._convolution("project", x, depth, size=1)
        return tf.add_n([shortcut, x]) if stride == 1 and depth == n else x

    def _convolution(self, name, x, depth, size, stride=1, depthwise=False):
        with tf.variable_scope(name, reuse=tf.AUTO_REUSE):
            return normalized_convolution(x, depth, size, stride, self.is4Train, self.momentum, SIGMA, depthwise)

    def getInput(self):
        """The images: float32, of the given shape."""
        return self.inputImage

    def getOutput(self):
        """The logits: float32 [batch, total_class]."""
        return self.output


def build(config, shape, is4Train, image):
    """The network of these settings."""
    return MobileNetv2(
        shape, is4Train, config.width, config.total_class, config.batch_norm_momentum, config.strides, image
    )
