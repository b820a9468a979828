"""Figures of training: a run's results, its learning rate, augmented images, and overfitting."""

import csv
import os

import cv2
import numpy as np

from dataset import DataSet
from utils.images.decode import read_image
from utils.images.figure import new_figure, save
from utils.images.loader import Cache
from utils.images.preprocess import Preprocess

RESULTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "results")
BLUE, ORANGE = "tab:blue", "tab:orange"


def canvas(width, height):
    """A figure of this size in inches, with 200 pixels per inch, to be sharp where it is shown 880 pixels wide."""
    figure = new_figure(width, height)
    figure.set_dpi(200)
    return figure


def read_csv(*path):
    with open(os.path.join(*path), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rgb(path):
    return cv2.cvtColor(read_image(path), cv2.COLOR_BGR2RGB)


def show(axes, image, title="", **options):
    """Draw an image without ticks."""
    axes.imshow(image, interpolation="nearest", **options)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=8, loc="left", pad=3, linespacing=1.1)


def plot_history(axes, history, name, title):
    """The curves of the training and validation loss, or accuracy."""
    epochs = [int(line["epoch"]) for line in history]
    for part, label in (("train", "training"), ("val", "validation")):
        axes.plot(epochs, [float(line[f"{part}_{name}"]) for line in history], ".-", markersize=4, label=label)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)


def draw_first(path, folder):
    """Curves, confusion matrix and most confident mistakes of a run, side by side."""
    figure = canvas(8.8, 3.9)
    history, predictions = read_csv(folder, "history.csv"), read_csv(folder, "predictions.csv")
    for bottom, name, title in ((0.57, "loss", "loss"), (0.1, "acc", "accuracy")):
        axes = figure.add_axes([0.04, bottom, 0.23, 0.36])
        plot_history(axes, history, name, title)
        axes.legend(fontsize=8, frameon=False)
    axes.set_xlabel("epoch", fontsize=8)
    draw_matrix(figure.add_axes([0.375, 0.17, 0.31, 0.76]), predictions)
    wrong = [line for line in predictions if line["true"] != line["predicted"]]
    wrong.sort(key=lambda line: -float(line["probability"]))
    figure.text(0.72, 0.955, "most confident mistakes", fontsize=9)
    for number, line in enumerate(wrong[:9]):
        row, column = divmod(number, 3)
        axes = figure.add_axes([0.72 + 0.097 * column, 0.63 - 0.31 * row, 0.085, 0.22])
        show(axes, rgb(line["image"]), f"{line['predicted']}?\nis {line['true']}")
    save(figure, path)


def draw_matrix(axes, predictions):
    """The confusion matrix of the rows of predictions.csv."""
    classes = sorted({line["true"] for line in predictions})
    matrix = np.zeros((len(classes), len(classes)), int)
    for line in predictions:
        matrix[classes.index(line["true"]), classes.index(line["predicted"])] += 1
    shares = matrix / matrix.sum(axis=1, keepdims=True)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", fontsize=7.5, color=color)
    axes.set_xticks(range(len(classes)))
    axes.set_yticks(range(len(classes)))
    axes.set_xticklabels(classes, fontsize=8, rotation=90)
    axes.set_yticklabels(classes, fontsize=8)
    right = 100 * np.trace(matrix) / matrix.sum()
    axes.set_title(f"rows true, columns predicted: {right:.1f} % right", fontsize=9)


def draw_learning_rate(path, trainer):
    """The learning rate over the steps, computed by the graph."""
    config, epoch = trainer.config, trainer.steps
    steps = np.arange(0, config.num_epoch * epoch + 1, 20)
    rates = []
    for step in steps:
        trainer.global_step.load(step, trainer.session)
        rates.append(trainer.session.run(trainer.learning_rate))
    trainer.global_step.load(0, trainer.session)
    figure = canvas(8.8, 3.8)
    axes = figure.add_subplot(1, 1, 1)
    inset = axes.inset_axes([0.46, 0.48, 0.52, 0.42])
    for part, count in ((axes, len(steps)), (inset, 1 + 5 * epoch // 20)):
        part.plot(steps[:count], rates[:count], drawstyle="steps-post")
        part.grid(alpha=0.3)
    axes.set_xlabel("step")
    axes.set_ylabel("learning rate")
    axes.set_ylim(0, 1.05 * config.lr)
    exponent = rf"\lfloor \mathrm{{step}} / {config.step_rate} \rfloor"
    formula = rf"${config.lr} \times {config.decay}^{{{exponent}}}$"
    axes.set_title(f"{formula}, {config.num_epoch} epochs of {epoch} steps")
    inset.set_title("the first five epochs; a dotted line where one ends", fontsize=9)
    for number in range(1, 6):
        inset.axvline(number * epoch, color="0.4", linestyle=":", linewidth=1)
    figure.subplots_adjust(left=0.09, right=0.99)
    save(figure, path)


def draw_augmentation(path, config, image_path):
    """An image, and its augmented versions in nine epochs."""
    image = rgb(image_path)
    how = config.classes, Preprocess.of(config), Cache(1), config.seed, config.augment
    data = DataSet([image_path], np.zeros(1, int), *how)
    figure = canvas(8.8, 3.7)
    for number in range(10):
        seen = image if number == 0 else data.preprocess.to_rgb(data.next_batch(1).images)[0]
        axes = figure.add_subplot(2, 5, number + 1)
        show(axes, seen, f"in epoch {number}" if number else "the image")
    figure.subplots_adjust(left=0, right=1, bottom=0, top=0.93, wspace=0.08, hspace=0.16)
    save(figure, path)


def draw_overfitting(path):
    """Two runs of docs/results that differ only in augmentation: left none, right crop+flip."""
    figure = canvas(8.8, 5.2)
    runs = [("overfitting-1-none", "without augmentation"), ("overfitting-2-crop+flip", "with --augment crop+flip")]
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    for column, (folder, title) in enumerate(runs):
        history = read_csv(RESULTS, folder, "history.csv")
        plot_history(axes[0, column], history, "loss", title)
        plot_history(axes[1, column], history, "acc", "")
        losses = [float(line["val_loss"]) for line in history]
        least = int(np.argmin(losses))
        label = f"least validation loss: {losses[least]:.2f}, epoch {least + 1}"
        axes[0, column].plot(least + 1, losses[least], "ko", markersize=9, fillstyle="none", label=label)
        axes[0, column].legend(fontsize=9, loc="upper left")
        axes[1, column].legend(fontsize=9, loc="lower right")
        axes[1, column].set_xlabel("epoch")
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("accuracy")
    figure.tight_layout()
    save(figure, path)
