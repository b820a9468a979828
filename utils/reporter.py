"""What people see of a training: printed lines, a progress bar, pictures, and the TensorBoard log."""

import contextlib
import csv
import io
import os

from tqdm import tqdm

from src.console import print_error, print_note, say
from src.errors import InputError, first_line
from src.tf1 import tf
from utils.checkpoints import best_entry
from utils.files import write_atomically
from utils.images.plots import draw_curves, draw_grid, escape_label
from utils.input_check import chance_note, describe_channels, input_note
from utils.tensorboard import TensorBoardLogger

SHOWN = 32  # images in train_batch.png
WINDOW = 100  # a point of a training curve is the mean over this many steps
# Columns of history.csv: what Trainer.history calls them, and their headings.
HISTORY = {
    "epoch": "epoch", "loss": "train_loss", "acc": "train_acc", "val_loss": "val_loss", "val_acc": "val_acc",
    "learning_rate": "learning_rate", "seconds": "seconds",
}  # fmt: skip


class Reporter:
    """Reports one call of Trainer.optimize. What cannot be written is said once, and does not stop the training.

    Args:
        folder: of the run; None: report nothing, for in a cluster the chief does.
        config: its settings.
        data: its DataSets. Before the first step, what is unusual about the training images is said.
        graph: the tf.Graph that is trained.
        state: the TrainState, whose running sums become the points of the training curves.
        first: the first step of which points are to be written; those of it and of later ones that an interrupted
            process has left are forgotten.

    Attributes:
        error: what was wrong when something could not be written; None if all is well.
    """

    def __init__(self, folder, config, data, graph, state, first):
        self._folder = folder
        self._config = config
        self._data = data
        self._bar = None
        self._logger = None
        self._state = state
        self._is_new = not state.has_begun()
        self.error = None
        if folder is None:
            return
        with self._tolerant():
            os.makedirs(folder, exist_ok=True)
            self._logger = TensorBoardLogger(folder, first)
            if self._is_new:
                self._logger.graph(graph)
                self._logger.settings(state.step, vars(config))
                self._logger.layout(state.step)
        if self._is_new:
            self._note(input_note(data.train, config))

    def _note(self, text):
        if text:
            print_note(text)

    @contextlib.contextmanager
    def _tolerant(self):
        """Within it, an error in writing is said, if it is the first, and ends the log."""
        try:
            yield
        except (InputError, OSError, tf.errors.OpError) as error:
            self._logger = None
            if self.error is None:
                self.error = f"the log in {self._folder} cannot be written ({first_line(error)})"
                print_error(f"setting tensorboard_dir: {self.error}; training goes on without it")

    def start(self, title, steps, batch_size):
        """An epoch of so many steps begins, or goes on. A batch is that of all members of a cluster."""
        self._title, self._steps, self._batch_size = title, steps, batch_size
        self._bar = tqdm(
            total=steps * batch_size, initial=self._state.step_in_epoch * batch_size, desc=title, unit="images",
            disable=None if self._folder else True, leave=False, dynamic_ncols=True,
        )  # fmt: skip

    def step(self, batch, loss, accuracy):
        """A step is done and counted: its Batch, loss and accuracy before its update."""
        if self._is_new and self._folder:  # so that a mistake in the data is seen early
            names = [escape_label(name, 16) for name in batch.cls[:SHOWN]]
            images = self._data.train.preprocess.to_rgb(batch.images[:SHOWN])
            entering = describe_channels(batch.images.mean(axis=(0, 1, 2)), batch.images.std(axis=(0, 1, 2)))
            with self._tolerant():
                heading = f"the first batch, as the network sees each channel: {entering}"
                draw_grid(os.path.join(self._folder, "train_batch.png"), images, names, heading)
        self._is_new = False
        # That of the last step comes with the other points of the epoch, so that they are there together.
        if self._state.step % WINDOW == 0 and self._state.step_in_epoch < self._steps:
            self._write_window()
        self._bar.set_postfix_str(f"loss {loss:.3f} acc {accuracy:.3f}", refresh=False)
        self._bar.update(self._batch_size)

    def _write_window(self):
        """A point of the training curves: the means over the last steps."""
        means = self._state.take_means()
        if means and self._logger:
            with self._tolerant():
                self._logger.scalars(self._state.step, means)

    def epoch(self, seconds, histograms, last):
        """An epoch is done and in the history: the seconds that its steps took, a summary of histograms, and whether it
        is the last epoch, after which the steps that are no full window get their point."""
        self._bar.close()
        if not self._folder:
            return
        step, history = self._state.step, self._state.history
        scalars = {name: history[-1][name] for name in ("val_loss", "val_acc")}
        scalars["best_val_acc"] = best_entry(history)["val_acc"]
        if seconds > 0:  # by a coarse clock, it may have taken no time
            scalars["images_per_second"] = self._steps * self._batch_size / seconds
        if last or step % WINDOW == 0:
            self._write_window()
        with self._tolerant():
            self._write_history(history)
            if self._logger:
                self._logger.histograms(step, histograms)
                self._logger.scalars(step, scalars)
        self._say(history[-1], scalars.get("images_per_second"))
        if last:
            self._note(chance_note(history, self._data.valid.labels, self._config, self._folder))

    def _say(self, entry, speed):
        """A line about an epoch."""
        rate = "" if speed is None else f"{speed:.0f} images/s, "
        say(
            f"{self._title}: loss {entry['loss']:.4f}, accuracy {entry['acc']:.4f}; "
            f"validation loss {entry['val_loss']:.4f}, accuracy {entry['val_acc']:.4f}; "
            f"{rate}{entry['seconds']:.1f} s"
        )

    def _write_history(self, history):
        """history.csv: a line for each epoch."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(HISTORY.values())
        writer.writerows([f"{entry[name]:.6g}" for name in HISTORY] for entry in history)
        write_atomically({os.path.join(self._folder, "history.csv"): table.getvalue()})

    def flush(self):
        """Bring the curves to the disk: before each checkpoint, so that both agree if the run is killed."""
        if self._logger:
            with self._tolerant():
                self._logger.flush()

    def draw_curves(self):
        """curves.png of the history."""
        history = self._state.history
        if history and self._folder:
            with self._tolerant():
                draw_curves(os.path.join(self._folder, "curves.png"), history, best_entry(history))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        """Training is over, or has been interrupted."""
        if self._bar is not None:
            self._bar.close()
        if self._logger:
            with self._tolerant():
                self._logger.close()
