"""Running a frozen graph, which needs nothing but its .pb and the JSON beside it."""

from typing import Iterator, List, Tuple

import numpy as np

from src.console import suppress_stderr
from src.errors import InputError, OutOfMemoryError, first_line, naming_memory
from src.tf1 import open_session, tf
from utils.images.loader import image_bytes, inference_batch, prefetch
from utils.inference.exported import preprocess_of, read_exported
from utils.inference.graph_def import check_names, check_resources, check_tensor


class Predictor:
    """Classifies images with a frozen graph. Owns a tf.Graph and a session.

    Args:
        graph_def: the frozen graph.
        metadata: its JSON, as a dict.
        source: its name in errors.
        device: the setting of that name.
        trusted: do not limit its use of memory.

    Attributes:
        classes, img_size: those of the metadata.
        graph, session.
        input, output: tensors.
        batch: batch size.

    Raises:
        InputError: the graph is invalid or too large, or does not match the metadata.
    """

    def __init__(self, graph_def, metadata: dict, source: str, device: str = "gpu", trusted: bool = False):
        self.source = source
        self.metadata = metadata
        self.classes = metadata["classes"]
        self.preprocess = preprocess_of(metadata, f"metadata of {source}")
        self.img_size = self.preprocess.img_size
        self.batch = inference_batch(self.img_size)
        check_names(graph_def, metadata, source)
        if not trusted:
            check_resources(graph_def, metadata, source, self.batch)
        self.graph = graph = tf.Graph()
        with graph.as_default():
            described = [metadata[role] for role in ("input", "output")]
            try:
                tf.import_graph_def(graph_def, name="")
                tensors = [graph.get_tensor_by_name(f"{tensor['name']}:0") for tensor in described]
            except Exception as error:  # TensorFlow raises all kinds of errors on a corrupt graph
                raise InputError(f"graph {source}: cannot be built ({first_line(error)})") from error
            self.input, self.output = (check_tensor(*pair, source) for pair in zip(tensors, described))
            self.session = open_session(device)
        self.check_output(1)

    def check_output(self, count):
        """Raise InputError if the output for `count` images has another shape: a graph from elsewhere may be wrong."""
        logits = self.logits(np.zeros([count, self.img_size, self.img_size, 3], np.float32))
        if logits.shape != (count, len(self.classes)):
            found = f"an output of shape {list(logits.shape)} for images [{count}, ...]"
            raise InputError(f"graph {self.source}", found, f"[{count}, {len(self.classes)}]")

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """As logits, but the softmax, float64 [n, classes]. Raises InputError if there is a NaN or Inf."""
        logits = self.logits(images)
        if not np.isfinite(logits).all():
            raise InputError(f"graph {self.source}", "logits that are NaN or Inf", "finite numbers")
        return softmax(logits)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Normalized images, float32 [n, img_size, img_size, 3] -> float32 [n, classes]. Raises InputError."""
        try:
            with naming_memory(f"graph {self.source} on {len(images)} images of {self.img_size} px"):
                return self.session.run(self.output, {self.input: images})
        except OutOfMemoryError:
            raise
        except Exception as error:  # TensorFlow raises all kinds of errors
            message = f"cannot be run on {len(images)} float32 images ({first_line(error)})"
            raise InputError(f"graph {self.source}: {message}") from error

    def classify(self, paths: List[str]) -> Iterator[Tuple[str, object]]:
        """Yield (path, probabilities: float64 [classes], or InputError if it is corrupt) for each image file."""
        choices = (paths[start : start + self.batch] for start in range(0, len(paths), self.batch))
        for images, errors in prefetch(self._read, choices, self.batch * image_bytes(self.img_size)):
            rows = iter(self.probabilities(images) if len(images) else [])
            for path, error in errors:
                yield path, error or next(rows)

    def _read(self, paths):
        """(the readable images, normalized; [(path, its InputError or None)])."""
        images, errors = [], []
        with suppress_stderr:
            for path in paths:
                try:
                    images.append(self.preprocess.load(path))
                    errors.append((path, None))
                except InputError as error:
                    errors.append((path, error))
        if images:
            images = self.preprocess.normalize(np.stack(images))
        return images, errors


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float64 [n, classes], of logits [n, classes]."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def load(path: str, trusted: bool = False, device: str = "gpu") -> Predictor:
    """The Predictor of a .pb file with its JSON beside it.

    Args:
        trusted: allow operations outside SAFE_OPS, and any use of memory.
        device: the setting of that name.

    Raises:
        InputError: one of them is missing, corrupt, or does not match the other.
    """
    graph_def, metadata = read_exported(path, trusted)
    predictor = Predictor(graph_def, metadata, path, device, trusted)
    if predictor.batch > 1:
        predictor.check_output(2)
    return predictor
