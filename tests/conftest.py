import contextlib
import glob
import os
import re
import shutil
import signal
import subprocess
import sys

import cv2
import hypothesis
import numpy as np
import pytest

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FIXTURES = os.path.join(REPOSITORY, "tests", "fixtures")
sys.path.insert(0, REPOSITORY)

import run  # noqa: E402
from convert.compare import open_reference  # noqa: E402
from models import mobilenetv2  # noqa: E402
from src.settings import settings  # noqa: E402
from src.tf1 import tf  # noqa: E402
from tests.helpers.conversions import files  # noqa: E402
from tests.helpers.processes import kill_descendants  # noqa: E402
from tests.helpers.short_runs import COUNTS, few  # noqa: E402
from trainer import Trainer  # noqa: E402
from utils.commands.prepare import prepare_digits  # noqa: E402
from utils.images.preprocess import Preprocess  # noqa: E402

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell starts what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


hypothesis.settings.register_profile("short", max_examples=25, derandomize=True)  # make test
hypothesis.settings.register_profile("long", max_examples=300)  # make chaos
hypothesis.settings.load_profile("short")


@pytest.fixture(autouse=True)
def no_process_outlives_its_test():
    """A test that fails may have started a training of a thousand epochs."""
    yield
    kill_descendants()


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The path of the prepared digits."""
    path = str(tmp_path_factory.mktemp("data") / "digitspng")
    prepare_digits(path)
    return path


@pytest.fixture(scope="session")
def trained(digits, tmp_path_factory):
    """A folder in which a LeNet was trained on the digits."""
    folder = tmp_path_factory.mktemp("trained")
    done = run_py("--train_path", f"{digits}/train", "--test_path", f"{digits}/test", "--num_epoch", "5", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def make_folders(path, counts, size=16):
    """Class folders of random images."""
    random = np.random.RandomState(1)
    for class_name, count in counts.items():
        folder = os.path.join(path, class_name)
        os.makedirs(folder)
        for number in range(count):
            pixels = random.randint(0, 256, (size, size, 3)).astype(np.uint8)
            cv2.imwrite(os.path.join(folder, f"{number:03d}.png"), pixels)
    return path


@pytest.fixture
def folders(tmp_path):
    """Make class folders of random images: folders({"cat": 3, "dog": 4}) -> path."""
    return lambda counts, name="train", size=16: make_folders(str(tmp_path / name), counts, size)


@pytest.fixture
def in_tmp_path(tmp_path, monkeypatch):
    """Work in a folder of the test's own, so that the default folders are made there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextlib.contextmanager
def working_in(folder):
    """As the fixture in_tmp_path, for what several tests share."""
    before = os.getcwd()
    os.chdir(str(folder))
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture
def two_classes(folders, in_tmp_path):
    """Settings for a quick run on two classes of 20 images each, 16 px."""
    return settings(train_path=folders({"cat": 20, "dog": 20}), img_size=16, batch_size=8)


@pytest.fixture
def trainer(two_classes):
    return Trainer(**vars(two_classes))


@pytest.fixture
def few_images(folders, in_tmp_path):
    """Settings for a short run, as arguments of the Trainer."""
    return few(folders(COUNTS))


@pytest.fixture
def exported(trained, in_tmp_path):
    """Work in a folder with nothing but what the export has left. Returns its files."""
    shutil.copytree(str(trained / "weights"), "weights")
    return files()


@pytest.fixture
def reference(exported):
    return open_reference()


@pytest.fixture
def images(digits):
    """20 test digits as the network takes them, by OpenCV and numpy alone."""
    paths = sorted(os.path.join(folder, name) for folder, _, names in os.walk(digits + "/test") for name in names)[::18]
    pixels = np.array([cv2.resize(cv2.imread(path), (32, 32)) for path in paths])
    return ((pixels / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)


@pytest.fixture
def shallow(monkeypatch):
    """MobileNetV2 has no more than its first three blocks, one of each kind: all take seconds to build."""
    monkeypatch.setattr(mobilenetv2, "BOTTLENECKS", mobilenetv2.BOTTLENECKS[:2])


def preprocess(img_size, **others):
    """A Preprocess with the defaults of src/config.py, but for those given."""
    defaults = {
        "numchannels": 3,
        "image_normalize_mean": [0.485, 0.456, 0.406],
        "image_normalize_std": [0.229, 0.224, 0.225],
        "channel_order": "bgr",
        "resize": "stretch",
        "transparency": "drop",
    }
    return Preprocess(img_size, **dict(defaults, **others))


def run_file(name, checkpoint_dir="checkpoints/lenet5"):
    """The path of a file of the newest run in a checkpoint_dir."""
    return sorted(glob.glob(os.path.join(checkpoint_dir, "2*", name)))[-1]


def python(*arguments, cwd=None, timeout=300, **options):
    """Run this Python in a process of its own, with the project importable; returns what came of it, as text."""
    environment = dict(os.environ, PYTHONPATH=REPOSITORY)
    return subprocess.run(
        [sys.executable] + list(arguments),
        cwd=str(cwd),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        timeout=timeout,
        **options,
    )


def run_py(*arguments, cwd):
    return python(os.path.join(REPOSITORY, "run.py"), *arguments, cwd=cwd)


@pytest.fixture
def run_here(capfd, monkeypatch):
    """The same as run_py in this process, which has imported TensorFlow already; that takes seconds."""

    def run_main(*arguments, cwd):
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(str(cwd))
            code = run.main(list(arguments))
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    return run_main


def without_origin(stderr):
    """What a command printed on standard error, without its note on which graph answers, of which there must be one."""
    lines = stderr.splitlines(True)
    (note,) = [line for line in lines if re.match(r"note: .*: lenet5 of .*, written 20..-..-.. ..:..", line)]
    return "".join(line for line in lines if line != note)


def load_graph(path):
    graph_def = tf.GraphDef()
    with open(path, "rb") as file:
        graph_def.ParseFromString(file.read())
    return graph_def


def without_checksum(metadata):
    """The text of a graph's JSON as an earlier version wrote it: then it may be of any graph."""
    return re.sub(r',\s*"graph_sha256": "\w+"', "", metadata)


def run_graph(path, images):
    """A frozen graph's logits, from a session of its own."""
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.import_graph_def(load_graph(path), name="")
        return session.run(graph.get_tensor_by_name("output:0"), {"Image:0": images})


def run_opencv(path, images):
    """The same from OpenCV's reader of TensorFlow graphs, which takes [n, channels, height, width]."""
    net = cv2.dnn.readNetFromTensorflow(path)
    net.setInput(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return net.forward()


def assert_images_differ_alike(found, expected):
    """Answers [n, classes], less that to the first image: of random weights, most is the same for every image."""
    found, expected = found - found[0], expected - expected[0]
    assert np.abs(expected).max() > 0.01
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()


def every_id(batches):
    return [f"{cls_name}/{name}" for _, _, ids, cls in batches for cls_name, name in zip(cls, ids)]


def accuracy_in_opencv(path, test_path):
    """Accuracy of a frozen graph of 32 px on class folders, with nothing of this project: OpenCV reads and answers."""
    hits, count = 0, 0
    for label, name in enumerate(sorted(os.listdir(test_path))):
        folder = os.path.join(test_path, name)
        images = [cv2.resize(cv2.imread(os.path.join(folder, file)), (32, 32)) for file in os.listdir(folder)]
        images = (np.array(images) / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        hits += (run_opencv(path, images.astype(np.float32)).argmax(axis=1) == label).sum()
        count += len(images)
    return hits / count
