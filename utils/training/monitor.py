"""Progress of training: printed lines, a progress bar, figures, history.csv, and the TensorBoard log."""

import contextlib
import csv
import io
import os

from src.console import is_interactive, print_error, print_note, say
from src.errors import InputError, first_line
from src.tf1 import tf
from utils.files import write_atomically
from utils.images.plots import draw_curves, draw_grid, escape_label
from utils.progress import progress
from utils.training.input_check import chance_note, describe_channels, input_note
from utils.training.state import best_entry
from utils.training.tensorboard import TensorBoardLogger

MAX_IMAGES = 32  # in train_batch.png
STEPS_PER_POINT = 100  # a point of a training curve is the mean over this many steps
HISTORY_COLUMNS = {  # keys of Trainer.history -> column names of history.csv
    "epoch": "epoch", "loss": "train_loss", "acc": "train_acc", "val_loss": "val_loss", "val_acc": "val_acc",
    "learning_rate": "learning_rate", "seconds": "seconds",
}  # fmt: skip


class NullMonitor(contextlib.ExitStack):
    """Does nothing, whatever is called: for workers other than the chief, and in place of a log that failed."""

    error = None

    def __getattr__(self, name):
        return lambda *arguments: None


class TrainingMonitor:
    """Reports one call of Trainer.optimize. If the log cannot be written, that is reported once; training continues.

    Args:
        folder: of the run.
        config: its settings.
        data: its DataSets; a new run begins with a note if the training images are unusual.
        graph: the tf.Graph that is trained.
        state: the TrainState, whose running sums become the points of the training curves.
        first_step: of which points are written; the log forgets those that an interrupted process wrote from there on.

    Attributes:
        error: why the log could not be written; None if it could.
    """

    def __init__(self, folder, config, data, graph, state, first_step):
        self._folder = folder
        self._config = config
        self._data = data
        self._bar = None
        self._state = state
        self._is_new = not state.has_begun()
        self.error = None
        with self._log_errors_once():
            os.makedirs(folder, exist_ok=True)
            self._logger = TensorBoardLogger(folder, first_step)
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
    def _log_errors_once(self):
        """Within it, an error in writing ends the log, and is printed if it is the first."""
        try:
            yield
        except (InputError, OSError, tf.errors.OpError) as error:
            self._logger = NullMonitor()
            if self.error is None:
                self.error = f"the log in {self._folder} cannot be written ({first_line(error)})"
                print_error(f"setting tensorboard_dir: {self.error}; training continues without it")

    def start(self, title, steps, batch_size):
        """An epoch of so many steps starts or continues. batch_size counts the images of all workers."""
        self._title, self._steps, self._batch_size = title, steps, batch_size
        self._bar = progress(steps * batch_size, title, self._state.step_in_epoch * batch_size)

    def step(self, batch, loss, accuracy):
        """A step is done and counted in the state: its Batch, and its loss and accuracy before the update."""
        if self._is_new:  # so that mistakes in the data are seen early
            names = [escape_label(name, 16) for name in batch.cls[:MAX_IMAGES]]
            images = self._data.train.preprocess.to_rgb(batch.images[:MAX_IMAGES])
            channels = describe_channels(batch.images.mean(axis=(0, 1, 2)), batch.images.std(axis=(0, 1, 2)))
            with self._log_errors_once():
                heading = f"the first training batch, input channels: {channels}"
                draw_grid(os.path.join(self._folder, "train_batch.png"), images, names, heading)
        self._is_new = False
        # At the last step, epoch() writes it together with the other points of the epoch.
        if self._state.step % STEPS_PER_POINT == 0 and self._state.step_in_epoch < self._steps:
            self._write_training_point()
        self._bar.set_postfix_str(f"loss {loss:.3f} acc {accuracy:.3f}", refresh=False)
        self._bar.update(self._batch_size)

    def _write_training_point(self):
        means = self._state.take_means()
        if means:
            with self._log_errors_once():
                self._logger.scalars(self._state.step, means)

    def epoch(self, seconds, histograms, last):
        """An epoch is done and in the history.

        Args:
            seconds: that its steps took.
            histograms: a serialized summary of the weights.
            last: whether it is the last epoch, so that the steps since the last point get theirs.
        """
        self._bar.close()
        step, history = self._state.step, self._state.history
        scalars = {name: history[-1][name] for name in ("val_loss", "val_acc")}
        scalars["best_val_acc"] = best_entry(history)["val_acc"]
        if seconds > 0:  # 0 by a coarse clock
            scalars["images_per_second"] = self._steps * self._batch_size / seconds
        if last or step % STEPS_PER_POINT == 0:
            self._write_training_point()
        with self._log_errors_once():
            self._write_history(history)
            self._logger.histograms(step, histograms)
            self._logger.scalars(step, scalars)
        self._say(history[-1], scalars.get("images_per_second"))
        if last:
            self._note(chance_note(history, self._data.valid.labels, self._config, self._folder))

    def _say(self, entry, speed):
        """Print a line about an epoch."""
        rate = "" if speed is None else f"{speed:.0f} images/s, "
        say(
            f"{self._title}: loss {entry['loss']:.4f}, accuracy {entry['acc']:.4f}; "
            f"validation loss {entry['val_loss']:.4f}, accuracy {entry['val_acc']:.4f}; "
            f"{rate}{entry['seconds']:.1f} s"
        )

    def _write_history(self, history):
        """Write history.csv, a line for each epoch."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(HISTORY_COLUMNS.values())
        writer.writerows([f"{entry[name]:.6g}" for name in HISTORY_COLUMNS] for entry in history)
        write_atomically({os.path.join(self._folder, "history.csv"): table.getvalue()})

    def flush(self):
        """Write buffered points to disk; before each checkpoint, so that both agree if the run is killed."""
        with self._log_errors_once():
            self._logger.flush()

    def stopped(self, checkpoint):
        """Optimize was interrupted, and has saved this checkpoint (None: nothing to save)."""
        if is_interactive():  # a command prints how to resume it from the shell
            saved = f"saved {checkpoint}" if checkpoint else "no step was done"
            say(f"stopped; {saved}; optimize() continues from here, in another session Trainer(resume=True).optimize()")

    def draw_curves(self):
        """Write curves.png, if there is a history."""
        history = self._state.history
        if history:
            with self._log_errors_once():
                draw_curves(os.path.join(self._folder, "curves.png"), history, best_entry(history))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        """Training is done, or was interrupted."""
        if self._bar is not None:
            self._bar.close()
        with self._log_errors_once():
            self._logger.close()
