"""The pictures of the guide, made from real images and real trainings: make figures

Wants data/cifar10png, which `python run.py prepare cifar10` makes. Trains LeNet5 on it twice, with the learning rates
0.01 and 0.003, into docs/figures/.run, in some five minutes on two cores; where that was done before, it only draws.

    first, curves, confusion, mistakes, train_batch   what the training with 0.01 left, and its evaluation
    explanation, feature_maps, kernels, softmax       what its exported graph does with test images
    learning_rate, initialisation, padding            what TensorFlow's own operations give
    augmentation, overfitting                         images as a training sees them; two runs of docs/results
    tensorboard, tensorboard_graph                    screenshots, if there is a Chromium on PATH

The table of MobileNetV2's blocks in docs/networks.md is made as well. of_network.py and of_training.py draw.
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

import of_network  # noqa: E402
import of_training  # noqa: E402
import screenshots  # noqa: E402

from models.mobilenetv2 import BOTTLENECKS  # noqa: E402
from src.settings import settings  # noqa: E402
from trainer import Trainer  # noqa: E402
from utils.commands.summary import layers  # noqa: E402
from utils.images.image_folders import list_images  # noqa: E402
from utils.inference.predictor import load  # noqa: E402

DATA = "data/cifar10png"
RUN = "docs/figures/.run"
TRAINING = ("--augment", "crop+flip", "--num_epoch", "30")
COMPARED = ("--augment", "crop+flip", "--num_epoch", "15", "--lr", "0.003")
EXPLAINED = (("automobile", 5), ("ship", 5), ("horse", 0), ("bird", 10))  # class and number of test images


def main():
    os.chdir(ROOT)
    if not os.path.isdir(DATA):
        print(f"error: found no folder {DATA}; python run.py prepare cifar10 makes it", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which ends the training that is running
    graph = trained("lr-0.01", *TRAINING)
    trained("lr-0.003", *COMPARED)
    evaluated("lr-0.01")
    predictor = load(graph)
    draw_run(graph, predictor.metadata["run"]["run_folder"])
    draw_network(predictor)
    draw_training()
    screenshots.take(f"{RUN}/graphs", picture("tensorboard"), picture("tensorboard_graph"))
    write_table()
    return 0


def picture(name):
    return os.path.join(HERE, f"{name}.png")


def run(*words, folder=ROOT):
    print("+ python run.py", *words, flush=True)
    subprocess.run([sys.executable, os.path.join(ROOT, "run.py"), *words], check=True, cwd=folder)


def folder_of(kind, name):
    return f"{RUN}/{kind}/{name}"


def trained(name, *words):
    """The graph of a training in folders of that name; it is trained unless that was done before."""
    graph = f"{folder_of('weights', name)}/lenet5.pb"
    if not os.path.exists(graph):
        folders = {"checkpoint_dir": "checkpoints", "weight_dir": "weights", "tensorboard_dir": "graphs"}
        for setting, kind in folders.items():
            shutil.rmtree(folder_of(kind, name), ignore_errors=True)  # of a training that was interrupted
            words += (f"--{setting}", folder_of(kind, name))
        run(*words)
    return graph


def evaluated(name):
    """Evaluate that training's graph, unless that was done before."""
    with open(f"{folder_of('weights', name)}/lenet5.json", encoding="utf-8") as file:
        folder = json.load(file)["run"]["run_folder"]
    if not os.path.exists(os.path.join(folder, "evaluation.txt")):
        weights, graphs = folder_of("weights", name), folder_of("graphs", name)
        run("evaluate", "--weight_dir", weights, "--tensorboard_dir", graphs)


def draw_run(graph, folder):
    """What the training left in its folder, and the heat maps of its graph."""
    for name in ("curves", "confusion", "mistakes", "train_batch"):
        shutil.copyfile(os.path.join(folder, f"{name}.png"), picture(name))
    of_training.draw_first(picture("first"), folder)
    test = os.path.abspath(f"{DATA}/test")  # from there, so that the picture has short names
    images = [os.path.relpath(image_of(*chosen), test) for chosen in EXPLAINED]
    run("explain", *images, "--weights", os.path.abspath(graph), "--output", picture("explanation"), folder=test)


def image_of(name, number, part="test"):
    """An image of a class."""
    return list_images(f"{DATA}/{part}/{name}")[0][number]


def draw_network(predictor):
    of_network.draw_feature_maps(picture("feature_maps"), predictor, image_of("airplane", 9))
    of_network.draw_kernels(picture("kernels"), predictor)
    of_network.draw_softmax(picture("softmax"), predictor, image_of("horse", 4), "horse")
    of_network.draw_padding(picture("padding"))
    of_network.draw_initialisation(picture("initialisation"))


def draw_training():
    folder = f"{RUN}/unused"  # nothing is trained
    folders = {"checkpoint_dir": folder, "weight_dir": folder, "tensorboard_dir": folder}
    trainer = Trainer(augment="crop+flip", num_epoch=30, **folders)
    of_training.draw_learning_rate(picture("learning_rate"), trainer)
    of_training.draw_augmentation(picture("augmentation"), trainer.config, image_of("horse", 6, "train"))
    trainer.close()
    of_training.draw_overfitting(picture("overfitting"))


def blocks_table(img_size=224):
    """In Markdown: multiply-adds of MobileNetV2's blocks, the first and the last of each stage; of a plain 3x3
    convolution from the same input to the same output; of the block if its 3x3 convolution were not depthwise."""
    config = settings(model_arch="mobilenetv2", img_size=img_size, classes=list("0123456789"))
    products, outputs, others = {}, {}, {}
    for name, shape, _, count in layers(config):
        block = name.split("/")[0]
        products[block] = products.get(block, 0) + count
        outputs[block] = shape
        # For each channel of its output, one that is not depthwise sums over all channels, not over one.
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
    """Print the table, and put it between its marks in docs/networks.md, if there are such."""
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
