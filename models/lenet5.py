"""LeNet-5, as LeCun et al. drew it in "Gradient-based learning applied to document recognition" (1998), section II,
in today's form: ReLU for the squashing function, max pooling for subsampling, linear logits."""
from src import config
from src.tf1 import tf

# name, depth: 5x5 convolution, bias, ReLU, 2x2 max pooling
CONVOLUTIONS = (("conv1", 6),    # 32x32x3 -> 28x28x6 -> 14x14x6
                ("conv2", 16))   # 14x14x6 -> 10x10x16 -> 5x5x16
# name, units: matrix product, bias, ReLU
FULLY_CONNECTED = (("fc1", 120),  # 400 -> 120
                   ("fc2", 84))   # 120 -> 84


def weights(name, shape):
    """Kernel and bias of one layer: truncated normal with mean 0 and sigma 0.1, and zeros."""
    kernel = tf.get_variable(name + "_w", shape, initializer=tf.truncated_normal_initializer(mean=0.0, stddev=0.1))
    bias = tf.get_variable(name + "_b", shape[-1:], initializer=tf.zeros_initializer())
    return kernel, bias


class LeNet(object):
    """The network from the placeholder `Image` to the logits `output`, both at the root of the default graph.

    Args:
        shape: of a batch of images, [None, height, width, channels]; 16 pixels a side or more.
        total_class: number of logits; that of src/config.py if not given.
    """

    def __init__(self, shape, total_class=None):
        self.inputImage = tf.placeholder(tf.float32, shape, name="Image")
        x = self.inputImage
        for name, depth in CONVOLUTIONS:
            kernel, bias = weights(name, [5, 5, x.shape.as_list()[-1], depth])
            x = tf.nn.conv2d(x, kernel, strides=[1, 1, 1, 1], padding="VALID")
            x = tf.nn.relu(tf.nn.bias_add(x, bias))
            x = tf.nn.max_pool(x, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="VALID")

        _, height, width, depth = x.shape.as_list()
        x = tf.reshape(x, [-1, height * width * depth])  # 5x5x16 -> 400
        for name, units in FULLY_CONNECTED:
            kernel, bias = weights(name, [x.shape.as_list()[-1], units])
            x = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, kernel), bias))

        kernel, bias = weights("fc3", [x.shape.as_list()[-1], total_class or config.total_class])  # 84 -> 10
        self.output = tf.nn.bias_add(tf.matmul(x, kernel), bias, name="output")

    def getInput(self):
        """The images: float32, of the shape given."""
        return self.inputImage

    def getOutput(self):
        """The logits: float32 [batch, total_class]."""
        return self.output
