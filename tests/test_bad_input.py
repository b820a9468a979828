"""Whatever is wrong, the command line says so in one line, with exit code 2; nothing is lost."""

import os
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

import run
from src.settings import settings
from src.tf1 import tf
from tests.conftest import REPOSITORY, python, without_checksum, without_origin
from tests.helpers.bad_input import BAD, DATA, GRAPH, JSON, edit, write


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
    ('"lenet5": {', "5: {", r"error: src/config.py: MODEL_ARCHS: expected names of networks, each with min_img_size"),
    ('"min_img_size": 16', '"min_img_size": "16"', r"error: src/config.py: MODEL_ARCHS: expected names of networks"),
    ('"img_size": 32, ', "", r"error: src/config.py: MODEL_ARCHS: expected names of networks"),
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
    (lambda image: tf.reduce_sum(image, [1, 2])[:, :2] / 0.0, "found logits that are NaN or Inf"),
    (lambda image: tf.nn.conv2d(image, tf.zeros([0, 3, 3, 2]), [1, 1, 1, 1], "SAME")[:, 0, 0], "that are not empty"),
])  # fmt: skip
@pytest.mark.parametrize("verb", ["predict test", "evaluate"])
def test_graphs_that_calculate_nonsense(work, capfd, verb, output, expected):
    make_graph(output)
    assert run.main(verb.split()) == 2
    errors = capfd.readouterr().err
    errors = re.sub(r"^note: .*: lenet5 of .*\n", "", errors)  # of a graph that is built, but cannot be run
    assert errors.startswith(f"error: graph {GRAPH}: ") and errors.count("\n") == 1 and re.search(expected, errors)


def test_a_full_or_lost_log_does_not_cost_the_graph(work, monkeypatch, capfd):
    write("graphs_are_lost", "")
    steps, train_step = [], run.__dict__.get("trainer")
    from trainer import Trainer

    train_step = Trainer._train_step

    def losing(trainer, batch, monitor):
        requests = train_step(trainer, batch, monitor)
        steps.append(trainer.step)
        if len(steps) == 5:
            shutil.rmtree("graphs")
            write("graphs", "no folder any more")
        return requests

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
    assert (done.returncode, without_origin(done.stderr.decode())) == (0, "")
    assert done.stdout.count(b"h\xc3\xbcnd") + done.stdout.count(b"h\\xfcnd") > 1


@pytest.mark.parametrize("closing", ["<&- >&- 2>&-", ">/dev/full", "| true"])
def test_training_does_not_need_a_listener(work, closing):
    shutil.rmtree("weights")
    command = f"{sys.executable} {REPOSITORY}/run.py {DATA} --num_epoch 3 {closing}"
    subprocess.run(command, shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert os.path.exists(GRAPH)


def test_output_that_cannot_be_written_is_reported(work):
    command = f"{sys.executable} {REPOSITORY}/run.py predict test > /dev/full"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE)
    error = "error: standard output: No space left on device\n"
    assert (done.returncode, without_origin(done.stderr.decode())) == (2, error)


def test_a_folder_that_cannot_be_read_is_reported(work, monkeypatch, capsys):
    scandir = os.scandir

    def forbidden(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    assert run.main(["predict", "test"]) == 2
    assert capsys.readouterr().err == "error: folder test/dog: cannot be read (Permission denied)\n"
