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
LEGEND = "One colour scale for each image: blue = no evidence,\nred = the strongest evidence in any map of its row"


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

    def heat_maps(self, image, labels):
        """The evidence for some classes in an image, on one scale: float32 [classes, img_size, img_size], from 0 to 1.

        The evidence, as grad_cam returns it, is divided by the largest value in any of the maps.

        Args:
            image: float32 [img_size, img_size, channels], normalized.
            labels: indices of the classes.
        """
        maps = np.stack([self._evidence(image, label) for label in labels])
        return maps / maps.max() if maps.max() > 0 else maps

    def _evidence(self, image, label):
        features, gradients = self.predictor.session.run(
            [self._features, self._gradients], {self.predictor.input: image[np.newaxis], self._class: label}
        )
        return grad_cam(features[0], gradients[0], self.predictor.img_size)

    def explain(self, path, count=3, label=None):
        """Classify an image file and compute the heat maps of its most probable classes, on one scale.

        Args:
            label: of one more class to compute the heat map of.

        Returns:
            (the image as resized for the network, uint8 [img_size, img_size, 3], blue, green, red;
            [(class name, probability, heat map)] of the `count` most probable classes, the best first, and of
            `label`).
        """
        preprocess = self.predictor.preprocess
        with suppress_stderr:
            image = preprocess.normalize(preprocess.load(path)[np.newaxis])[0]
        pixels = np.ascontiguousarray(preprocess.to_rgb(image[np.newaxis])[0, ..., ::-1])
        probabilities = self.predictor.run(image[np.newaxis])[0]
        labels = [*probabilities.argsort()[::-1][:count], *([] if label is None else [label])]
        names = self.predictor.classes
        maps = self.heat_maps(image, labels)
        return pixels, [(names[label], probabilities[label], heat_map) for label, heat_map in zip(labels, maps)]


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
    """The evidence for a class in each part of an image: float32 [size, size], at least 0, in units of the logit.

    The features, each weighted with the mean of its gradients, are summed; evidence against the class counts as 0.

    Args:
        features, gradients: float32 [h, w, n].
    """
    weights = gradients.mean(axis=(0, 1))
    result = np.maximum(features @ weights, 0).astype(np.float32)
    return cv2.resize(result, (size, size), interpolation=cv2.INTER_LINEAR)


def overlaid(pixels, heat_map):
    """A coloured heat map over its image: uint8 [size, size, 3], red, green, blue."""
    colours = cv2.applyColorMap(np.round(255 * np.clip(heat_map, 0, 1)).astype(np.uint8), cv2.COLORMAP_JET)
    return cv2.cvtColor(cv2.addWeighted(pixels, 1 - OPACITY, colours, OPACITY, 0), cv2.COLOR_BGR2RGB)


def draw_explanations(path, explainer, image_paths):
    """Draw a row for each image: the image, and the heat maps of its top classes."""
    check_output(path, image_paths)
    images, titles = [], []
    for image_path in image_paths:
        pixels, top = explainer.explain(image_path)
        images += [cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)] + [overlaid(pixels, heat_map) for _, _, heat_map in top]
        titles += [escape_label(os.path.basename(image_path), 18)]
        titles += [f"{escape_label(name, 18)}\n{100 * probability:.1f} %" for name, probability, _ in top]
    draw_grid(path, images, titles, f"Grad-CAM heat maps of the top classes\n{LEGEND}", columns=1 + len(top))


def draw_explained_mistakes(path, explainer, image_paths, labels):
    """Draw a row for each image: the image, and the heat maps of its predicted (wrong) and its true class."""
    images, titles = [], []
    for image_path, label in zip(image_paths, labels):
        pixels, maps = explainer.explain(image_path, count=1, label=label)
        images += [cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)] + [overlaid(pixels, heat_map) for _, _, heat_map in maps]
        titles += [escape_label(os.path.basename(image_path), 18)]
        for verb, (name, probability, _) in zip(("predicted", "true"), maps):
            titles.append(f"{verb}: {100 * probability:.1f} %\n{escape_label(name, 18)}")
    draw_grid(path, images, titles, f"Grad-CAM of the most confident mistakes\n{LEGEND}", columns=3)
