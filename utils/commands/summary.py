"""The command summary: list the layers of a network, with output shapes, parameters and multiply-adds."""

import numpy as np

from models import build
from src.system import end_on_broken_pipe
from src.tf1 import tf

SUMMED_AXES = {"Conv2D": 3, "DepthwiseConv2dNative": 2, "MatMul": 1}  # leading axes of the kernel, for each output


def run(config, overrides):
    """Print the table of layers."""
    end_on_broken_pipe()
    print(table(config))


def layers(config):
    """[(name, output shape, parameters, multiply-adds for one image)] of config.model_arch, in order.

    Parameters are the trainable ones: kernels, biases, and beta and gamma of batch norm. Multiply-adds are those of
    convolutions and matrix products.
    """
    with tf.Graph().as_default() as graph:
        build(config, is4Train=True)
        found = []
        for operation in graph.get_operations():
            if operation.type in SUMMED_AXES:
                name = operation.name.rsplit("/", 1)[0]
                shape = operation.outputs[0].shape.as_list()[1:]
                kernel = operation.inputs[1].shape.as_list()
                variables = tf.trainable_variables(f"{name}/")
                parameters = sum(int(np.prod(variable.shape.as_list())) for variable in variables)
                products = int(np.prod(shape) * np.prod(kernel[: SUMMED_AXES[operation.type]]))
                found.append((name, shape, parameters, products))
    return found


def table(config):
    """The layers as text."""
    rows = layers(config)
    size = f"{config.img_size}x{config.img_size}x{config.numchannels}"
    lines = [f"{config.model_arch}, {size}, {config.total_class} classes", ""]
    lines.append(line("layer", "output", "parameters", "multiply-adds"))
    for name, shape, parameters, products in rows:
        lines.append(line(name, "x".join(map(str, shape)), f"{parameters:,}", f"{products:,}"))
    lines.append(line("total", "", f"{sum(row[2] for row in rows):,}", f"{sum(row[3] for row in rows):,}"))
    return "\n".join(lines)


def line(name, shape, parameters, products):
    return f"{name:20} {shape:>14} {parameters:>12} {products:>14}"
