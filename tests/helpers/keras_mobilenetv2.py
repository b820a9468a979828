"""The independent implementation: MobileNetV2 of the Keras that comes with the installed TensorFlow.

    python keras_mobilenetv2.py IN.npz OUT.npz SIZE WIDTH STRIDES [IN.npz ...]

IN holds `images` [n, SIZE, SIZE, 3] and `labels`, one-hot [n, 10]. OUT receives the weights, in the order in which the
layers were made, with moving statistics that are not at their first values (w000, w001, ...); `probabilities` of the
images; and, of one training step from these weights: `cost`, the gradients of the first and the last kernel
(`first_gradient`, `last_gradient`) and all weights after the moving statistics were updated (after000, ...).

It runs in a process of its own, because Keras 3 cannot predict where TensorFlow 2 behaviour is switched off.
"""

import sys

import numpy as np
import tensorflow as tf

LEGACY = tf.__version__.startswith("1.")


def variables_in_order(model):
    return [variable for layer in model.layers for variable in layer.weights]


def get_weights(model):
    variables = variables_in_order(model)
    return tf.keras.backend.batch_get_value(variables) if LEGACY else [v.numpy() for v in variables]


def set_weights(model, values):
    pairs = zip(variables_in_order(model), values)
    if LEGACY:
        tf.keras.backend.batch_set_value(list(pairs))
    else:
        for variable, value in pairs:
            variable.assign(value)


def random_weights(model, images):
    """Seeded weights, and statistics other than the first. The offsets keep most of what ReLU6 sees away from its two
    corners: gradients through 52 layers would otherwise magnify the last bits of float32 ten thousandfold.

    The moving statistics are mostly those of the images: with others, every image gets the same answer."""
    values = seeded_weights(model)
    set_weights(model, values)
    update_statistics(model, images)
    return [value + 900 * (after - value) for value, after in zip(values, get_weights(model))]  # momentum is 0.999


def update_statistics(model, images):
    """Let the moving statistics follow those of the images for one step, and nothing else learn."""
    if LEGACY:
        backend = tf.keras.backend
        inputs = [model.input, backend.learning_phase()]
        backend.function(inputs, [model.output], updates=model.updates)([images, True])
    else:
        model(images, training=True)


def seeded_weights(model):
    random = np.random.RandomState(0)
    values = []
    for layer in model.layers:
        shapes = [tuple(variable.shape) for variable in layer.weights]
        if len(shapes) == 4:  # batch norm: gamma, beta, moving mean, moving variance
            depth = int(shapes[0][0])
            values += [
                random.uniform(0.5, 1.0, depth),
                random.normal(3, 0.1, depth),
                random.normal(0, 0.1, depth),
                random.uniform(0.5, 1.5, depth),
            ]
        else:  # a kernel and perhaps a bias, or nothing
            shapes = [tuple(int(size) for size in shape) for shape in shapes]
            inputs = 2 if isinstance(layer, tf.keras.layers.DepthwiseConv2D) else -1  # axes that an output is a sum of
            values += [random.randn(*shape) / np.sqrt(np.prod(shape[:inputs])) for shape in shapes]
    return [value.astype(np.float32) for value in values]


def step_keras_3(model, images, labels):
    with tf.GradientTape() as tape:
        probabilities = model(images, training=True)
        cost = tf.reduce_mean(tf.keras.losses.categorical_crossentropy(labels, probabilities))
    kernels = [model.get_layer("Conv1").kernel.value, model.layers[-1].kernel.value]
    return [cost.numpy()] + [gradient.numpy() for gradient in tape.gradient(cost, kernels)]


def step_keras_2(model, images, labels):
    backend = tf.keras.backend
    target = backend.placeholder([None, 10])
    cost = backend.mean(tf.keras.losses.categorical_crossentropy(target, model.output))
    gradients = backend.gradients(cost, [model.get_layer("Conv1").kernel, model.layers[-1].kernel])
    inputs = [model.input, target, backend.learning_phase()]
    return backend.function(inputs, [cost] + gradients, updates=model.updates)([images, labels, True])


def without_strides(model):
    """The same network with stride 1 in the first convolution and at the beginning of the stage of 24 channels."""
    network = model.get_config()
    for layer in network["layers"]:
        if layer["config"]["name"] in ("Conv1", "block_1_depthwise"):
            layer["config"].update(strides=(1, 1), padding="same")
        if layer["config"]["name"] in ("Conv1_pad", "block_1_pad"):  # they made up for the strides
            layer["config"].update(padding=((0, 0), (0, 0)))
    return type(model).from_config(network)


def write(source, destination, size, width, strides):
    tf.keras.backend.clear_session()  # or the network of the one before would be in the same graph
    shape = (int(size), int(size), 3)
    model = tf.keras.applications.MobileNetV2(input_shape=shape, alpha=float(width), weights=None, classes=10)
    if strides == "small":
        model = without_strides(model)

    given, result = np.load(source), {}
    values = random_weights(model, given["images"])
    set_weights(model, values)
    result.update((f"w{i:03d}", value) for i, value in enumerate(values))
    result["probabilities"] = model.predict(given["images"])
    step = step_keras_2 if LEGACY else step_keras_3
    result["cost"], result["first_gradient"], result["last_gradient"] = step(model, given["images"], given["labels"])
    result.update((f"after{i:03d}", value) for i, value in enumerate(get_weights(model)))
    np.savez(destination, **result)


if __name__ == "__main__":
    for first in range(1, len(sys.argv), 5):
        write(*sys.argv[first : first + 5])
