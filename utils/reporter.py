"""What people see of a training: printed lines, a progress bar, pictures, and the TensorBoard log."""

import csv
import io
import os

from tqdm import tqdm

from utils.checkpoints import best_entry
from utils.files import write_atomically
from utils.images import denormalized
from utils.plots import draw_curves, draw_grid, escape_label
from utils.tensorboard import TensorBoardLogger

SHOWN = 32  # images in train_batch.png
# Columns of history.csv: what Trainer.history calls them, and their headings.
HISTORY = {
    "epoch": "epoch", "loss": "train_loss", "acc": "train_acc", "val_loss": "val_loss", "val_acc": "val_acc",
    "learning_rate": "learning_rate", "seconds": "seconds",
}  # fmt: skip


class Reporter:
    """Reports one call of Trainer.optimize.

    Args:
        folder: of the run.
        config: its settings.
        graph: the tf.Graph that is trained.
        step: steps done so far.
    """

    def __init__(self, folder, config, graph, step):
        self._folder = folder
        self._config = config
        self._bar = None
        self._logger = TensorBoardLogger(folder, graph, step)
        self._logger.settings(step, vars(config))
        self._logger.layout(step)

    def start(self, title, images):
        """An epoch of this many images begins."""
        self._title, self._images = title, images
        self._bar = tqdm(total=images, desc=title, unit="images", disable=None, leave=False, dynamic_ncols=True)

    def step(self, step, batch, loss, accuracy, scalars):
        """A step is done: its number, Batch, loss and accuracy before its update, and {tag: other scalars}."""
        if step == 1:  # so that a mistake in the data is seen early
            names = [escape_label(name, 16) for name in batch.cls[:SHOWN]]
            images = denormalized(batch.images[:SHOWN], self._config)
            draw_grid(os.path.join(self._folder, "train_batch.png"), images, names, "the first batch")
        self._logger.step(step, train_loss=loss, train_acc=accuracy, **scalars)
        self._bar.set_postfix_str(f"loss {loss:.3f} acc {accuracy:.3f}", refresh=False)
        self._bar.update(len(batch.images))

    def epoch(self, step, history, seconds, histograms):
        """An epoch is done: Trainer.history with it, the seconds that its steps took, a summary of histograms."""
        self._bar.close()
        entry, speed = history[-1], self._images / seconds
        scalars = {name: entry[name] for name in ("val_loss", "val_acc")}
        scalars["best_val_acc"] = best_entry(history)["val_acc"]
        self._write_history(history)
        self._logger.epoch(step, histograms, images_per_second=speed, **scalars)
        print(
            f"{self._title}: loss {entry['loss']:.4f}, accuracy {entry['acc']:.4f}; "
            f"validation loss {entry['val_loss']:.4f}, accuracy {entry['val_acc']:.4f}; "
            f"{speed:.0f} images/s, {entry['seconds']:.1f} s",
            flush=True,
        )

    def _write_history(self, history):
        """history.csv: a line for each epoch."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(HISTORY.values())
        writer.writerows([f"{entry[name]:.6g}" for name in HISTORY] for entry in history)
        write_atomically({os.path.join(self._folder, "history.csv"): table.getvalue()})

    def __enter__(self):
        return self

    def __exit__(self, *error):
        """Training is over, or has been interrupted."""
        if self._bar is not None:
            self._bar.close()
        self._logger.close()

    def draw_curves(self, history):
        """curves.png of Trainer.history."""
        if history:
            draw_curves(os.path.join(self._folder, "curves.png"), history, best_entry(history))
