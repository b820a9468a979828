"""Figures, as PNG files."""

import os

import numpy as np

from src.console import display_width
from src.errors import InputError
from utils.images.figure import new_figure, save

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLUMNS = 8  # of a grid of images


def check_output(path, images):
    """Raise InputError if a figure would overwrite one of these images, or a file that is not a PNG, or if its folder
    cannot be written to."""
    if not path.lower().endswith(".png"):
        raise InputError("--output", path, "a name that ends in .png")
    if not os.access(os.path.dirname(path) or ".", os.W_OK):
        raise InputError("--output", path, "a file in a folder that can be written to")
    if not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        is_png = file.read(len(PNG_SIGNATURE)) == PNG_SIGNATURE
    if not is_png or os.path.abspath(path) in set(map(os.path.abspath, images)):
        what = "one of the images" if is_png else "a file that is not a PNG"
        raise InputError("--output", f"{path}, {what}", "another name")


def escape_label(text, width):
    """The text, abbreviated in the middle to `width` columns of a terminal, with dollar signs escaped, which Matplotlib
    would parse as math. Bytes of file names that are not UTF-8 become a replacement character."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    if display_width(text) > width:
        start, end = text[: width - 1 - width // 2], text[-(width // 2) :]
        while display_width(start) > width - 1 - width // 2:
            start = start[:-1]
        while display_width(end) > width // 2:
            end = end[1:]
        text = f"{start}…{end}"
    return text.replace("$", r"\$")


def draw_grid(path, images, titles, heading, columns=COLUMNS):
    """A grid of images, uint8 [H, W, 3] red, green, blue, each under a title of one or two lines."""
    rows = max(1, -(-len(images) // columns))
    text_height = 0.13 * max([title.count("\n") + 1 for title in titles] or [1])  # inches
    row_height = 1.2 + text_height + 0.12
    top_height = 0.3 + 0.2 * (heading.count("\n") + 1)
    height = row_height * rows + top_height
    figure = new_figure(1.3 * columns, height)
    axes = figure.add_axes([0, 0, 1, 1])  # shared: axes for each image would take a second to draw
    axes.set_xlim(0, 1.3 * columns)
    axes.set_ylim(height, 0)
    axes.axis("off")
    axes.text(0.1, 0.15, heading, fontsize=11, verticalalignment="top")
    texts = []
    for number, (image, title) in enumerate(zip(images, titles)):
        height, width = np.divide(image.shape[:2], max(image.shape[:2])) * 1.2
        left, top = 1.3 * (number % columns) + 0.05, row_height * (number // columns) + top_height + text_height
        axes.imshow(image, extent=(left, left + width, top + height, top), interpolation="nearest", aspect="auto")
        texts.append(axes.text(left, top - 0.06, title, fontsize=8, linespacing=1.1))
    save(figure, path, [(text, 1.22) for text in texts])


def draw_confusion(path, matrix, classes, num_images, heading=""):
    """Confusion matrix: a row per true class, a column per predicted class; the colour is the share of the row.

    Names are drawn beside as many rows, and counts in the cells, as there is room for.

    Args:
        matrix: int [n, n] of n classes.
        classes: their names.
        num_images: images of each: int [n]; more than the sums of the rows if `matrix` is a part of a larger one.
    """
    side = min(15, max(2, 0.5 * len(classes)))  # inches
    cell = side / len(classes)
    figure = new_figure(side + 0.8, side)
    axes = figure.add_axes([0, 0, side / (side + 0.8), 1])  # names are drawn outside, and `save` makes room for them
    shares = matrix / np.maximum(num_images, 1)[:, np.newaxis]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(image, cax=figure.add_axes([(side + 0.2) / (side + 0.8), 0, 0.2 / (side + 0.8), 1]))
    axes.set_title(f"{heading}colour: share of the true class", fontsize=10, loc="right")
    fontsize = min(10, max(5, 50 * cell))
    step = int(np.ceil(1.3 * fontsize / 72 / cell))  # from a name to the next
    names = [escape_label(name, 20) for name in classes[::step]]
    axes.set_xticks(range(0, len(classes), step))
    axes.set_yticks(range(0, len(classes), step))
    axes.set_xticklabels(names, fontsize=fontsize, rotation=90)
    axes.set_yticklabels(names, fontsize=fontsize)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    draw_counts(axes, matrix, shares, cell)
    save(figure, path)


def draw_counts(axes, matrix, shares, cell):
    """Write the counts into cells of this size in inches, if they fit; zeros only between a few classes."""
    digits = len(str(matrix.max()))
    fontsize = min(9, 0.85 * cell * 72 / (0.65 * digits))
    if fontsize < 6:
        return
    for row, column in np.argwhere(matrix >= (len(matrix) > 25)):
        color = "white" if shares[row, column] > 0.5 else "black"
        text = str(matrix[row, column])
        axes.text(column, row, text, ha="center", va="center", fontsize=fontsize, color=color)


def draw_precision_recall(path, curves, heading):
    """Precision over recall of some classes.

    Args:
        curves: PrecisionRecall tuples, as precision_recall in utils/inference/evaluation.py returns them.
    """
    figure = new_figure(6, 5)
    axes = figure.add_subplot(1, 1, 1)
    for name, average_precision, precision, recall in curves:
        label = f"{escape_label(name, 30)}: {average_precision:.3f}"
        axes.plot(recall, precision, drawstyle="steps-post", label=label)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.03)
    axes.grid(alpha=0.3)
    axes.set_title(heading, fontsize=10)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), title="average precision", frameon=False)
    save(figure, path)


def draw_curves(path, history, best):
    """Learning curves: training and validation loss and accuracy, with a marker at the best epoch.

    Args:
        history: a dict for each epoch: epoch, loss, acc, val_loss, val_acc.
        best: that of the best epoch.
    """
    figure = new_figure(10, 4)
    epochs = [entry["epoch"] for entry in history]
    for place, (name, label) in enumerate((("loss", "loss"), ("acc", "accuracy"))):
        axes = figure.add_subplot(1, 2, place + 1)
        axes.plot(epochs, [entry[name] for entry in history], ".-", label="training")
        axes.plot(epochs, [entry[f"val_{name}"] for entry in history], ".-", label="validation")
        if name == "acc":
            x, y = best["epoch"], best["val_acc"]
            axes.plot(x, y, "ko", markersize=11, fillstyle="none", label=f"best epoch, {x}: {y:.4f}")
        axes.set_xlabel("epoch")
        axes.set_title(label)
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncol=3, frameon=False)  # below the curves
    save(figure, path)


def draw_range_test(path, rates, losses, smoothed, choice, model_arch):
    """The losses of a learning-rate range test over the rate, on a logarithmic axis, with a line at the chosen one.

    Args:
        rates, losses, smoothed: float [n].
        choice: a Choice, as choose_rate in utils/training/range_test.py returns it.
    """
    figure = new_figure(7, 4)
    axes = figure.add_subplot(1, 1, 1)
    axes.semilogx(rates, losses, ".", color="lightsteelblue", label="loss of a step")
    axes.semilogx(rates, smoothed, color="tab:blue", label="smoothed")
    if choice.rate is not None:
        axes.axvspan(choice.steepest, choice.lowest, color="tab:orange", alpha=0.15, label="steepest to lowest")
        axes.axvline(choice.rate, color="tab:orange", linestyle="--", label=f"learning rate {choice.rate:g}")
    axes.set_ylim(max(0, smoothed.min() - 0.5 * np.ptp(smoothed)), max(1.5 * smoothed[0], 0.1))  # without what diverges
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.set_title(f"learning-rate range test of {model_arch}", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncol=4, frameon=False)  # below the curve
    save(figure, path)
