"""What a run writes for TensorBoard."""
import os
import time

import numpy as np

from src.tf1 import tf
from utils.checkpoints import writable

WINDOW = 100  # a point of a training curve is the mean over this many steps


class Board(object):
    """Writes events to a run's folder.

    Tags: train_loss, train_acc, learning_rate and, with weight decay, weight_loss (a point for each 100 steps),
    val_loss, val_acc, images_per_second and histograms of the weights (a point for each epoch). A point's x is the
    number of steps done.
    """

    def __init__(self, folder, graph, step):
        """step: at which writing begins; it makes the name of the file differ from that of an earlier one."""
        self._folder = folder
        self._writer = tf.summary.FileWriter(folder, graph, filename_suffix=".step%d" % step)
        self._window = []
        self._step = 0

    def training(self, step, **scalars):
        """One step: its loss and accuracy, before its update, and its learning rate."""
        self._step = step
        self._window.append(scalars)
        if step % WINDOW == 0:
            self._write_window()

    def settings(self, step, settings):
        """The run's settings, as a table."""
        rows = ["| %s | %s |" % (name, str(value).replace("|", "\\|")) for name, value in settings.items()]
        text = tf.make_tensor_proto("\n".join(["| setting | value |", "|---|---|"] + rows), tf.string)
        kind = tf.SummaryMetadata(plugin_data=tf.SummaryMetadata.PluginData(plugin_name="text"))
        self._writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag="settings", metadata=kind, tensor=text)]), step)

    def histograms(self, step, summary):
        """What a tf.summary.histogram gave."""
        self._writer.add_summary(summary, step)

    def validation(self, step, **scalars):
        self._write(step, scalars)
        with writable("tensorboard_dir", self._folder):
            self._writer.flush()  # so that curves and checkpoint agree if the run is killed

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._write_window()
        with writable("tensorboard_dir", self._folder):
            self._writer.close()

    def _write_window(self):
        if self._window:
            self._write(self._step, {tag: np.mean([scalars[tag] for scalars in self._window])
                                     for tag in self._window[0]})
        self._window = []

    def _write(self, step, scalars):
        values = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in sorted(scalars.items())]
        self._writer.add_summary(tf.Summary(value=values), step)


def new_run_folder(tensorboard_dir):
    """Make a folder named by the time, such as 20201231-235959; if that is taken, by the next free second."""
    second = time.time()
    while True:
        folder = os.path.join(tensorboard_dir, time.strftime("%Y%m%d-%H%M%S", time.localtime(second)))
        try:
            os.makedirs(folder)
            return folder
        except FileExistsError:
            second += 1
