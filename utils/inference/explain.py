"""Grad-CAM heat maps (Selvaraju et al. 2017, section 3), computed from a frozen graph alone."""

import os

import cv2
import numpy as np

from src.console import suppress_stderr
from src.errors import InputError
from src.tf1 import tf
from utils.images.plots import check_output, draw_grid, escape_label

CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
OPACITY = 0.5  # of a heat map over its image
LEGEND = "red = strong evidence, blue = none"


class Explainer:
    """Computes Grad-CAM heat maps.

    Args:
        predictor: a Predictor; the ops for the gradients are added to its graph.

    Raises:
        InputError: its graph has no convolution, or no gradient.
    """

    def __init__(self, predictor):
        self.predictor = predictor
        with predictor.graph.as_default():
            self._features = last_features(predictor)
            self._class = tf.placeholder(tf.int32, [], name="explained_class")
            score = tf.reduce_sum(predictor.output[:, self._class])
            (self._gradients,) = tf.gradients(score, self._features)
            if self._gradients is None:
                found = "no gradient of the output with respect to the last convolution"
                raise InputError(f"graph {predictor.source}", found, "one for Grad-CAM")

    def heat_map(self, image, label):
        """The evidence for a class in an image, as grad_cam returns it.

        Args:
            image: float32 [img_size, img_size, 3], normalized.
            label: index of the class.
        """
        features, gradients = self.predictor.session.run(
            [self._features, self._gradients], {self.predictor.input: image[np.newaxis], self._class: label}
        )
        return grad_cam(features[0], gradients[0], self.predictor.img_size)

    def explain(self, path, count=3):
        """Classify an image file and compute the heat maps of its most probable classes.

        Returns:
            (the image as resized for the network, uint8 [img_size, img_size, 3], blue, green, red;
            [(class name, probability, heat map)] of the `count` most probable classes, the best first).
        """
        with suppress_stderr:
            pixels = self.predictor.preprocess.load(path)
        image = self.normalized(pixels)
        probabilities = self.predictor.run(image[np.newaxis])[0]
        top = probabilities.argsort()[::-1][:count]
        names = self.predictor.classes
        return pixels, [(names[label], probabilities[label], self.heat_map(image, label)) for label in top]

    def normalized(self, pixels):
        """Preprocess.normalize for a single image."""
        return self.predictor.preprocess.normalize(pixels[np.newaxis])[0]


def last_features(predictor):
    """The last convolution's output after its activation, [1, h, w, n]; of the last one larger than a single pixel."""
    size = predictor.img_size
    operations = predictor.graph.get_operations()
    maps = {}
    for operation in operations:
        if operation.type in CONVOLUTIONS:
            maps[operation] = operation.outputs[0]
        elif operation.type in ("BiasAdd", "Add", "AddV2", "Relu", "Relu6") and operation.inputs[0].op in maps:
            convolution = operation.inputs[0].op
            maps[operation] = operation.outputs[0]
            del maps[convolution]
    wide = [tensor for tensor in maps.values() if tensor.shape.ndims == 4 and (tensor.shape[1].value or size) > 1]
    if not wide:
        raise InputError(f"graph {predictor.source}", "no convolution", "one for Grad-CAM")
    return wide[-1]


def grad_cam(features, gradients, size):
    """The heat map of one image: float32 [size, size], from 0 to 1.

    The features, each weighted with the mean of its gradients, are summed; evidence against the class counts as 0.

    Args:
        features, gradients: float32 [h, w, n].
    """
    weights = gradients.mean(axis=(0, 1))
    result = np.maximum(features @ weights, 0)
    if result.max() > 0:
        result = result / result.max()
    return np.clip(cv2.resize(result.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR), 0, 1)


def overlaid(pixels, heat_map):
    """A coloured heat map over its image: uint8 [size, size, 3], red, green, blue."""
    colours = cv2.applyColorMap(np.round(255 * heat_map).astype(np.uint8), cv2.COLORMAP_JET)
    return cv2.cvtColor(cv2.addWeighted(pixels, 1 - OPACITY, colours, OPACITY, 0), cv2.COLOR_BGR2RGB)


def draw_explanations(path, explainer, image_paths):
    """Draw a row for each image: the image, and the heat maps of its top classes."""
    check_output(path, image_paths)
    images, titles = [], []
    for image_path in image_paths:
        pixels, top = explainer.explain(image_path)
        images += [cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)] + [overlaid(pixels, heat_map) for _, _, heat_map in top]
        titles += [escape_label(image_path, 16)]
        titles += [f"{escape_label(name, 12)} {100 * probability:.1f} %" for name, probability, _ in top]
    draw_grid(path, images, titles, f"Grad-CAM heat maps of the top classes: {LEGEND}", columns=1 + len(top))


def draw_explained_mistakes(path, explainer, image_paths, labels):
    """Draw a row for each image: the image, and the heat maps of its predicted (wrong) and its true class."""
    images, titles = [], []
    for image_path, label in zip(image_paths, labels):
        pixels, top = explainer.explain(image_path, count=1)
        image = explainer.normalized(pixels)
        true, (predicted, probability, heat_map) = explainer.predictor.classes[label], top[0]
        images += [cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), overlaid(pixels, heat_map)]
        images.append(overlaid(pixels, explainer.heat_map(image, label)))
        titles += [escape_label(os.path.join(*image_path.split(os.sep)[-2:]), 16)]
        titles += [f"{escape_label(predicted, 12)}? {100 * probability:.0f} %", f"is {escape_label(true, 16)}"]
    draw_grid(path, images, titles, f"Grad-CAM: predicted class, true class: {LEGEND}", columns=3)
