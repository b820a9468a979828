"""The layers of a network, with their shapes, parameters and multiply-adds."""

import numpy as np

from models import build
from src.console import exit_quietly_on_sigpipe
from src.tf1 import tf

PRODUCTS = {"Conv2D": 3, "DepthwiseConv2dNative": 2, "MatMul": 1}  # axes of the kernel that one output is a sum over


def run(config, given):
    """Print the table."""
    exit_quietly_on_sigpipe()
    print(table(config))


def layers(config):
    """[(name, output shape, parameters, multiply-adds for one image)] of config.model_arch, in order.

    Parameters are what is learned: kernels, biases, and beta and gamma of batch norms. Multiply-adds are those of
    convolutions and matrix products.
    """
    with tf.Graph().as_default() as graph:
        build(config, is4Train=True)
        found = []
        for operation in graph.get_operations():
            if operation.type in PRODUCTS:
                name = operation.name.rsplit("/", 1)[0]
                shape = operation.outputs[0].shape.as_list()[1:]
                kernel = operation.inputs[1].shape.as_list()
                variables = tf.trainable_variables(f"{name}/")
                parameters = sum(int(np.prod(variable.shape.as_list())) for variable in variables)
                products = int(np.prod(shape) * np.prod(kernel[: PRODUCTS[operation.type]]))
                found.append((name, shape, parameters, products))
    return found


def table(config):
    """The same as text."""
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
