"""Predictor: classifying images with a frozen graph, which needs nothing but its .pb and the JSON beside it."""

import itertools
import os
from typing import Iterator, Tuple

import numpy as np

from src.console import suppress_stderr
from src.errors import InputError, OutOfMemoryError, first_line, naming_memory
from src.tf1 import open_session, tf
from utils.images.image_folders import images_at
from utils.images.loader import THREADS, image_bytes, inference_batch, prefetch
from utils.images.pixels import is_folder, is_single, pixels_of
from utils.inference.exported import graph_file, preprocess_of, read_exported
from utils.inference.graph_def import check_names, check_resources, check_tensor


class Predictor:
    """Classifies images with a frozen graph. Owns a tf.Graph and a session.

    predict = Predictor("weights/lenet5/lenet5.pb")
    predict("photo.jpg")                 # [("cat", 0.93), ("dog", 0.05), ...], the most probable class first
    predict(["photo.jpg", image])        # a list of such lists; `image` is an array or a Pillow image
    predict("photos")                    # a folder: {path: such a list}
    predict.probabilities("photo.jpg")   # [[0.05, ...]], in the order of predict.classes

    Args:
        graph: the path of a .pb file with its JSON beside it, or of a folder with one graph; or a GraphDef, with the
            next two arguments.
        metadata: the JSON, as a dict.
        source: the name of the graph in errors.
        device: the setting of that name.
        trusted: allow operations outside SAFE_OPS, and any use of memory.

    Attributes:
        classes, img_size: those of the metadata.
        graph, session.
        input, output: tensors.
        batch: batch size.

    Raises:
        InputError: the graph or its metadata is missing, invalid or too large, or they do not match.
    """

    def __init__(self, graph, metadata=None, source=None, device: str = "gpu", trusted: bool = False):
        if metadata is None:
            source = graph_file(os.fsdecode(graph))
            graph, metadata = read_exported(source, trusted)
        self.source = source
        self.metadata = metadata
        self.classes = metadata["classes"]
        self.preprocess = preprocess_of(metadata, f"metadata of {source}")
        self.img_size = self.preprocess.img_size
        self.batch = inference_batch(self.img_size)
        check_names(graph, metadata, source)
        if not trusted:
            check_resources(graph, metadata, source, self.batch)
        self._import(graph, device)
        for count in sorted({1, min(2, self.batch)}):
            self.check_output(count)

    def _import(self, graph_def, device):
        """Build the graph and open its session."""
        self.graph = graph = tf.Graph()
        with graph.as_default():
            described = [self.metadata[role] for role in ("input", "output")]
            try:
                tf.import_graph_def(graph_def, name="")
                tensors = [graph.get_tensor_by_name(f"{tensor['name']}:0") for tensor in described]
            except Exception as error:  # TensorFlow raises all kinds of errors on a corrupt graph
                raise InputError(f"graph {self.source}: cannot be built ({first_line(error)})") from error
            self.input, self.output = (check_tensor(*pair, self.source) for pair in zip(tensors, described))
            self.session = open_session(device)

    def __repr__(self):
        classes = ", ".join(self.classes[:5]) + ", ..." * (len(self.classes) > 5)
        return f"<Predictor of {self.source}: {len(self.classes)} classes ({classes}), images of {self.img_size} px>"

    def __call__(self, images, rgb: bool = False):
        """Classify images.

        Args:
            images: the path of a file or a folder; an array, uint8 [H, W, 3], or also [H, W] or [H, W, 4]; a Pillow
                image; a list of these other than folders; or an array of n images, uint8 [n, H, W, 3].
            rgb: whether the channels of arrays are red, green, blue; False: blue, green, red, as OpenCV reads images.

        Returns:
            [(class, probability)] of an image, the most probable class first; for a folder {path: such a list}, in the
            order of the paths; for a list or n images a list of such lists.

        Raises:
            InputError: an image that cannot be read, a folder without images.
        """
        if is_folder(images):
            paths = images_at([os.fsdecode(images)])
            return dict(zip(paths, self(paths)))
        ranked = [self.ranked(row) for row in self.probabilities(images, rgb)]
        return ranked[0] if is_single(images) else ranked

    def ranked(self, row):
        """[(class, probability)], the most probable class first, of the probabilities of an image."""
        return [(self.classes[index], float(row[index])) for index in row.argsort(kind="stable")[::-1]]

    def probabilities(self, images, rgb: bool = False) -> np.ndarray:
        """As a call, but probabilities in the order of `classes`: float64 [n, classes]; n is 1 for a single image."""
        if is_folder(images):
            images = images_at([os.fsdecode(images)])
        rows = []
        for _, found in self.classify([images] if is_single(images) else list(images), rgb):
            if isinstance(found, InputError):
                raise found
            rows.append(found)
        return np.array(rows, np.float64).reshape(len(rows), len(self.classes))

    def check_output(self, count):
        """Raise InputError if the output for `count` images has another shape: a graph from elsewhere may be wrong."""
        logits = self.logits(np.zeros([count, *self.metadata["input"]["shape"][1:]], np.float32))
        if logits.shape != (count, len(self.classes)):
            found = f"an output of shape {list(logits.shape)} for images [{count}, ...]"
            raise InputError(f"graph {self.source}", found, f"[{count}, {len(self.classes)}]")

    def run(self, images: np.ndarray) -> np.ndarray:
        """As logits, but the softmax, float64 [n, classes]. Raises InputError if there is a NaN or Inf."""
        logits = self.logits(images)
        if not np.isfinite(logits).all():
            raise InputError(f"graph {self.source}", "logits that are NaN or Inf", "finite numbers")
        return softmax(logits)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Normalized images, float32 [n, img_size, img_size, channels] -> float32 [n, classes]. Raises InputError."""
        try:
            with naming_memory(f"graph {self.source} on {len(images)} images of {self.img_size} px"):
                return self.session.run(self.output, {self.input: images})
        except OutOfMemoryError:
            raise
        except Exception as error:  # TensorFlow raises all kinds of errors
            message = f"cannot be run on {len(images)} float32 images ({first_line(error)})"
            raise InputError(f"graph {self.source}: {message}") from error

    def classify(self, images: list, rgb: bool = False) -> Iterator[Tuple[object, object]]:
        """Yield (image, its probabilities: float64 [classes], or InputError if it is invalid) for each image."""
        named = [(image, f"image {number}") for number, image in enumerate(images)]
        part = max(1, min(self.batch, len(named)) // THREADS)  # of a batch: all threads read even a few images
        choices = (named[start : start + part] for start in range(0, len(named), part))
        parts = prefetch(lambda chosen: self._read(chosen, rgb), choices, part * image_bytes(self.img_size))
        for batch in iter(lambda: list(itertools.islice(parts, self.batch // part)), []):
            inputs = [inputs for inputs, _ in batch if len(inputs)]
            rows = iter(self.run(np.concatenate(inputs)) if inputs else [])
            for image, error in itertools.chain(*(errors for _, errors in batch)):
                yield image, error or next(rows)

    def _read(self, named, rgb):
        """(the valid images, normalized; [(image, its InputError or None)])."""
        inputs, errors = [], []
        with suppress_stderr:
            for image, name in named:
                try:
                    inputs.append(self.preprocess.fit(pixels_of(image, rgb, name, self.preprocess)))
                    errors.append((image, None))
                except InputError as error:
                    errors.append((image, error))
        if inputs:
            inputs = self.preprocess.normalize(np.stack(inputs))
        return inputs, errors


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float64 [n, classes], of logits [n, classes]."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
