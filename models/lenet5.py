"""LeNet-5: LeCun et al., "Gradient-based learning applied to document recognition" (1998), section II, in its modern
form: ReLU as the activation, max pooling as the subsampling, linear logits."""

from models.layers import convolution, fully_connected
from src import config
from src.tf1 import tf

HEAD = "fc3"  # scope of the layer that computes the logits
SIGMA = 0.1  # standard deviation of the initial weights
CONVOLUTIONS = (  # name, depth: 5x5 convolution, ReLU, 2x2 max pooling
    ("conv1", 6),  # 32x32x3 -> 28x28x6 -> 14x14x6
    ("conv2", 16),  # 14x14x6 -> 10x10x16 -> 5x5x16
)
FULLY_CONNECTED = (  # name, units: matrix product, ReLU
    ("fc1", 120),  # 5x5x16 = 400 -> 120
    ("fc2", 84),  # 120 -> 84
)


class LeNet:
    """The network from the placeholder `Image` to the logits `output`, both at the root of the default graph.

    Args:
        shape: of a batch of images, [None, height, width, channels]; 16 pixels a side or more.
        total_class: number of logits; None: that of src/config.py.
        image: an existing input; None: a placeholder.
    """

    def __init__(self, shape, total_class=None, image=None):
        self.inputImage = tf.placeholder(tf.float32, shape, name="Image") if image is None else image
        x = self.inputImage
        for name, depth in CONVOLUTIONS:
            with tf.variable_scope(name, reuse=tf.AUTO_REUSE):
                x = tf.nn.relu(convolution(x, depth, 5, SIGMA))
                x = tf.nn.max_pool(x, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="VALID")

        _, height, width, depth = x.shape.as_list()
        x = tf.reshape(x, [-1, height * width * depth])
        for name, units in FULLY_CONNECTED:
            with tf.variable_scope(name, reuse=tf.AUTO_REUSE):
                x = tf.nn.relu(fully_connected(x, units, SIGMA))
        with tf.variable_scope(HEAD, reuse=tf.AUTO_REUSE):
            x = fully_connected(x, total_class or config.total_class, SIGMA)
        self.output = tf.identity(x, name="output")

    def getInput(self):
        """The images: float32, of the given shape."""
        return self.inputImage

    def getOutput(self):
        """The logits: float32 [batch, total_class]."""
        return self.output


def build(config, shape, is4Train, image):
    """The network of these settings, identical in training and inference."""
    return LeNet(shape, config.total_class, image)
