"""The TensorBoard log of a run."""

import json
import os
import re
import socket
import time

import cv2

from src.console import suppress_stderr
from src.errors import InputError, reason
from src.settings import with_role
from src.tf1 import tf
from utils.images.decode import read_image

EVENT_FILE = re.compile(r"events\.out\.tfevents\.(\d+)\.")
# TensorBoard sorts curves by tag, capitals first, and opens the first two groups (1.14: three). So these curves have a
# second tag, and the first one, from earlier versions, for comparing with their runs.
FIRST_CURVES = {
    "train_acc": "Accuracy/training",
    "val_acc": "Accuracy/validation",
    "train_loss": "Loss/training",
    "val_loss": "Loss/validation",
}
METRICS = ("val_acc", "val_loss", "best_val_acc")  # columns of the HParams page
FIRST_HPARAMS = ("lr", "batch_size", "augment", "weight_decay", "img_size")  # it shows five until more are ticked
MISTAKES = 10  # images that evaluate logs
MISTAKES_SUFFIX = "mistakes"  # of the name of their event file
MAX_SIDE = 512  # pixels; larger ones are downscaled


class TensorBoardLogger:
    """Writes events to a file in a run's folder.

    Args:
        folder: of the run.
        first_step: of which there are points to write. If it is not 1, the run is resumed, and TensorBoard discards the
            points from this step on, which the interrupted process may have written.
        suffix: of the name of the file; None: the step.

    Tags: train_loss, train_acc, learning_rate and, with weight decay, weight_loss (a point per 100 steps), val_loss,
    val_acc, best_val_acc, images_per_second and histograms of the weights (a point per epoch), and those in
    FIRST_CURVES. A point's x is the number of steps done.

    Raises:
        tf.errors.OpError: from any method, if the file cannot be written.
    """

    def __init__(self, folder, first_step=1, suffix=None):
        path = new_event_file(folder, suffix or f"step{first_step:09d}")
        # Not tf.summary.FileWriter: on a full disk its writer thread dies silently.
        self._writer = tf.io.TFRecordWriter(path)
        self._write(file_version="brain.Event:2")
        if first_step > 1:
            self._write(first_step, session_log=tf.SessionLog(status=tf.SessionLog.START))

    def graph(self, graph):
        """Log a tf.Graph."""
        self._write(graph_def=graph.as_graph_def(add_shapes=True).SerializeToString())

    def scalars(self, step, scalars):
        """Log a point of each curve: {tag: value}."""
        scalars = {**scalars, **{FIRST_CURVES[tag]: scalars[tag] for tag in FIRST_CURVES if tag in scalars}}
        values = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in sorted(scalars.items())]
        self._write(step, summary=tf.Summary(value=values))

    def histograms(self, step, summary):
        """Log a serialized summary of histograms."""
        self._write(step, summary=tf.Summary.FromString(summary))

    def settings(self, step, settings):
        """Log {name: value} of the run's settings, as a table."""
        rows = ["| setting | value |", "|---|---|"]
        rows += ["| {} | {} |".format(name, as_text(value).replace("|", "\\|")) for name, value in settings.items()]
        text = tf.make_tensor_proto("\n".join(rows), tf.string)
        kind = tf.SummaryMetadata(plugin_data=tf.SummaryMetadata.PluginData(plugin_name="text"))
        value = tf.Summary.Value(tag="settings", metadata=kind, tensor=text)
        self._write(step, summary=tf.Summary(value=[value]))

    def hparams(self, step, settings):
        """Log those of the run's settings that change what is learned, for the HParams page, which compares runs by
        METRICS."""
        from tensorboard.plugins.hparams import api_pb2
        from tensorboard.plugins.hparams.summary import experiment_pb, session_start_pb

        names = sorted(with_role("learning"), key=lambda name: name not in FIRST_HPARAMS)
        values = {name: settings[name] for name in names}
        values = {name: value if is_number(value) else as_text(value) for name, value in values.items()}
        columns = []
        for name, value in values.items():
            kind = api_pb2.DATA_TYPE_FLOAT64 if is_number(value) else api_pb2.DATA_TYPE_STRING
            columns.append(api_pb2.HParamInfo(name=name, type=kind))
            if hasattr(columns[-1], "differs"):  # by which TensorBoard 2 sorts
                columns[-1].differs = name in FIRST_HPARAMS
        metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in METRICS]
        # Declared, because TensorBoard's own list would have all curves as metrics, and classes with \u escapes.
        self._write_serialized(step, experiment_pb(columns, metrics))
        self._write_serialized(step, session_start_pb(values))

    def image(self, step, tag, image):
        """Log an image, uint8 [H, W, 3], channels blue, green, red."""
        height, width = image.shape[:2]
        png = cv2.imencode(".png", image)[1].tobytes()
        image = tf.Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self._write(step, summary=tf.Summary(value=[tf.Summary.Value(tag=tag, image=image)]))

    def layout(self, step):
        """Log charts of loss and of accuracy with training and validation in one."""
        from tensorboard.plugins.custom_scalar import layout_pb2
        from tensorboard.plugins.custom_scalar.summary import pb as layout_summary

        charts = []
        for title, name in (("loss", "loss"), ("accuracy", "acc")):
            curves = layout_pb2.MultilineChartContent(tag=[f"train_{name}", f"val_{name}"])
            charts.append(layout_pb2.Chart(title=title, multiline=curves))
        layout = layout_pb2.Layout(category=[layout_pb2.Category(title="training and validation", chart=charts)])
        self._write_serialized(step, layout_summary(layout))

    def flush(self):
        self._writer.flush()

    def close(self):
        self._writer.close()

    def _write_serialized(self, step, summary):
        """Log a summary of TensorBoard's own protocol buffer class."""
        self._write(step, summary=tf.Summary.FromString(summary.SerializeToString()))

    def _write(self, step=0, **content):
        self._writer.write(tf.Event(wall_time=time.time(), step=step, **content).SerializeToString())


