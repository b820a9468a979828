"""Some eighty kinds of bad input, each with what is done to the files and how the error line begins."""

import json
import os
import shutil

from tests.conftest import load_graph, run_file, without_checksum

GRAPH, JSON = "weights/lenet5/lenet5.pb", "weights/lenet5/lenet5.json"


def write(path, content):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode("utf-8"))


def edit(path, **changed):
    """Change the values of a JSON file."""
    with open(path) as file:
        content = json.load(file)
    write(path, json.dumps(dict(content, **changed)))


def edit_run(**changed):
    """Change the values of every checkpoint in the record of the run."""
    with open(run_file("run.json")) as file:
        record = json.load(file)
    for name in set(record) - {"history", "time"}:
        record[name].update(changed)
    write(run_file("run.json"), json.dumps(record))


def flip(path, position):
    """Change a byte of a file."""
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 0xFF]))


def cut(path, size):
    with open(path, "r+b") as file:
        file.truncate(size)


def add_operation(name):
    """Write an operation into the graph that is not needed to calculate."""
    graph_def = load_graph(GRAPH)
    graph_def.node.add(name=f"a {name}", op=name)
    write(GRAPH, graph_def.SerializeToString())
    with open(JSON) as file:
        write(JSON, without_checksum(file.read()))


def add_function():
    """Write a function called Relu into the graph: TensorFlow would take it for the operation of that name."""
    with open(GRAPH, "ab") as file:
        file.write(b"\x12\n\n\x08\n\x06\n\x04Relu")  # protocol buffers: what follows is merged with what was there
    with open(JSON) as file:
        write(JSON, without_checksum(file.read()))


def link_to_pipe(path):
    os.mkfifo("pipe")
    os.symlink(os.path.abspath("pipe"), path)


def spoil_class(folder):
    for name in os.listdir(folder):
        write(os.path.join(folder, name), "no image")


