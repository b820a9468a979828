"""Why a network answers what it answers: Grad-CAM (Selvaraju et al. 2017, section 3), from a frozen graph alone."""

import os

import cv2
import numpy as np

from src.console import suppress_stderr
from src.errors import InputError
from src.tf1 import tf
from utils.images.plots import check_output, draw_grid, escape_label

CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
MOST_EXPLAINED = 100  # images in a picture
OPACITY = 0.5  # of a heat map over its image
KEY = "red most, blue nothing"


class Explainer:
    """Heat maps of what in an image speaks for a class.

    Args:
        predictor: a Predictor, whose graph gets the operations for the gradients.

    Raises:
        InputError: its graph has no convolution.
    """

    def __init__(self, predictor):
        self.predictor = predictor
        with predictor.graph.as_default():
            self._features = last_features(predictor)
            self._class = tf.placeholder(tf.int32, [], name="explained_class")
            score = tf.reduce_sum(predictor.output[:, self._class])
            (self._gradients,) = tf.gradients(score, self._features)
            if self._gradients is None:
                found = "found that its answer has no gradient with respect to its last convolution"
                raise InputError(f"graph {predictor.source}: {found}, expected one to explain")

    def heat_map(self, image, label):
        """Where in a normalized image, float32 [img_size, img_size, 3], there is what speaks for a class.

        Returns:
            float32 [img_size, img_size], from 0 to 1; the channels of the last convolution, each weighted with the mean
            of its gradients; what speaks against the class counts as 0.
        """
        features, gradients = self.predictor.session.run(
            [self._features, self._gradients], {self.predictor.input: image[np.newaxis], self._class: label}
        )
        return heat(features[0], gradients[0], self.predictor.img_size)

    def explain(self, path, count=3):
        """(the image as the network sees it, uint8 blue, green, red; [(class, probability, heat map)] of the best)."""
        with suppress_stderr:
            pixels = self.predictor.preprocess.load(path)
        image = self.normalized(pixels)
        probabilities = self.predictor.probabilities(image[np.newaxis])[0]
        best = probabilities.argsort()[::-1][:count]
        names = self.predictor.classes
        return pixels, [(names[label], probabilities[label], self.heat_map(image, label)) for label in best]

    def normalized(self, pixels):
        """One image, as Preprocess.normalize makes it of many."""
        return self.predictor.preprocess.normalize(pixels[np.newaxis])[0]


def last_features(predictor):
    """What the last convolution gives, after the activation that follows it: [1, h, w, n].

    Where the map is of a single pixel, which shows nothing, that of the last convolution with a larger one.
    """
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
        raise InputError(f"graph {predictor.source}: found no convolution in it, expected one to explain")
    return wide[-1]


def heat(features, gradients, size):
    """Grad-CAM's map of one image, of features and gradients [h, w, n]: [size, size], from 0 to 1."""
    weights = gradients.mean(axis=(0, 1))
    result = np.maximum(features @ weights, 0)
    if result.max() > 0:
        result = result / result.max()
    return np.clip(cv2.resize(result.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR), 0, 1)


def overlaid(pixels, heat_map):
    """The heat map in colours over an image: uint8 [size, size, 3], red, green, blue."""
    colours = cv2.applyColorMap(np.round(255 * heat_map).astype(np.uint8), cv2.COLORMAP_JET)
    return cv2.cvtColor(cv2.addWeighted(pixels, 1 - OPACITY, colours, OPACITY, 0), cv2.COLOR_BGR2RGB)


def draw_explanations(path, explainer, image_paths):
    """A picture with a row for each image: the image, and its best classes with what speaks for each of them."""
    check_output(path, image_paths)
    images, titles = [], []
    for image_path in image_paths:
        pixels, best = explainer.explain(image_path)
        images += [cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)] + [overlaid(pixels, heat_map) for _, _, heat_map in best]
        titles.append(escape_label(image_path, 16))
        titles += [f"{escape_label(name, 12)} {100 * probability:.1f} %" for name, probability, _ in best]
    columns = 1 + len(best)
    draw_grid(path, images, titles, f"what speaks for the best classes: {KEY}", columns)


def draw_explained_mistakes(path, explainer, image_paths, labels):
    """A picture with a row for each image: the image, what spoke for its wrong class, and what for its right one."""
    images, titles = [], []
    for image_path, label in zip(image_paths, labels):
        pixels, best = explainer.explain(image_path, count=1)
        image = explainer.normalized(pixels)
        true, (predicted, probability, heat_map) = explainer.predictor.classes[label], best[0]
        images += [cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), overlaid(pixels, heat_map)]
        images.append(overlaid(pixels, explainer.heat_map(image, label)))
        titles += [escape_label(os.path.join(*image_path.split(os.sep)[-2:]), 16)]
        titles += [f"{escape_label(predicted, 12)}? {100 * probability:.0f} %", f"is {escape_label(true, 16)}"]
    draw_grid(path, images, titles, f"what spoke for which class: {KEY}", columns=3)
