"""Whatever is wrong, the command line says so in one line, with exit code 2; nothing is lost or left half written."""

import json
import os
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, strategies
from hypothesis import settings as example_settings

import run
from src.errors import InputError
from src.settings import SETTINGS, settings
from src.tf1 import tf
from tests.conftest import REPOSITORY, load_graph, preprocess, python, run_file, without_checksum
from utils.commands.prepare import prepare_cifar10
from utils.files import atomic_folder

GRAPH, JSON = "weights/lenet5/lenet5.pb", "weights/lenet5/lenet5.json"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with images of two classes and a network that was trained on them."""
    folder = tmp_path_factory.mktemp("prepared")
    random = np.random.RandomState(0)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            os.makedirs(str(folder / part / name))
            for number in range(20):
                pixels = random.randint(0, 256, (16, 16, 3)) // 8 + 220 * (name == "dog")  # one epoch tells them apart
                cv2.imwrite(str(folder / part / name / f"{number}.png"), pixels.astype(np.uint8))
    paths = ["--train_path", "train", "--test_path", "test", "--img_size", "16", "--batch_size", "8"]
    done = python(os.path.join(REPOSITORY, "run.py"), *paths, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def work(prepared, tmp_path, monkeypatch):
    """A copy of it, in which a test works."""
    shutil.copytree(str(prepared), str(tmp_path / "work"))
    monkeypatch.chdir(str(tmp_path / "work"))
    return tmp_path / "work"


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
    (None, f"{DATA} --pretrained nowhere", "setting pretrained: found nowhere, expected checkpoints that can be read"),
    (None, f"{DATA} --checkpoint_dir a*b", "setting checkpoint_dir: found 'a*b', expected the path of a folder"),
    (None, f"{DATA} --weight_dir /dev/null/x", "setting weight_dir: found /dev/null/x, expected a folder that can be"),
    (None, f"{DATA} --tensorboard_dir {JSON}", f"setting tensorboard_dir: found {JSON}, expected a folder that can"),
    (None, f"{DATA} --resume --lr 0.5", "setting lr: found 0.5, expected 0.01: checkpoints/lenet5/2"),
    (None, f"{DATA} --resume --seed 4", "setting seed: found 4, expected 0: checkpoints/lenet5/2"),
    (None, "--resume --checkpoint_dir new", "setting checkpoint_dir: found no run with checkpoints in new"),
    # data
    (None, "--train_path nowhere", "setting train_path: found no folder nowhere, expected one with a folder of images"),
    (None, "--train_path train/cat", "setting train_path: found no class folder in train/cat, expected a folder of"),
    (None, "--train_path .", "setting train_path: found ., expected one with class folders; did you mean ./train?"),
    (lambda: write("train/dog/7.png", b""), DATA, "image train/dog/7.png: found an empty file, expected a PNG, JPEG"),
    (lambda: write("train/dog/7.png", b"GIF89a"), DATA, "image train/dog/7.png: found a GIF, expected a PNG, JPEG"),
    (lambda: cut("train/dog/7.png", 300), DATA, "image train/dog/7.png: found a PNG that is cut short, expected"),
    (lambda: write("train/dog/x.jpg", b"\xff\xd8\xff\xe0"), DATA, "image train/dog/x.jpg: found a JPEG that is"),
    (lambda: link_to_pipe("train/dog/x.png"), DATA, "image train/dog/x.png: found a device or a pipe, expected a file"),
    (lambda: os.symlink("/dev/zero", "train/dog/x.png"), DATA, "image train/dog/x.png: found a device or a pipe"),
    (lambda: os.symlink("gone", "train/dog/x.png"), DATA, "image train/dog/x.png: cannot be read (No such file or"),
    (lambda: os.mkdir("train/owl"), DATA, "setting train_path: found no images in class folder train/owl, expected"),
    (lambda: os.rename("train/dog", "train/d\ng"), DATA, "setting classes: found ['cat', 'd\\ng'], expected a list of"),
    (
        lambda: os.rename("test", "t") or os.mkdir("test"),
        "evaluate",
        "setting test_path: found no folder test/cat, exp",
    ),
    (None, "evaluate --test_path nowhere", "setting test_path: found no folder nowhere, expected one with a folder"),
    (lambda: os.mkdir("empty"), "predict empty", "folder empty: found no images, expected files ending in .png"),
    (lambda: spoil_class("train/dog"), f"{DATA} --bad_images skip", "setting train_path: found no image of dog"),
    (
        lambda: shutil.copytree("test", "v") and spoil_class("v/cat") or spoil_class("v/dog"),
        f"{DATA} --bad_images skip --valid_path v",
        "setting valid_path: found no image of cat that can be read in v, expected some",
    ),
    (None, "check --train_path nowhere --test_path test", "setting train_path: found no folder nowhere, expected one"),
    (lambda: os.mkfifo("pipe"), f"check {TRAIN} --output pipe", "file pipe: found a folder, a device or a pipe, exp"),
    # checkpoints and their record
    (None, "evaluate --checkpoint nowhere", "checkpoint: found nowhere, expected checkpoints that can be read"),
    (None, "export --checkpoint_dir train", "setting checkpoint_dir: found no run with checkpoints in train"),
    (lambda: cut(run_file("*.data*"), 100), "export", "checkpoint: found checkpoints/lenet5/2"),
    (lambda: flip(run_file("*.data*"), 99), "export", "checkpoint: found checkpoints/lenet5/2"),
    (lambda: cut(run_file("*.index"), 0), "export", "checkpoint: found checkpoints/lenet5/2"),
    (lambda: os.remove(run_file("*.data*")), "export", "checkpoint: found checkpoints/lenet5/2"),
    (lambda: write(run_file("run.json"), "{"), "export", "record checkpoints/lenet5/2"),
    (lambda: write(run_file("run.json"), "[]"), "--resume", "record checkpoints/lenet5/2"),
    (lambda: write(run_file("run.json"), b"\xff\xfe"), "export", "record checkpoints/lenet5/2"),
    (lambda: edit_run(settings=[]), "export", "setting checkpoint_dir: found no run with checkpoints in checkpoints"),
    (lambda: edit_run(settings={"img_size": -4}), "export", "checkpoint checkpoints/lenet5/2"),
    (lambda: edit_run(progress={"epoch": "one"}), "--resume", "setting checkpoint_dir: found no checkpoint to resume"),
    # graphs and their JSON
    (None, "predict test --weights nowhere.pb", "graph nowhere.pb: cannot be read (No such file or directory)"),
    (None, "predict test --weights test", "graph test: cannot be read (Is a directory)"),
    (None, "predict test --weights /dev/zero", "graph /dev/zero: found a device or a pipe, expected a file"),
    (lambda: flip(GRAPH, 5000), "predict test", f"graph {GRAPH}: found a graph that is not the one its JSON describes"),
    (lambda: cut(GRAPH, 5000), "predict test", f"graph {GRAPH}: found a file that is damaged, cut short or no graph"),
    (lambda: write(GRAPH, b""), "evaluate", f"graph {GRAPH}: found a graph that is not the one its JSON describes"),
    (lambda: add_operation("WriteFile"), "predict test", f"graph {GRAPH}: found WriteFile in it, expected operations"),
    (lambda: add_operation("PyFunc"), "evaluate", f"graph {GRAPH}: found PyFunc in it, expected operations that"),
    (add_function, "predict test", f"graph {GRAPH}: found Relu in it, expected operations"),
    (lambda: os.remove(JSON), "predict test", f"metadata {JSON}: cannot be read (No such file or directory), expected"),
    (lambda: write(JSON, "{"), "predict test", f"metadata {JSON}: found a file that is not JSON, expected the"),
    (lambda: write(JSON, b"\xff"), "predict test", f"metadata {JSON}: found a file that is not JSON, expected the"),
    (lambda: write(JSON, "[" * 99999), "predict test", f"metadata {JSON}: found a file that is not JSON, expected"),
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


def snapshot():
    """{path: content} of what is in the folder, but for logs, the lock and the name of the newest run."""
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(".") for name in names]
    paths = [path for path in paths if os.path.isfile(path) and not path.startswith("./graphs")]
    contents = {}
    for path in paths:
        with open(path, "rb") as file:
            contents[path] = file.read()
    return {path: content for path, content in contents.items() if os.path.basename(path) not in ("lock", "checkpoint")}


@pytest.mark.parametrize("damage, arguments, expected", BAD)
def test_bad_input_is_one_line_and_changes_nothing(work, capfd, damage, arguments, expected):
    if damage:
        damage()
    before = snapshot()
    code = run.main(arguments.split())
    errors = capfd.readouterr().err
    assert errors.startswith(f"error: {expected}")
    assert (code, errors.count("\n"), "Traceback" in errors) == (2, 1, False)
    after = snapshot()
    assert {path: after.get(path) for path in before} == before
    # What was learned before a broken image was met is kept, in the folder of a run of its own.
    new = [path for path in after if path not in before]
    assert all(re.match(r"./checkpoints/lenet5/2[^/]*/(run.json|lenet5-\d+\.[\w-]+)$", path) for path in new)


def test_there_are_as_many_cases_as_were_asked_for():
    assert len(BAD) >= 60


CONFIG = [
    ("lr = 0.01", "lr = = 0.01", r"error: src/config.py, line \d+: invalid syntax"),
    ("lr = 0.01", "lr = 0.01 +", r"error: src/config.py, line \d+: invalid syntax"),
    ("lr = 0.01", "  lr = 0.01", r"error: src/config.py, line \d+: unexpected indent"),
    ("lr = 0.01", "import nowhere", r"error: src/config.py, line \d+: No module named 'nowhere'"),
    ("lr = 0.01", "lr = rate", r"error: src/config.py, line \d+: name 'rate' is not defined"),
    ("lr = 0.01", "# lr = 0.01", r"error: src/config.py: found no lr, expected a value for it"),
    ("lr = 0.01", "lr = '\udcff'", r"error: src/config.py.*: .*(utf-8|Non-UTF-8)"),
    ("MODEL_ARCHS =", "_MODEL_ARCHS =", r"error: src/config.py.*MODEL_ARCHS"),
    ("weight_decay = MODEL", "weight_decay = 1 / 0 * MODEL", r"error: src/config.py, line \d+: division by zero"),
    ("lr = 0.01", "raise SystemExit(0)", r"error: src/config.py, line \d+: 0"),
    ("lr = 0.01", "lr = 10**5000", r"error: setting lr: found a huge number, expected a number above 0"),
    (
        '"lenet5": {',
        "5: {",
        r"error: src/config.py: MODEL_ARCHS: expected the names of networks, each with min_img_size",
    ),
    (
        '"min_img_size": 16',
        '"min_img_size": "16"',
        r"error: src/config.py: MODEL_ARCHS: expected the names of networks",
    ),
    ('"img_size": 32, ', "", r"error: src/config.py: MODEL_ARCHS: expected the names of networks"),
    ("def model_defaults", "def _model_defaults", r"error: src/config.py: found no model_defaults"),
    ("lr = 0.01", "lr = 0.01\nlearning_rate = 1", r"error: src/config.py: unknown setting learning_rate"),
]


@pytest.mark.parametrize("old, new, expected", CONFIG)
def test_a_wrong_config_is_one_line_with_its_number(tmp_path, old, new, expected):
    shutil.copytree(os.path.join(REPOSITORY, "src"), str(tmp_path / "src"))
    shutil.copytree(os.path.join(REPOSITORY, "utils"), str(tmp_path / "utils"))
    shutil.copy(os.path.join(REPOSITORY, "run.py"), str(tmp_path))
    path = tmp_path / "src" / "config.py"
    text = path.read_text()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode("utf-8", "surrogateescape"))
    done = subprocess.run([sys.executable, "run.py"], cwd=str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    errors = done.stderr.decode("utf-8", "replace")
    assert done.returncode == 2 and done.stdout == b"" and re.match(expected, errors) and errors.count("\n") == 1


def test_numbers_of_numpy_are_numbers_in_the_config(monkeypatch):
    import src.config as config

    monkeypatch.setitem(vars(config), "lr", np.float32(0.01))
    monkeypatch.setitem(vars(config), "image_normalize_mean", np.array([0.5, 0.5, 0.5]))
    assert settings().lr == pytest.approx(0.01) and isinstance(settings().lr, float)
    assert settings().image_normalize_mean == [0.5, 0.5, 0.5]


def test_a_graph_that_could_write_files_does_not_until_it_is_trusted(work):

    def output(image):
        with tf.control_dependencies([tf.write_file("written", "by the graph")]):
            return tf.reduce_sum(image, [1, 2])[:, :2]

    make_graph(output)
    assert run.main(["predict", "test"]) == 2
    assert not os.path.exists("written")
    assert run.main(["predict", "test", "--trust_graph"]) == 0
    assert os.path.exists("written")


@pytest.mark.parametrize("kept", ["json", "pb"])
def test_files_of_two_exports_are_not_taken_for_one(work, kept):
    """As a process leaves them that was killed between the two."""
    path = f"weights/lenet5/lenet5.{kept}"
    shutil.copy(path, "before")
    assert run.main([*DATA.split(), "--seed", "1"]) == 0
    shutil.copy("before", path)
    assert run.main(["predict", "test"]) == 2
    assert run.main(["export"]) == 0
    assert run.main(["predict", "test"]) == 0


@pytest.mark.parametrize("folder", ["precious", "graphs/lenet5/..", "graphs/lenet5/.", "graphs/lenet5/../../precious"])
def test_a_json_from_elsewhere_does_not_decide_where_evaluate_writes(work, capsys, folder):
    os.mkdir("precious")
    before = os.listdir("graphs")
    edit(JSON, run={"run_folder": folder, "test_path": "test"})
    assert run.main(["evaluate"]) == 0
    assert os.listdir("precious") == [] and os.listdir("graphs") == before
    assert "written to graphs/lenet5/2" in capsys.readouterr().out
    assert run.main([*DATA.split(), "--seed", "1"]) == 0  # which moves that graph aside
    assert sorted(os.listdir("weights")) == ["lenet5"]


def make_graph(output):
    """Write a graph of which `output` makes the logits of two classes, without a checksum."""
    with tf.Graph().as_default():
        image = tf.placeholder(tf.float32, [None, 16, 16, 3], name="Image")
        tf.identity(output(image), name="output")
        write(GRAPH, tf.get_default_graph().as_graph_def().SerializeToString())
    with open(JSON) as file:
        write(JSON, without_checksum(file.read()))


@pytest.mark.parametrize("output, expected", [
    (lambda image: tf.reshape(tf.reduce_mean(image, [1, 2, 3]) * [[1.0, 2.0]], [1, 2]), "found an output|cannot be"),
    (lambda image: tf.reduce_sum(image, [1, 2])[:, :2] / 0.0, "found logits that are no finite numbers"),
    (lambda image: tf.nn.conv2d(image, tf.zeros([0, 3, 3, 2]), [1, 1, 1, 1], "SAME")[:, 0, 0], "that are not empty"),
])  # fmt: skip
@pytest.mark.parametrize("verb", ["predict test", "evaluate"])
def test_graphs_that_calculate_nonsense(work, capfd, verb, output, expected):
    make_graph(output)
    assert run.main(verb.split()) == 2
    errors = capfd.readouterr().err
    assert errors.startswith(f"error: graph {GRAPH}: ") and errors.count("\n") == 1 and re.search(expected, errors)


def test_a_full_or_lost_log_does_not_cost_the_graph(work, monkeypatch, capfd):
    write("graphs_are_lost", "")
    steps, train_step = [], run.__dict__.get("trainer")
    from trainer import Trainer

    train_step = Trainer._train_step

    def losing(trainer, batch, reporter):
        wishes = train_step(trainer, batch, reporter)
        steps.append(trainer.step)
        if len(steps) == 5:
            shutil.rmtree("graphs")
            write("graphs", "no folder any more")
        return wishes

    monkeypatch.setattr(Trainer, "_train_step", losing)
    assert run.main([*DATA.split(), "--num_epoch", "3", "--seed", "3"]) == 2
    output = capfd.readouterr()
    assert output.err.startswith("error: setting tensorboard_dir: the log in graphs/lenet5/2")
    assert output.err.count("\n") == 1 and "epoch 3/3" in output.out and f"graph            {GRAPH}" in output.out
    assert run.main(["predict", "test"]) == 0


@pytest.mark.parametrize("what", ["checkpoint_dir", "tensorboard_dir", "weight_dir"])
def test_a_full_disk_is_one_line_and_leaves_what_was_there(work, capfd, what):
    if not shutil.which("mount"):
        pytest.skip("there is no program mount")
    os.mkdir("disk")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "disk"], stderr=subprocess.PIPE)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.decode().strip()}")
    try:
        arguments = [*DATA.split(), f"--{what}", f"disk/{what}"]
        assert run.main(arguments) == 0
        size = os.statvfs("disk").f_bavail * os.statvfs("disk").f_frsize
        write("disk/filling", b"\0" * (size - 8192))
        before = {path: content for path, content in snapshot().items() if what in path}
        assert run.main([*arguments, "--seed", "1"]) == 2
        errors = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("note: ")]
        assert len(errors) == 1 and "No space left on device" in errors[0]
        after = snapshot()
        assert all(after[path] == content for path, content in before.items())
        assert not [path for path in after if what in path and re.search("tempstate|partial", path)]
    finally:
        subprocess.run(["umount", "disk"], check=True)


@pytest.mark.parametrize("environment, verbs", [
    ({"LC_ALL": "C", "PYTHONIOENCODING": ""}, [["predict", "test/cat"], ["runs"]]),
    ({"PYTHONIOENCODING": "ascii"}, [["evaluate"]]),
])  # fmt: skip
def test_terminals_that_know_no_umlauts(work, environment, verbs):
    for part in (b"train/", b"test/"):
        os.rename(part + b"dog", part + "hünd".encode())  # Python 3.6 takes names for ASCII in the C locale
    verbs = [DATA.split() + ["--classes", '["cat", "h\\u00fcnd"]'], *verbs]
    code = "import sys; from src.console import restart_in_utf8; restart_in_utf8(); import run\n"
    write("verbs.py", f"{code}sys.exit(any([run.main(words) for words in {verbs}]))")
    done = subprocess.run(
        [sys.executable, "verbs.py"], env=dict(os.environ, PYTHONPATH=REPOSITORY, **environment),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"h\xc3\xbcnd") + done.stdout.count(b"h\\xfcnd") > 1


@pytest.mark.parametrize("closing", ["<&- >&- 2>&-", ">/dev/full", "| true"])
def test_training_does_not_need_a_listener(work, closing):
    shutil.rmtree("weights")
    command = f"{sys.executable} {REPOSITORY}/run.py {DATA} --num_epoch 3 {closing}"
    subprocess.run(command, shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert os.path.exists(GRAPH)


def test_output_that_cannot_be_written_is_said(work):
    command = f"{sys.executable} {REPOSITORY}/run.py predict test > /dev/full"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (2, b"error: standard output: No space left on device\n")


def test_a_folder_that_cannot_be_read_is_said(work, monkeypatch, capsys):
    scandir = os.scandir

    def forbidden(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    assert run.main(["predict", "test"]) == 2
    assert capsys.readouterr().err == "error: folder test/dog: cannot be read (Permission denied)\n"


def test_an_archive_without_the_expected_files(tmp_path):
    import hashlib
    import tarfile

    with tarfile.open(str(tmp_path / "archive"), "w:gz"):
        pass
    md5 = hashlib.md5((tmp_path / "archive").read_bytes()).hexdigest()
    with pytest.raises(InputError, match="found no images for train, expected CIFAR-10's binary archive"):
        prepare_cifar10(str(tmp_path / "cifar"), archive=str(tmp_path / "archive"), md5=md5)
    assert os.listdir(str(tmp_path)) == ["archive"]


def test_a_folder_that_a_killed_process_left_is_removed(tmp_path):
    code = "import os; from utils.files import partial_name; os.mkdir(partial_name('.'))"
    assert python("-c", code, cwd=tmp_path).returncode == 0 and len(os.listdir(str(tmp_path))) == 1
    with atomic_folder(str(tmp_path / "digits")):
        pass
    assert os.listdir(str(tmp_path)) == ["digits"]


VALUES = strategies.one_of(
    strategies.none(), strategies.booleans(), strategies.integers(), strategies.floats(), strategies.text(max_size=9),
    strategies.lists(strategies.one_of(strategies.floats(), strategies.text(max_size=9)), max_size=4),
    strategies.dictionaries(strategies.text(max_size=3), strategies.integers(), max_size=2),
)  # fmt: skip


@given(name=strategies.sampled_from(sorted(SETTINGS)), value=VALUES)
@example_settings(max_examples=300, deadline=None)
def test_any_value_of_a_setting_is_taken_or_refused_in_one_line(name, value):
    try:
        settings(**{name: value})
    except InputError as error:
        assert "\n" not in str(error).replace("\\n", "")


@given(name=strategies.sampled_from(sorted(SETTINGS)), text=strategies.text(max_size=30))
@example_settings(max_examples=300, deadline=None)
def test_any_text_for_a_setting_is_taken_or_refused_in_one_line(name, text):
    try:
        settings(**{name: SETTINGS[name].parse(text)})
    except InputError as error:
        assert "\n" not in str(error)


@pytest.fixture(scope="module")
def image_file(tmp_path_factory):
    return str(tmp_path_factory.mktemp("images") / "image")


@given(
    kind=strategies.sampled_from([".png", ".jpg", ".bmp", ".webp"]),
    shape=strategies.tuples(strategies.integers(1, 40), strategies.integers(1, 40)),
    flips=strategies.lists(strategies.tuples(strategies.floats(0, 1), strategies.integers(1, 255)), max_size=5),
    length=strategies.floats(0, 1),
)
@example_settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_damaged_image_is_read_in_shape_or_refused(image_file, kind, shape, flips, length):
    pixels = np.random.RandomState(shape[0]).randint(0, 256, (*shape, 3)).astype(np.uint8)
    content = bytearray(cv2.imencode(kind, pixels)[1].tobytes())
    for place, change in flips:
        content[int(place * (len(content) - 1))] ^= change
    read_or_refuse(image_file, bytes(content[: int(round(length * len(content)))]))


@given(content=strategies.binary(max_size=200))
@example_settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_bytes_are_read_in_shape_or_refused(image_file, content):
    read_or_refuse(image_file, content)


def read_or_refuse(path, content):
    write(path, content)
    try:
        image = preprocess(16).load(path)
    except InputError as error:
        assert str(error).startswith(f"image {path}: ") and "\n" not in str(error)
    else:
        assert (image.shape, image.dtype) == ((16, 16, 3), np.uint8)
