"""Generate the figures of the documentation from real images and training runs: make figures

Needs data/cifar10png from `python run.py prepare cifar10`. Trains LeNet-5 on it twice, with learning rates 0.01 and
0.003, into docs/figures/.run, in about five minutes on two cores; existing runs are used again.

    first, curves, confusion, mistakes, train_batch   outputs of the run with 0.01, and of its evaluation
    explanation, feature_maps, kernels, softmax       its exported graph on test images
    learning_rate, initialisation, padding            results of TensorFlow's operations
    augmentation, overfitting                         augmented images; two runs of docs/results
    tensorboard, tensorboard_graph                    screenshots, if Chromium is on PATH

Also generates the table of MobileNetV2's blocks in docs/networks.md. network_figures.py and training_figures.py draw.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, ROOT)

import network_figures  # noqa: E402
import screenshots  # noqa: E402
import training_figures  # noqa: E402

from models.mobilenetv2 import BOTTLENECKS  # noqa: E402
from src.settings import settings  # noqa: E402
from trainer import Trainer  # noqa: E402
from utils.commands.summary import layers  # noqa: E402
from utils.images.image_folders import list_images  # noqa: E402
from utils.inference.predictor import Predictor  # noqa: E402

DATA = "data/cifar10png"
RUN = "docs/figures/.run"
TRAINING = ("--augment", "crop+flip", "--num_epoch", "30")
COMPARED = ("--augment", "crop+flip", "--num_epoch", "15", "--lr", "0.003")
EXPLAINED = (("automobile", 5), ("ship", 5), ("horse", 0), ("bird", 10))  # class and number of each test image


def main():
    os.chdir(ROOT)
    if not os.path.isdir(DATA):
        print(f"error: found no folder {DATA}; python run.py prepare cifar10 makes it", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which stops the running training
    graph = train_once("lr-0.01", *TRAINING)
    train_once("lr-0.003", *COMPARED)
    evaluate_once("lr-0.01")
    predictor = Predictor(graph)
    draw_run(graph, predictor.metadata["run"]["run_folder"])
    draw_network(predictor)
    draw_training()
    screenshots.take(f"{RUN}/graphs", figure_path("tensorboard"), figure_path("tensorboard_graph"))
    write_table()
    return 0


def figure_path(name):
    return os.path.join(HERE, f"{name}.png")


def run(*words, folder=ROOT):
    print("+ python run.py", *words, flush=True)
    subprocess.run([sys.executable, os.path.join(ROOT, "run.py"), *words], check=True, cwd=folder)


def folder_of(kind, name):
    return f"{RUN}/{kind}/{name}"


def train_once(name, *words):
    """The path of the exported graph of a run with these options, which is trained unless it exists."""
    graph = f"{folder_of('weights', name)}/lenet5.pb"
    if not os.path.exists(graph):
        folders = {"checkpoint_dir": "checkpoints", "weight_dir": "weights", "tensorboard_dir": "graphs"}
        for setting, kind in folders.items():
            shutil.rmtree(folder_of(kind, name), ignore_errors=True)  # of an interrupted training
            words += (f"--{setting}", folder_of(kind, name))
        run(*words)
    return graph


def evaluate_once(name):
    """Evaluate the graph of a run, unless its evaluation exists."""
    with open(f"{folder_of('weights', name)}/lenet5.json", encoding="utf-8") as file:
        folder = json.load(file)["run"]["run_folder"]
    if not os.path.exists(os.path.join(folder, "evaluation.txt")):
        weights, graphs = folder_of("weights", name), folder_of("graphs", name)
        run("evaluate", "--weight_dir", weights, "--tensorboard_dir", graphs)


def draw_run(graph, folder):
    """The figures of a run, and Grad-CAM heat maps of its graph."""
    for name in ("curves", "confusion", "mistakes", "train_batch"):
        shutil.copyfile(os.path.join(folder, f"{name}.png"), figure_path(name))
    training_figures.draw_first(figure_path("first"), folder)
    test = os.path.abspath(f"{DATA}/test")  # run from there, so that the names in the figure are short
    images = [os.path.relpath(image_of(*chosen), test) for chosen in EXPLAINED]
    run("explain", *images, "--weights", os.path.abspath(graph), "--output", figure_path("explanation"), folder=test)


def image_of(name, number, part="test"):
    """The path of an image of a class."""
    return list_images(f"{DATA}/{part}/{name}")[0][number]


def draw_network(predictor):
    network_figures.draw_feature_maps(figure_path("feature_maps"), predictor, image_of("airplane", 9))
    network_figures.draw_kernels(figure_path("kernels"), predictor)
    network_figures.draw_softmax(figure_path("softmax"), predictor, image_of("horse", 4), "horse")
    network_figures.draw_padding(figure_path("padding"))
    network_figures.draw_initialisation(figure_path("initialisation"))


def draw_training():
    folder = f"{RUN}/unused"  # nothing is trained
    folders = {"checkpoint_dir": folder, "weight_dir": folder, "tensorboard_dir": folder}
    trainer = Trainer(augment="crop+flip", num_epoch=30, **folders)
    training_figures.draw_learning_rate(figure_path("learning_rate"), trainer)
    training_figures.draw_augmentation(figure_path("augmentation"), trainer.config, image_of("horse", 6, "train"))
    trainer.close()
    training_figures.draw_overfitting(figure_path("overfitting"))


def blocks_table(img_size=224):
    """In Markdown: multiply-adds of MobileNetV2's blocks (the first and the last of each stage), of a plain 3x3
    convolution of the same shapes, and of the block if its 3x3 convolution were not depthwise."""
    config = settings(model_arch="mobilenetv2", img_size=img_size, classes=list("0123456789"))
    products, outputs, others = {}, {}, {}
    for name, shape, _, count in layers(config):
        block = name.split("/")[0]
        products[block] = products.get(block, 0) + count
        outputs[block] = shape
        # Each output of a convolution that is not depthwise is a sum over all channels, not over one.
        others[block] = others.get(block, 0) + count * (shape[2] if name.endswith("/depthwise") else 1)
    heading = "stage | block | input | output | multiply-adds | plain 3x3 convolution | same block, 3x3 not depthwise"
    lines = [f"| {heading} |", "|---" * 7 + "|"]
    last, before = 0, outputs["first"]
    for stage, (_, _, times) in enumerate(BOTTLENECKS, 1):
        first, last = last + 1, last + times
        for number in range(first, last + 1):
            after, count = outputs[f"block{number}"], products[f"block{number}"]
            height, width, depth = after
            plain = height * width * depth * 9 * before[2]
            if number in (first, last):
                other = " | ".join(f"{n:,} ({n / count:.1f})" for n in (plain, others[f"block{number}"]))
                shapes = " | ".join("x".join(map(str, shape)) for shape in (before, after))
                lines.append(f"| {stage} | {number} | {shapes} | {count:,} | {other} |")
            before = after
    return "\n".join(lines)


def write_table():
    """Print the table, and insert it between its markers in docs/networks.md."""
    table, path = blocks_table(), os.path.join("docs", "networks.md")
    print(table)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        marks = re.compile(r"(<!-- table: mobilenetv2 -->\n).*?(<!-- end -->)", re.DOTALL)
        with open(path, "w", encoding="utf-8") as file:
            file.write(marks.sub(lambda found: f"{found.group(1)}{table}\n{found.group(2)}", text))


if __name__ == "__main__":
    sys.exit(main())
