"""Running a frozen graph: its .pb and the JSON beside it are all that is needed."""

from typing import Iterator, List, Tuple

import numpy as np

from src.console import suppress_stderr
from src.errors import InputError, OutOfMemoryError, first_line, naming_memory
from src.tf1 import open_session, tf
from utils.images.loader import image_bytes, inference_batch, read_ahead
from utils.inference.exported import preprocess_of, read_exported
from utils.inference.graph_def import check_names, check_resources, check_tensor


class Predictor:
    """Classifies images with a frozen graph. Owns its graph and its session.

    Args:
        graph_def: the frozen graph.
        metadata: its JSON, as a dict.
        source: its name in errors.
        device: as the setting of that name.
        trusted: run it whatever it takes of the machine.

    Attributes:
        classes, img_size, graph, session, input, output: what is in its metadata, and its tensors.
        batch: images that it is run on at once.

    Raises:
        InputError: not a graph, or not the one that the metadata describes, or one that is too large.
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
            except Exception as error:  # TensorFlow raises all kinds of errors on a damaged graph
                raise InputError(f"graph {source}: cannot be built ({first_line(error)})") from error
            self.input, self.output = (check_tensor(*pair, source) for pair in zip(tensors, described))
            self.session = open_session(device)
        self.check_output(1)

    def check_output(self, count):
        """Raise InputError unless so many images give as many rows of logits: a graph from elsewhere may not."""
        logits = self.logits(np.zeros([count, self.img_size, self.img_size, 3], np.float32))
        if logits.shape != (count, len(self.classes)):
            raise InputError(
                f"graph {self.source}: found an output of shape {list(logits.shape)} for images [{count}, ...], "
                f"expected [{count}, {len(self.classes)}]"
            )

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """The softmax of the logits, float64 [n, classes]. Raises InputError unless they are finite numbers."""
        logits = self.logits(images)
        if not np.isfinite(logits).all():
            raise InputError(
                f"graph {self.source}: found logits that are no finite numbers, expected a graph that learned"
            )
        return softmax(logits)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Normalized images, float32 [n, img_size, img_size, 3] -> float32 [n, classes]. Raises InputError."""
        try:
            with naming_memory(f"graph {self.source} on {len(images)} images of {self.img_size} px"):
                return self.session.run(self.output, {self.input: images})
        except OutOfMemoryError:
            raise
        except Exception as error:  # TensorFlow raises all kinds of errors
            reason = f"cannot be run on {len(images)} float32 images ({first_line(error)})"
            raise InputError(f"graph {self.source}: {reason}") from error

    def classify(self, paths: List[str]) -> Iterator[Tuple[str, object]]:
        """For each image file, in order: (path, probabilities: float64 [classes]); an InputError for a broken one."""
        choices = (paths[start : start + self.batch] for start in range(0, len(paths), self.batch))
        for images, errors in read_ahead(self._read, choices, self.batch * image_bytes(self.img_size)):
            rows = iter(self.probabilities(images) if len(images) else [])
            for path, error in errors:
                yield path, error or next(rows)

    def _read(self, paths):
        """(the readable images, normalized; [(path, None or what is wrong with it)])."""
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
    """Probabilities, float64, of logits [n, classes]."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def load(path: str, trusted: bool = False, device: str = "gpu") -> Predictor:
    """The Predictor of a .pb file with its JSON beside it.

    Args:
        trusted: run it even if it has operations that could do more than calculate, and whatever it takes.
        device: as the setting of that name.

    Raises:
        InputError: one of them is missing, damaged, or does not fit the other.
    """
    graph_def, metadata = read_exported(path, trusted)
    predictor = Predictor(graph_def, metadata, path, device, trusted)
    if predictor.batch > 1:
        predictor.check_output(2)
    return predictor