TRAIN = "--train_path train --test_path test"
DATA = f"{TRAIN} --batch_size 8 --img_size 16"
# What is done to the folder, the command line, and how the one line begins.
BAD = [
    # the command line
    (None, "trian", "unknown command trian; did you mean train?"),
    (None, "--epochs 3", "unknown argument --epochs; did you mean --num_epoch?"),
    (None, "--batch_size", "argument --batch_size: expected one argument"),
    (None, "predict", "the following arguments are required: IMAGE_OR_FOLDER"),
    (None, "predict test --top 0", "--top: found 0, expected 1 or more"),
    (None, "predict test --top many", "argument --top: invalid int value: 'many'"),
    (None, "evaluate --checkpoint a --weights b", "--checkpoint: found a beside --weights, expected one of them"),
    (None, "export --run 2020", "--run: found no run 2020 with checkpoints in checkpoints/lenet5, expected one of 2"),
    (None, "export --channel_order rgb", "unknown argument --channel_order"),
    (None, "summary --total_class 1", "--total_class: found 1, expected 2 or more"),
    (None, "prepare imagenet", "argument DATASET: invalid choice"),
    (None, "prepare digits --archive x", "--archive: found x, expected none for digits"),
    # settings
    (None, f"{DATA} --model_arch resnet", "setting model_arch: found 'resnet', expected lenet5 or mobilenetv2"),
    (None, f"{DATA} --img_size 15", "setting img_size: found 15, expected 16 or more for lenet5"),
    (None, f"{DATA} --img_size 1e3", "setting img_size: found 1000.0, expected a whole number, 1 to 4096"),
    (None, f"{DATA} --lr 0", "setting lr: found 0, expected a number above 0"),
    (None, f"{DATA} --lr nan", "setting lr: found 'nan', expected a number above 0"),
    (None, f"{DATA} --decay -1", "setting decay: found -1, expected a number above 0"),
    (None, f"{DATA} --batch_size 0", "setting batch_size: found 0, expected a whole number, 1 or more"),
    (None, f"{DATA} --batch_size 99", "setting batch_size: found 99, expected at most 34, the number of training"),
    (
        None,
        f"{DATA} --batch_size {2**31}",
        "setting batch_size: found 2147483648, expected a whole number, 1 to 2147483",
    ),
    (
        None,
        f"{DATA} --batch_size 1{'0' * 30}",
        "setting batch_size: found 1000000000000000000000000000000, expected a whole number, 1 to 2",
    ),
    (
        None,
        f"{DATA} --early_stopping {2**40}",
        f"setting early_stopping: found {2**40}, expected a whole number, 1 to 2147",
    ),
    (None, f"{DATA} --lr 1e40", "setting lr: found 1e+40, expected a number above 0, below 1e+30"),
    (None, f"{DATA} --cache_mb 1e999", "setting cache_mb: found inf, expected a number, 0 or more, below 1e+30"),
    (
        None,
        f"{DATA} --image_normalize_std 1,1,1e9",
        "setting image_normalize_std: found (1, 1, 1000000000.0), expected",
    ),
    (None, "summary --total_class 1000000000", "--total_class: found 1000000000, expected 2 to 100000"),
    (None, f"{DATA} --validation_size 1", "setting validation_size: found 1, expected a fraction above 0 and below 1"),
    (None, f"{DATA} --validation_size .001", "setting validation_size: found 0.001, which leaves 40 training and 0"),
    (None, f"{DATA} --image_normalize_std 0,1,1", "setting image_normalize_std: found (0, 1, 1), expected three"),
    (None, f"{DATA} --image_normalize_mean 1,2", "setting image_normalize_mean: found (1, 2), expected three numbers"),
    (None, f"{DATA} --classes cat", "setting train_path: found one class, cat, in train, expected a folder of images"),
    (None, f"{DATA} --classes cat,cat", "setting classes: found ['cat', 'cat'], expected a list of different names"),
    (None, f"{DATA} --classes cat,cow", "setting train_path: found no folder train/cow, expected one with images"),
    (None, f"{DATA} --total_class 3", "setting total_class: found 3, expected 2, the number of classes"),
    (None, f"{DATA} --keep_runs -1", "setting keep_runs: found -1, expected a whole number, 0 or more, or None"),
    (None, f"{DATA} --checkpoint_minutes 0", "setting checkpoint_minutes: found 0, expected a number above 0"),
    (None, f"{DATA} --pretrained nowhere", "setting pretrained: found nowhere, expected a readable checkpoint"),
    (None, f"{DATA} --checkpoint_dir a*b", "setting checkpoint_dir: found 'a*b', expected the path of a folder"),
    (None, f"{DATA} --weight_dir /dev/null/x", "setting weight_dir: found /dev/null/x, expected a folder that can be"),
    (None, f"{DATA} --tensorboard_dir {JSON}", f"setting tensorboard_dir: found {JSON}, expected a folder that can"),
    (None, f"{DATA} --resume --lr 0.5", "setting lr: found 0.5, expected 0.01; checkpoints/lenet5/2"),
    (None, f"{DATA} --resume --seed 4", "setting seed: found 4, expected 0; checkpoints/lenet5/2"),
    (None, "--resume --checkpoint_dir new", "setting checkpoint_dir: found no run with checkpoints in new"),
    # data
    (None, "--train_path nowhere", "setting train_path: found no folder nowhere, expected one with a folder of images"),
    (None, "--train_path train/cat", "setting train_path: found no class folder in train/cat, expected a folder of"),
    (None, "--train_path .", "setting train_path: found ., expected one with class folders; did you mean ./train?"),
    (lambda: write("train/dog/7.png", b""), DATA, "image train/dog/7.png: found an empty file, expected a PNG, JPEG"),
    (lambda: write("train/dog/7.png", b"GIF89a"), DATA, "image train/dog/7.png: found a GIF, expected a PNG, JPEG"),
    (lambda: cut("train/dog/7.png", 300), DATA, "image train/dog/7.png: found a truncated PNG, expected"),
    (lambda: write("train/dog/x.jpg", b"\xff\xd8\xff\xe0"), DATA, "image train/dog/x.jpg: found a truncated JPEG"),
    (lambda: link_to_pipe("train/dog/x.png"), DATA, "image train/dog/x.png: found a device or a pipe, expected a file"),
    (lambda: os.symlink("/dev/zero", "train/dog/x.png"), DATA, "image train/dog/x.png: found a device or a pipe"),
    (lambda: os.symlink("gone", "train/dog/x.png"), DATA, "image train/dog/x.png: cannot be read (No such file or"),
    (lambda: os.mkdir("train/owl"), DATA, "setting train_path: found no images in class folder train/owl, expected"),
    (lambda: os.rename("train/dog", "train/d\ng"), DATA, "setting classes: found ['cat', 'd\\ng'], expected a list of"),
    (
        lambda: os.rename("test", "t") or os.mkdir("test"),
        "evaluate --test_path test",
        "setting test_path: found no folder test/cat, exp",
    ),
    (None, "evaluate --test_path nowhere", "setting test_path: found no folder nowhere, expected one with a folder"),
    (lambda: os.mkdir("empty"), "predict empty", "folder empty: found no images, expected files ending in .png"),
    (lambda: spoil_class("train/dog"), f"{DATA} --bad_images skip", "setting train_path: found no readable image of"),
    (
        lambda: shutil.copytree("test", "v") and spoil_class("v/cat") or spoil_class("v/dog"),
        f"{DATA} --bad_images skip --valid_path v",
        "setting valid_path: found no readable image of cat in v, expected some",
    ),
    (None, "check --train_path nowhere --test_path test", "setting train_path: found no folder nowhere, expected one"),
    (
        lambda: os.mkfifo("p.png"),
        f"check {TRAIN} --output p.png",
        "file p.png: found a folder, a device or a pipe, exp",
    ),
    # checkpoints and their record
    (None, "evaluate --checkpoint nowhere", "checkpoint: found nowhere, expected a readable checkpoint"),
    (None, "export --checkpoint_dir train", "setting checkpoint_dir: found no run with checkpoints in train"),
    (lambda: cut(run_file("*.data*"), 100), "export", "checkpoint: found checkpoints/lenet5/2"),
    (lambda: flip(run_file("*.data*"), 99), "export", "checkpoint: found checkpoints/lenet5/2"),
    (lambda: cut(run_file("*.index"), 0), "export", "checkpoint: found checkpoints/lenet5/2"),
    (lambda: os.remove(run_file("*.data*")), "export", "checkpoint: found checkpoints/lenet5/2"),
    (lambda: write(run_file("run.json"), "{"), "export", "metadata checkpoints/lenet5/2"),
    (lambda: write(run_file("run.json"), "[]"), "--resume", "metadata checkpoints/lenet5/2"),
    (lambda: write(run_file("run.json"), b"\xff\xfe"), "export", "metadata checkpoints/lenet5/2"),
    (lambda: edit_run(settings=[]), "export", "setting checkpoint_dir: found no run with checkpoints in checkpoints"),
    (lambda: edit_run(settings={"img_size": -4}), "export", "checkpoint checkpoints/lenet5/2"),
    (lambda: edit_run(progress={"epoch": "one"}), "--resume", "setting checkpoint_dir: found no checkpoint to resume"),
    # graphs and their JSON
    (None, "predict test --weights nowhere.pb", "graph nowhere.pb: cannot be read (No such file or directory)"),
    (None, "predict test --weights test", "graph test: cannot be read (Is a directory)"),
    (None, "predict test --weights /dev/zero", "graph /dev/zero: found a device or a pipe, expected a file"),
    (lambda: flip(GRAPH, 5000), "predict test", f"graph {GRAPH}: found a graph that does not match its JSON"),
    (lambda: cut(GRAPH, 5000), "predict test", f"graph {GRAPH}: found a file that is corrupt, truncated or "),
    (lambda: write(GRAPH, b""), "evaluate", f"graph {GRAPH}: found a graph that does not match its JSON"),
    (lambda: add_operation("WriteFile"), "predict test", f"graph {GRAPH}: found WriteFile in it, expected operations"),
    (lambda: add_operation("PyFunc"), "evaluate", f"graph {GRAPH}: found PyFunc in it, expected operations that"),
    (add_function, "predict test", f"graph {GRAPH}: found Relu in it, expected operations"),
    (lambda: os.remove(JSON), "predict test", f"metadata {JSON}: cannot be read (No such file or directory); python"),
    (lambda: write(JSON, "{"), "predict test", f"metadata {JSON}: found a file that is not JSON; python"),
    (lambda: write(JSON, b"\xff"), "predict test", f"metadata {JSON}: found a file that is not JSON; python"),
    (lambda: write(JSON, "[" * 99999), "predict test", f"metadata {JSON}: found a file that is not JSON; python"),
    (lambda: edit(JSON, classes=["a", "\x1b[2J"]), "predict test", f"metadata {JSON}: found ['a', '\\x1b[2J'] for cla"),
    (lambda: edit(JSON, classes=["a", "\ud800"]), "predict test", f"metadata {JSON}: found ['a', '\\ud800'] for class"),
    (lambda: edit(JSON, output={"name": "output", "shape": [None, 2.0]}), "predict test", f"metadata {JSON}: found {{"),
    (lambda: edit(JSON, output={"name": "a\0b", "shape": [None, 2]}), "predict test", f"graph {GRAPH}: found no opera"),
    (lambda: edit(JSON, output={"name": "\ud800", "shape": [None, 2]}), "predict test", f"graph {GRAPH}: found no ope"),
    (lambda: edit(JSON, input={"name": "Image", "shape": [None, 9e9]}), "predict test", f"metadata {JSON}: found {{"),
    (lambda: edit(JSON, image_normalize_std=[1, 2, float("nan")]), "predict test", f"metadata {JSON}: found [1, 2, n"),
    (
        lambda: edit(JSON, image_normalize_std=[0, 1, 1]),
        "predict test",
        f"metadata {JSON}: found [0, 1, 1] for image_no",
    ),
    (lambda: edit(JSON, image_normalize_mean=[-1e9] * 3), "predict test", f"metadata {JSON}: found [-1000000000.0, -1"),
    (
        lambda: edit(JSON, input={"name": "Image", "shape": [None, 10**9, 10**9, 3]}),
        "explain test",
        f"metadata {JSON}: ",
    ),
    (
        lambda: edit(JSON, classes=list(map(str, range(10**6)))),
        "predict test",
        f"metadata {JSON}: found ['0', '1', '2',",
    ),
    (lambda: edit(JSON, classes=["a", 10**400]), "predict test", f"metadata {JSON}: found ['a', 1000000"),
    (
        lambda: edit(JSON, val_acc=float("nan"), run=10**400),
        "evaluate --test_path nowhere",
        "setting test_path: found no folder nowhere",
    ),
    (lambda: edit(JSON, channel_order=None), "evaluate", f"metadata {JSON}: found None for channel_order, expected"),
]
