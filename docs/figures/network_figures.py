"""Figures of a network's operations, and of a trained network."""

import numpy as np
from matplotlib.patches import Rectangle
from training_figures import BLUE, ORANGE, canvas, rgb, show

from models.layers import kernel
from models.lenet5 import SIGMA
from src.tf1 import tf
from utils.images.figure import save
from utils.training.graph import loss_and_accuracy

INPUT = np.array([[1, 0, 2, 3, 1], [0, 1, 3, 1, 0], [2, 1, 0, 1, 2], [1, 3, 1, 0, 1], [0, 2, 1, 1, 3]], np.float32)


def network_input(predictor, path):
    """The network's input for an image file: float32 [1, 32, 32, 3]."""
    return predictor.preprocess.normalize(predictor.preprocess.load(path)[np.newaxis])


def draw_feature_maps(path, predictor, image_path):
    """An image on its way through the convolutions of LeNet-5: outputs of operations of the frozen graph."""
    image = network_input(predictor, image_path)
    rows = (  # operation, caption, maps per row
        ("conv1/BiasAdd", "convolution conv1: {} maps of {} x {} numbers", 6),
        ("conv1/Relu", "ReLU: negative numbers become 0", 6),
        ("conv1/MaxPool", "max pooling: {} maps of {} x {}", 6),
        ("conv2/MaxPool", "after conv2, ReLU and max pooling: {} maps of {} x {}", 8),
    )
    found = predictor.session.run([f"{name}:0" for name, _, _ in rows], {predictor.input: image})
    figure = canvas(8.8, 7.0)
    show(figure.add_axes([0, 0.79, 0.15, 0.15 * 8.8 / 7.0]), rgb(image_path), "the image, 32 x 32")
    top = 0.975
    for (name, about, columns), maps in zip(rows, found):
        side = 0.8 / columns * 0.94 * 8.8 / 7.0
        figure.text(0.2, top, f"{about.format(maps.shape[3], *maps.shape[1:3])}  ({name})", fontsize=9, va="center")
        limit = np.abs(found[0] if name.startswith("conv1") else maps).max()
        for number in range(maps.shape[3]):
            row, column = divmod(number, columns)
            left, bottom = 0.2 + 0.8 / columns * column, top - 0.015 - side * (1 + 1.06 * row)
            axes = figure.add_axes([left, bottom, 0.8 / columns * 0.94, side])
            drawn = axes.imshow(maps[0, :, :, number], cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set_xticks([])
            axes.set_yticks([])
        if name in ("conv1/BiasAdd", "conv2/MaxPool"):
            bar = figure.add_axes([0, bottom + (0.0 if columns == 8 else -0.06), 0.15, 0.015])
            figure.colorbar(drawn, cax=bar, orientation="horizontal")
            bar.set_title(f"{name.split('/')[0]}: white is 0", fontsize=8)
            bar.tick_params(labelsize=8)
        top = bottom - 0.035
    save(figure, path)


def draw_kernels(path, predictor):
    """The kernels of the first convolution as colours: grey is 0, brighter is positive, darker is negative."""
    weights = predictor.session.run("conv1/kernel/read:0")
    if predictor.metadata["channel_order"] == "bgr":
        weights = weights[:, :, ::-1]
    figure = canvas(8.8, 1.7)
    for number in range(weights.shape[3]):
        one = weights[..., number]
        show(figure.add_subplot(1, 6, number + 1), 0.5 + 0.5 * one / np.abs(one).max(), f"kernel {number + 1}")
    figure.subplots_adjust(left=0, right=1, bottom=0, top=0.9, wspace=0.08)
    save(figure, path)


def draw_softmax(path, predictor, image_path, true):
    """Logits, probabilities and cross entropy of an image, computed by TensorFlow's operations."""
    classes = predictor.classes
    label = np.eye(len(classes), dtype=np.float32)[[classes.index(true)]]
    with predictor.graph.as_default():
        fetches = predictor.output, tf.nn.softmax(predictor.output), loss_and_accuracy(predictor.output, label)[0]
    found = predictor.session.run(fetches, {predictor.input: network_input(predictor, image_path)})
    logits, probabilities, (cross_entropy,) = found[0][0], found[1][0], found[2]
    figure = canvas(8.8, 3.4)
    show(figure.add_axes([0, 0.3, 0.17, 0.17 * 8.8 / 3.4]), rgb(image_path), f"a test image: {true}")
    colors = [ORANGE if name == true else BLUE for name in classes]
    for left, title, values in ((0.28, "logits", logits), (0.66, "softmax: probabilities", probabilities)):
        axes = figure.add_axes([left, 0.08, 0.34, 0.74])
        axes.barh(range(len(classes)), values, color=colors)
        axes.set_yticks(range(len(classes)))
        axes.set_yticklabels(classes if title == "logits" else [], fontsize=9)
        axes.invert_yaxis()
        axes.set_title(title, fontsize=10)
        room = 0.22 * (values.max() - min(0, values.min()))
        axes.set_xlim(min(0, values.min()) - room * (values.min() < 0), values.max() + room)
        axes.axvline(0, color="black", linewidth=0.8)
        for row, value in enumerate(values):
            text = f" {value:.2f} " if title == "logits" else f" {value:.3f} "
            axes.text(value, row, text, va="center", ha="right" if value < 0 else "left", fontsize=8)
    share = probabilities[classes.index(true)]
    figure.text(
        0.28, 0.95, f"cross entropy = -ln {share:.4f} = {cross_entropy:.3f}; orange: the true class", fontsize=11
    )
    save(figure, path)


def draw_padding(path):
    """A convolution of a 5x5 input with a 3x3 kernel of ones, without and with zero padding."""
    with tf.Graph().as_default(), tf.Session() as session:
        image, ones = INPUT.reshape(1, 5, 5, 1), np.ones((3, 3, 1, 1), np.float32)
        outputs = {name: tf.nn.conv2d(image, ones, [1, 1, 1, 1], name.upper()) for name in ("valid", "same")}
        outputs = session.run(outputs)
    figure = canvas(8.8, 6.5)
    axes = figure.add_axes([0, 0, 1, 1])
    axes.set_xlim(-0.1, 20.1)
    axes.set_ylim(14.1, -0.9)
    axes.set_aspect("equal")
    axes.axis("off")
    for top, name, title in (
        (0, "valid", "no padding, 5x5 becomes 3x3"),
        (6.8, "same", "zeros around the input, 5x5 stays 5x5"),
    ):
        border = 0 if name == "valid" else 1
        axes.text(0, top - 0.4, f'padding "{name.upper()}": {title}', fontsize=11)
        middle = top + 2.5 + border
        draw_cells(axes, 1 - border, top, np.pad(INPUT, border, "constant"), border)
        axes.text(8, middle, r"$\ast$", fontsize=16, ha="center", va="center")
        draw_cells(axes, 9, middle - 1.5, ones[:, :, 0, 0])
        axes.text(13.25, middle, "=", fontsize=16, ha="center", va="center")
        result = outputs[name][0, :, :, 0]
        draw_cells(axes, 14.5, middle - len(result) / 2, result)
        for left, up, side in ((1 - border, top, 3), (14.5, middle - len(result) / 2, 1)):
            axes.add_patch(Rectangle((left, up), side, side, fill=False, edgecolor="tab:red", linewidth=2.5, zorder=3))
    save(figure, path)


def draw_cells(axes, left, top, numbers, border=0):
    """Numbers in squares; those of a border are grey."""
    for (row, column), number in np.ndenumerate(numbers):
        inside = border <= min(row, column) and max(row, column) < len(numbers) - border
        color = "aliceblue" if inside else "0.88"
        axes.add_patch(Rectangle((left + column, top + row), 1, 1, facecolor=color, edgecolor="0.5", linewidth=0.8))
        middle = left + column + 0.5, top + row + 0.5
        axes.text(*middle, f"{number:.0f}", ha="center", va="center", fontsize=10, color="black" if inside else "0.35")


def draw_initialisation(path):
    """Histograms of initial weights from models/layers.py, and of a plain normal distribution."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(0)
        plain = tf.random_normal([200000], stddev=SIGMA)
        truncated = kernel([200000], SIGMA)
        session.run(tf.global_variables_initializer())
        plain, truncated = session.run([plain, truncated])
    figure = canvas(8.8, 3.5)
    axes = figure.add_subplot(1, 1, 1)
    bins = np.arange(-0.45, 0.4501, 0.01)
    axes.hist(plain, bins, color="0.75", label="normal distribution")
    axes.hist(truncated, bins, histtype="step", color=BLUE, linewidth=1.8, label="truncated normal distribution")
    for limit in (-2 * SIGMA, 2 * SIGMA):
        axes.axvline(limit, color="tab:red", linestyle="--", linewidth=1.2)
    axes.plot([], [], "--", color="tab:red", label=rf"2 $\sigma$ = {2 * SIGMA:g}")
    axes.set_xlabel(rf"weight; $\sigma$ = {SIGMA:g}")
    axes.set_ylabel(f"how many of {len(plain):,}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncol=3, frameon=False)
    axes.set_xlim(-0.45, 0.45)
    figure.subplots_adjust(left=0.09, right=0.99)
    save(figure, path)
