"""Networks with a MobileNetV2 as people have them, in files of each layout that this Keras writes or has written.

    python keras_models.py IMAGES.npz FOLDER

IMAGES holds `images`, uint8 [n, 32, 32, 3], red, green, blue. FOLDER receives, all with the same MobileNetV2 of width
0.35, whose moving statistics followed a batch, and which with Keras 3 was trained for a step:

    flat: MobileNetV2, pooling and a dense layer in one network;
    nested: MobileNetV2 as a layer of a functional network that prepares images as preprocess_input does;
    sequential: MobileNetV2 as a layer of a Sequential that divides levels by 255 (with TensorFlow 1.14, as nested);
    other.h5: a MobileNet of 2017, which is no MobileNetV2;

and NAME.npz with `logits` of the first three. Endings: .h5, `model.save`; .keras and .weights.h5, from Keras 3.
By hand: -keras2.h5, the names that Keras 2 gives weights; -3.0.keras and -3.0.weights.h5, the layout without the names
of layers, which Keras 3 had until 3.6.
"""

import os
import re
import sys
import zipfile

import h5py
import numpy as np
import tensorflow as tf

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from keras_mobilenetv2 import LEGACY, random_weights, set_weights  # noqa: E402

layers = tf.keras.layers
SHAPE = (32, 32, 3)


def networks(images):
    """{name: network}."""
    base = tf.keras.applications.MobileNetV2(input_shape=SHAPE, alpha=0.35, include_top=False, weights=None)
    set_weights(base, random_weights(base, images / np.float32(127.5) - 1))
    found = {"flat": tf.keras.Model(base.input, head(base.output))}
    image = tf.keras.Input(SHAPE)
    prepared = image if LEGACY else tf.keras.applications.mobilenet_v2.preprocess_input(image)
    found["nested"] = tf.keras.Model(image, head(base(prepared)))
    scaling = [] if LEGACY else [layers.Rescaling(1 / 255.0)]
    parts = [*scaling, base, layers.GlobalAveragePooling2D(), layers.Dense(5)]
    found["sequential"] = tf.keras.Sequential(parts)
    found["sequential"].build((None, *SHAPE))
    return found


def head(x):
    return layers.Dense(5)(layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x)))


def train(network, images):
    network.compile(tf.keras.optimizers.SGD(1e-5), "mse", run_eagerly=True)
    network.train_on_batch(images, np.ones((len(images), 5), np.float32))


def values_of(network):
    """{id of a weight: array}, in one go: with TensorFlow 1.14, each layer alone takes its time."""
    weights = network.weights
    values = tf.keras.backend.batch_get_value(weights) if LEGACY else [weight.numpy() for weight in weights]
    return {id(weight): value for weight, value in zip(weights, values)}


def write_keras_2(network, values, path):
    """The layout of `save_weights` of Keras 2, which lists the weights of a nested network with names of its own."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in network.layers]
        for layer in network.layers:
            group, names = file.create_group(layer.name), []
            for inner in getattr(layer, "layers", [layer]):
                kind = "depthwise_" * isinstance(inner, layers.DepthwiseConv2D)
                for weight in inner.weights:
                    name = weight.name.split(":")[0].split("/")[-1].replace("depthwise_", "")
                    names.append(f"{inner.name}/{kind}{name}:0")
                    group.create_dataset(names[-1], data=values[id(weight)])
            group.attrs["weight_names"] = [name.encode() for name in names]


def write_keras_3(network, values, group):
    """The layout of Keras 3.0: `layers`, numbered by class in the order of the network."""
    group, counts = group.create_group("layers"), {}
    for layer in network.layers:
        kind = re.sub("(?<=[a-z])(?=[A-Z])", "_", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)).lower()
        count = counts[kind] = counts.get(kind, -1) + 1
        inner = group.create_group(f"{kind}_{count}" if count else kind)
        if hasattr(layer, "layers"):
            write_keras_3(layer, values, inner)
        else:
            variables = inner.create_group("vars")
            for number, weight in enumerate(layer.weights):
                variables.create_dataset(str(number), data=values[id(weight)])


def write(name, network, images):
    network.save(f"{name}.h5")
    if not LEGACY:
        network.save(f"{name}.keras")
        network.save_weights(f"{name}.weights.h5")
    values = values_of(network)
    write_keras_2(network, values, f"{name}-keras2.h5")
    with h5py.File(f"{name}-3.0.weights.h5", "w") as file:
        write_keras_3(network, values, file)
    with zipfile.ZipFile(f"{name}-3.0.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", network.to_json())
        archive.write(f"{name}-3.0.weights.h5", "model.weights.h5")
    logits = network.predict(images) if LEGACY else network(images, training=False).numpy()
    np.savez(f"{name}.npz", logits=logits)


def main(source, folder):
    images = np.load(source)["images"].astype(np.float32)
    prepared = images / 127.5 - 1
    os.chdir(folder)
    found = networks(images)
    if not LEGACY:  # there it takes a minute; the moving statistics have followed one batch already
        train(found["nested"], images)
    for name, network in found.items():
        write(name, network, prepared if LEGACY or name == "flat" else images)
    tf.keras.applications.MobileNet(input_shape=SHAPE, alpha=0.25, weights=None, classes=5).save("other.h5")


if __name__ == "__main__":
    main(*sys.argv[1:])