def log_mistakes(folder, checkpoint, wrong, data, probabilities, classes):
    """Log misclassified images in a file of their own, which replaces that of an earlier evaluation.

    Args:
        folder: of the run; it need not have a log.
        checkpoint: prefix of the evaluated weights, which ends in their step; None: unknown, logged as step 0.
        wrong: indices into `data`, a DataSet, the most confident mistakes first; MISTAKES of them are logged.
        probabilities: float [n, classes].
        classes: their names.

    Raises:
        InputError: an image cannot be read, or the file cannot be written.
    """
    found = re.search(r"-(\d{1,18})$", checkpoint or "")
    step = int(found.group(1)) if found else 0
    earlier = mistakes_files(folder)
    try:
        logger = TensorBoardLogger(folder, suffix=MISTAKES_SUFFIX)
        for number, i in enumerate(wrong[:MISTAKES], 1):
            with suppress_stderr:
                image = read_image(data.paths[i], transparency=data.preprocess.transparency)
            true, predicted = classes[data.labels[i]], classes[probabilities[i].argmax()]
            logger.image(step, f"Mistakes/{number}: is {true}, predicted {predicted}", downscale(image))
        logger.close()
        for name in earlier:
            os.remove(os.path.join(folder, name))
    except (OSError, tf.errors.OpError) as error:
        for name in set(mistakes_files(folder)) - set(earlier):  # what was written of it
            os.remove(os.path.join(folder, name))
        raise InputError(f"folder {folder}: the mistakes cannot be logged there ({reason(error)})") from error


def mistakes_files(folder):
    """The names of the files that log_mistakes has written to a folder."""
    return [name for name in os.listdir(folder) if EVENT_FILE.match(name) and name.endswith(f".{MISTAKES_SUFFIX}")]


def downscale(image):
    """The image, its longer side at most MAX_SIDE."""
    scale = MAX_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = [max(1, round(scale * side)) for side in image.shape[:2]]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def new_event_file(folder, suffix):
    """A free name that sorts after the existing ones, whatever the clock: TensorBoard reads files in that order."""
    seconds = [int(found.group(1)) for found in map(EVENT_FILE.match, os.listdir(folder)) if found]
    second = max([int(time.time()), *(second + 1 for second in seconds)])
    return os.path.join(folder, f"events.out.tfevents.{second:010d}.{socket.gethostname()}.{suffix}")


def is_number(value):
    return isinstance(value, (int, float))


def as_text(value):
    """The value of a setting as valid UTF-8 text, for folder names may be invalid; lists as JSON with real letters,
    where Python writes escapes for those that its Unicode does not know."""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, (list, tuple)) else str(value)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
