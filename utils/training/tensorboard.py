"""The TensorBoard log of a run."""

import os
import re
import socket
import time

from src.tf1 import tf

EVENT_FILE = re.compile(r"events\.out\.tfevents\.(\d+)\.")


class TensorBoardLogger:
    """Writes events to a file in a run's folder.

    Args:
        folder: of the run.
        first_step: of which there are points to write. If it is not 1, the run is resumed, and TensorBoard discards the
            points from this step on, which the interrupted process may have written.

    Tags: train_loss, train_acc, learning_rate and, with weight decay, weight_loss (a point per 100 steps), val_loss,
    val_acc, best_val_acc, images_per_second and histograms of the weights (a point per epoch). A point's x is the
    number of steps done.

    Raises:
        tf.errors.OpError: from any method, if the file cannot be written.
    """

    def __init__(self, folder, first_step):
        # Not tf.summary.FileWriter: on a full disk its writer thread dies silently.
        self._writer = tf.io.TFRecordWriter(new_event_file(folder, first_step))
        self._write(file_version="brain.Event:2")
        if first_step > 1:
            self._write(first_step, session_log=tf.SessionLog(status=tf.SessionLog.START))

    def graph(self, graph):
        """Log a tf.Graph."""
        self._write(graph_def=graph.as_graph_def(add_shapes=True).SerializeToString())

    def scalars(self, step, scalars):
        """Log a point of each curve: {tag: value}."""
        values = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in sorted(scalars.items())]
        self._write(step, summary=tf.Summary(value=values))

    def histograms(self, step, summary):
        """Log a serialized summary of histograms."""
        self._write(step, summary=tf.Summary.FromString(summary))

    def settings(self, step, settings):
        """Log the run's settings, as a table and for the HParams page, which compares runs."""
        from tensorboard.plugins.hparams.summary import session_start_pb

        values = {name: value if isinstance(value, (int, float)) else utf8(value) for name, value in settings.items()}
        rows = ["| setting | value |", "|---|---|"]
        rows += ["| {} | {} |".format(name, str(value).replace("|", "\\|")) for name, value in values.items()]
        text = tf.make_tensor_proto("\n".join(rows), tf.string)
        kind = tf.SummaryMetadata(plugin_data=tf.SummaryMetadata.PluginData(plugin_name="text"))
        value = tf.Summary.Value(tag="settings", metadata=kind, tensor=text)
        self._write(step, summary=tf.Summary(value=[value]))
        self._write_serialized(step, session_start_pb(values))

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


def new_event_file(folder, step):
    """A free name that sorts after the existing ones, whatever the clock: TensorBoard reads files in that order."""
    seconds = [int(found.group(1)) for found in map(EVENT_FILE.match, os.listdir(folder)) if found]
    second = max([int(time.time()), *(second + 1 for second in seconds)])
    return os.path.join(folder, f"events.out.tfevents.{second:010d}.{socket.gethostname()}.step{step:09d}")


def utf8(value):
    """The value as valid UTF-8 text, for folder names may be invalid."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
