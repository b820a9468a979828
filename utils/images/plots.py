"""Figures, as PNG files."""

import io
import logging
import os
import warnings

import numpy as np

from src.errors import InputError, first_line
from utils.files import write_atomically

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns about the user's files and fonts
try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError:
    raise
except Exception as error:  # an invalid environment variable, or a file that it names
    given = [f"{name}={os.environ[name]}" for name in ("MPLBACKEND", "MATPLOTLIBRC") if os.environ.get(name)]
    subject = " ".join(given) or "the file matplotlibrc"
    raise InputError(f"{subject}: Matplotlib cannot be imported with it ({first_line(error)})") from error

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLUMNS = 8  # of a grid of images


def new_figure(width, height):
    """A figure of this size in inches, with 100 pixels per inch. It needs no screen."""
    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    return figure


def save(figure, path):
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about characters that the font lacks
        try:
            figure.savefig(content, format="png", bbox_inches="tight", pad_inches=0.1)
        except Exception as error:  # a user's matplotlibrc can require what is not installed
            raise InputError(f"file {path}: Matplotlib cannot draw it ({first_line(error)})") from error
    write_atomically({path: content.getvalue()})


def check_output(path, images):
    """Raise InputError if a figure would overwrite one of the images it shows, or a file that is not a PNG."""
    if not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        is_png = file.read(len(PNG_SIGNATURE)) == PNG_SIGNATURE
    if not is_png or os.path.abspath(path) in set(map(os.path.abspath, images)):
        what = "one of the images to show" if is_png else "a file that is not a PNG"
        raise InputError("--output", f"{path}, {what}", "another name")


def escape_label(text, length):
    """The text, abbreviated in the middle to `length`, with dollar signs escaped, which Matplotlib would parse as math.
    Bytes of file names that are not UTF-8 become a replacement character."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) > length:
        end = length // 2
        text = f"{text[: length - 1 - end]}…{text[-end:]}"
    return text.replace("$", r"\$")


def draw_grid(path, images, titles, heading, columns=COLUMNS):
    """A grid of images, uint8 [H, W, 3] red, green, blue, each under a title of one or two lines."""
    rows = max(1, -(-len(images) // columns))
    text_height = 0.13 * max([title.count("\n") + 1 for title in titles] or [1])  # inches
    row_height = 1.2 + text_height + 0.12
    height = row_height * rows + 0.5
    figure = new_figure(1.3 * columns, height)
    axes = figure.add_axes([0, 0, 1, 1])  # shared: axes for each image would take a second to draw
    axes.set_xlim(0, 1.3 * columns)
    axes.set_ylim(height, 0)
    axes.axis("off")
    axes.text(0.1, 0.3, heading, fontsize=11)
    for number, (image, title) in enumerate(zip(images, titles)):
        height, width = np.divide(image.shape[:2], max(image.shape[:2])) * 1.2
        left, top = 1.3 * (number % columns) + 0.05, row_height * (number // columns) + 0.5 + text_height
        axes.imshow(image, extent=(left, left + width, top + height, top), interpolation="nearest", aspect="auto")
        axes.text(left, top - 0.06, title, fontsize=8, linespacing=1.1)
    save(figure, path)


def draw_confusion(path, matrix, classes):
    """Confusion matrix: a row per true class, a column per predicted class; the colour is the share of the row."""
    count = len(classes)
    side = min(16, max(5, 0.55 * count + 2))
    figure = new_figure(side + 1, side)
    axes = figure.add_subplot(1, 1, 1)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="share of the true class")
    fontsize = 10 if count <= 25 else 5.5
    names = [escape_label(name, 20) for name in classes]
    axes.set_xticks(range(count))
    axes.set_yticks(range(count))
    axes.set_xticklabels(names, fontsize=fontsize, rotation=90 if count > 3 else 0)
    axes.set_yticklabels(names, fontsize=fontsize)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if count <= 25:
        for row in range(count):
            for column in range(count):
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=8, color=color)
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
