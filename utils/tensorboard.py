"""The TensorBoard log of a run."""

import os
import re
import time

import numpy as np

from src.tf1 import tf
from utils.checkpoints import writable

WINDOW = 100  # a point of a training curve is the mean over this many steps


class TensorBoardLogger:
    """Writes events to a run's folder.

    Args:
        folder: of the run.
        graph: tf.Graph to show.
        step: at which writing begins; it makes the name of the file differ from that of an earlier one.

    Tags: train_loss, train_acc, learning_rate and, with weight decay, weight_loss (a point per 100 steps), val_loss,
    val_acc, best_val_acc, images_per_second and histograms of the weights (a point per epoch). A point's x is the
    number of steps done.
    """

    def __init__(self, folder, graph, step):
        self._folder = folder
        self._writer = tf.summary.FileWriter(folder, graph, filename_suffix=f".step{step}")
        self._window = []
        self._step = 0

    def step(self, step, **scalars):
        """One step: its loss and accuracy, before its update, and its learning rate."""
        self._step = step
        self._window.append(scalars)
        if step % WINDOW == 0:
            self._write_window()

    def settings(self, step, settings):
        """The run's settings, as a table and for the page that compares runs."""
        from tensorboard.plugins.hparams.summary import session_start_pb

        values = {name: value if isinstance(value, (int, float)) else utf8(value) for name, value in settings.items()}
        rows = ["| setting | value |", "|---|---|"]
        rows += ["| {} | {} |".format(name, str(value).replace("|", "\\|")) for name, value in values.items()]
        text = tf.make_tensor_proto("\n".join(rows), tf.string)
        kind = tf.SummaryMetadata(plugin_data=tf.SummaryMetadata.PluginData(plugin_name="text"))
        self._writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag="settings", metadata=kind, tensor=text)]), step)
        self._add(session_start_pb(values), step)

    def layout(self, step):
        """Charts with training and validation in one, of loss and of accuracy."""
        from tensorboard.plugins.custom_scalar import layout_pb2
        from tensorboard.plugins.custom_scalar.summary import pb as layout_summary

        charts = []
        for title, name in (("loss", "loss"), ("accuracy", "acc")):
            curves = layout_pb2.MultilineChartContent(tag=[f"train_{name}", f"val_{name}"])
            charts.append(layout_pb2.Chart(title=title, multiline=curves))
        layout = layout_pb2.Layout(category=[layout_pb2.Category(title="training and validation", chart=charts)])
        self._add(layout_summary(layout), step)

    def _add(self, summary, step):
        """TensorBoard's own summaries are of its own protocol buffers."""
        self._writer.add_summary(tf.Summary.FromString(summary.SerializeToString()), step)

    def epoch(self, step, histograms, **scalars):
        """The end of an epoch: a summary of histograms, and the scalars of validation."""
        self._writer.add_summary(histograms, step)
        self._write(step, scalars)
        with writable("tensorboard_dir", self._folder):
            self._writer.flush()  # so that curves and checkpoint agree if the run is killed

    def close(self):
        self._write_window()
        with writable("tensorboard_dir", self._folder):
            self._writer.close()

    def _write_window(self):
        if self._window:
            means = {tag: np.mean([scalars[tag] for scalars in self._window]) for tag in self._window[0]}
            self._write(self._step, means)
        self._window = []

    def _write(self, step, scalars):
        values = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in sorted(scalars.items())]
        self._writer.add_summary(tf.Summary(value=values), step)


def new_run_folder(tensorboard_dir, data_path):
    """Make a folder named by the time and the data, 20201231-235959-flowers for flowers/train.

    If that time is taken, it is the next free second.
    """
    parts = [part for part in os.path.abspath(data_path).split(os.sep) if part not in ("", "train", "test")]
    data = re.sub("[^A-Za-z0-9._-]", "_", parts[-1] if parts else "data")[:40]
    second = time.time()
    while True:
        name = time.strftime("%Y%m%d-%H%M%S", time.localtime(second))
        folder = os.path.join(tensorboard_dir, f"{name}-{data}")
        try:
            os.makedirs(folder)
            return folder
        except FileExistsError:
            second += 1


def utf8(value):
    """The value as text that can be written to a log: names of folders need not be UTF-8."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
