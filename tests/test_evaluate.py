"""python run.py evaluate, predict and summary, and the pictures."""

import csv
import io
import json
import os
import re
import shutil
import sys

import cv2
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from convert.compare import open_reference
from convert.pb2savedmodel import pb2savedmodel
from run import main
from src import config
from src.errors import InputError
from src.settings import settings
from src.tf1 import tf
from tests.conftest import REPOSITORY, accuracy_in_opencv, python, run_file, run_opencv, run_py, without_checksum
from trainer import Trainer
from utils.commands.summary import layers
from utils.images import loader
from utils.images.image_folders import list_images
from utils.images.plots import draw_confusion, draw_curves, draw_grid
from utils.inference.predictor import load


@pytest.fixture
def shipped(trained, tmp_path):
    """A folder with nothing but what an export leaves."""
    folder = tmp_path / "shipped"
    shutil.copytree(str(trained / "weights" / "lenet5"), str(folder))
    assert sorted(os.listdir(str(folder))) == ["labels.txt", "lenet5.json", "lenet5.pb"]
    return folder


def report(run_evaluate, trained, *arguments):
    """What evaluate printed, in a process of its own (run_py) or in this one (run_here), and the lines of its CSV."""
    done = run_evaluate("evaluate", *arguments, cwd=trained)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (run_folder,) = (trained / "graphs" / "lenet5").iterdir()
    with open(str(run_folder / "predictions.csv")) as file:
        rows = list(csv.DictReader(file))
    for name in ("confusion.png", "mistakes.png", "train_batch.png", "curves.png"):
        assert cv2.imread(str(run_folder / name)).std() > 5
    assert (run_folder / "evaluation.txt").read_text() in done.stdout
    return done.stdout, rows


def test_what_evaluate_prints_is_what_scikit_learn_makes_of_its_csv(trained, digits):
    printed, rows = report(run_py, trained)
    true, predicted = [row["true"] for row in rows], [row["predicted"] for row in rows]
    classes = [str(digit) for digit in range(10)]
    assert len({row["image"] for row in rows}) == len(rows) == 360
    assert all(os.path.basename(os.path.dirname(row["image"])) == row["true"] for row in rows)
    accuracy = accuracy_score(true, predicted)
    assert f"accuracy {accuracy:.4f}" in printed.splitlines()[1] and accuracy > 0.9
    for digit, f1 in zip(classes, f1_score(true, predicted, average=None)):
        assert any(line.split()[:1] == [digit] and line.split()[3:4] == [f"{f1:.3f}"] for line in printed.splitlines())
    for digit, counts in zip(classes, confusion_matrix(true, predicted)):
        assert " ".join([digit] + [str(count) for count in counts]) in " ".join(printed.split())
    assert accuracy_in_opencv(str(trained / "weights" / "lenet5" / "lenet5.pb"), f"{digits}/test") == accuracy


def test_loss_is_that_of_opencv_s_logits_with_and_without_mirror_images(trained, digits, run_here):
    printed, rows = report(run_here, trained, "--flip")
    images = [cv2.resize(cv2.imread(row["image"]), (32, 32)) for row in rows]
    images = (np.array(images) / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]

    def shares(images):
        graph = str(trained / "weights" / "lenet5" / "lenet5.pb")
        powers = np.exp(run_opencv(graph, images.astype(np.float32)).astype(float))
        return powers / powers.sum(axis=1, keepdims=True)

    true, plain, mirrored = [int(row["true"]) for row in rows], shares(images), shares(images[:, :, ::-1])
    losses = [log_loss(true, answer, labels=list(range(10))) for answer in (plain, (plain + mirrored) / 2)]
    hits = ((plain + mirrored).argmax(axis=1) == true).sum()
    found = re.findall(r"loss (\S+), accuracy (\S+)", printed)
    assert [float(loss) for loss, _ in found] == pytest.approx(losses, abs=2e-4)
    assert losses[1] > losses[0] + 0.1 and float(found[1][1].strip(",")) == pytest.approx(hits / 360, abs=1e-4)
    assert [float(row["probability"]) for row in rows] == pytest.approx(list(plain.max(axis=1)), abs=1e-4)


def test_each_file_is_decoded_once_also_for_its_mirror_image(trained, run_here, monkeypatch):
    read, paths = loader.read_image, []
    monkeypatch.setattr(loader, "read_image", lambda path: paths.append(path) or read(path))
    _, rows = report(run_here, trained, "--flip")
    assert sorted(paths) == sorted(row["image"] for row in rows)


def test_all_files_are_written_before_a_reader_can_stop_it(trained, monkeypatch, capfd):
    """As behind `| head`, but for the signal, which would end the tests as well."""

    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    page = run_file("report.html", str(trained / "graphs" / "lenet5"))
    os.remove(page)
    monkeypatch.chdir(str(trained))
    monkeypatch.setattr(sys, "stdout", Closed())
    assert main(["evaluate"]) == 2
    assert os.path.exists(page)


NONSENSE = {"model_arch": "mobilenetv2", "img_size": 28, "lr": "fast", "batch_size": 0, "classes": 5, "total_class": -1}


@pytest.fixture
def nonsense(trained, tmp_path, monkeypatch):
    """A copy of the trained folder, while src/config.py is nonsense, but for what the commands use."""
    shutil.copytree(str(trained), str(tmp_path / "copy"))
    monkeypatch.chdir(str(tmp_path / "copy"))
    for name, value in NONSENSE.items():
        monkeypatch.setitem(vars(config), name, value)


@pytest.mark.parametrize("words", [
    "predict IMAGE", "evaluate", "explain IMAGE", "runs", "export", "--resume --num_epoch 5",
    "evaluate --checkpoint CHECKPOINT",
])  # fmt: skip
def test_settings_that_a_command_does_not_use_do_not_stop_it(nonsense, digits, capfd, words):
    image, checkpoint = list_images(f"{digits}/test/3")[0][0], os.path.splitext(run_file("*.index"))[0]
    words = words.replace("IMAGE", image).replace("CHECKPOINT", checkpoint).split()
    code = main(words + ["--model_arch", "lenet5"])
    assert (code, capfd.readouterr().err) == (0, "")


def test_converters_take_no_notice_of_settings_that_they_do_not_use(nonsense):
    assert open_reference("weights/lenet5/lenet5.pb").config.img_size == 32
    with pytest.raises(InputError, match="^setting train_path: found 5"):
        open_reference("weights/lenet5/lenet5.pb", train_path=5)


@pytest.fixture
def devices(monkeypatch):
    """How many GPUs each session may use, of all that are opened: a list; None: as many as there are."""
    found = []
    session = tf.Session

    def opened(*arguments, **options):
        found.append(dict(options["config"].device_count).get("GPU") if "config" in options else None)
        return session(*arguments, **options)

    monkeypatch.setattr(tf, "Session", opened)
    return found


@pytest.mark.parametrize("words", ["predict IMAGE", "evaluate", "explain IMAGE", "evaluate --checkpoint CHECKPOINT"])
def test_commands_keep_off_the_gpu_if_device_says_so(trained, digits, monkeypatch, devices, words):
    monkeypatch.chdir(str(trained))
    image, checkpoint = list_images(f"{digits}/test/3")[0][0], os.path.splitext(run_file("*.index"))[0]
    words = words.replace("IMAGE", image).replace("CHECKPOINT", checkpoint).split()
    assert main(words + ["--device", "gpu"]) == 0
    assert None in devices
    del devices[:]
    assert main(words + ["--device", "cpu"]) == 0
    assert devices and set(devices) == {0}
    del devices[:]
    monkeypatch.setitem(vars(config), "device", "cpu")
    assert main(words) == 0
    assert devices and set(devices) == {0}


def test_converters_keep_off_the_gpu_if_device_says_so(trained, in_tmp_path, devices):
    shutil.copytree(str(trained / "weights"), "weights")
    assert pb2savedmodel(open_reference(device="cpu")).failure is None
    assert devices and set(devices) == {0}


def test_checkpoint_and_frozen_graph_are_equally_good(trained, run_here):
    with open(str(trained / "weights" / "lenet5" / "lenet5.json")) as file:
        val_acc = json.load(file)["val_acc"]
    with open(run_file("run.json", str(trained / "checkpoints" / "lenet5"))) as file:
        record = json.load(file)
    del record["history"], record["time"]
    (name,) = [name for name, entry in record.items() if entry["val_acc"] == val_acc][-1:]
    prefix = os.path.relpath(run_file(f"{name}.index", str(trained / "checkpoints" / "lenet5")), str(trained))[:-6]
    graph, of_graph = report(run_here, trained)
    checkpoint, of_checkpoint = report(run_here, trained, "--checkpoint", prefix)
    assert graph.splitlines()[1:] == checkpoint.splitlines()[1:]
    assert graph.splitlines()[0].startswith("weights/lenet5/lenet5.pb on ")
    assert checkpoint.splitlines()[0].startswith(f"{prefix} on ")
    assert [row["predicted"] for row in of_graph] == [row["predicted"] for row in of_checkpoint]


def test_a_test_set_given_counts(trained, digits, tmp_path, run_here):
    for digit in range(10):
        folder = tmp_path / "few" / str(digit)
        folder.mkdir(parents=True)
        source = os.path.join(digits, "test", "3")
        shutil.copy(os.path.join(source, sorted(os.listdir(source))[0]), str(folder))
    printed, rows = report(run_here, trained, "--test_path", str(tmp_path / "few"))
    assert len(rows) == 10 and sum(row["true"] == row["predicted"] for row in rows) == 1
    report(run_here, trained)  # for the next test, as it was


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--weights", "none.pb"], "graph none.pb: cannot be read"),
        (["--checkpoint", "checkpoints/lenet5/lenet5-7"], "checkpoint: found checkpoints/lenet5/lenet5-7"),
        (["--checkpoint", "a", "--weights", "b"], "--checkpoint: found a beside --weights"),
        (["--test_path", "nowhere"], "setting test_path: found no folder nowhere"),
    ],
)
def test_evaluate_says_what_is_wrong(trained, capsys, monkeypatch, arguments, expected):
    monkeypatch.chdir(str(trained))
    assert main(["evaluate"] + arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {expected}") and error.count("\n") == 1


def test_predict_needs_only_the_files_of_the_export(shipped, digits):
    done = run_py("predict", "--weights", "lenet5.pb", "--json", "--top", "2", f"{digits}/test/7", cwd=shipped)
    assert (done.returncode, done.stderr) == (0, "")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    files = sorted(os.listdir(f"{digits}/test/7"))
    assert [answer["image"] for answer in answers] == [os.path.join(digits, "test", "7", name) for name in files]
    assert np.mean([answer["predictions"][0]["class"] == "7" for answer in answers]) > 0.9
    for answer in answers:
        image = cv2.resize(cv2.imread(answer["image"]), (32, 32))
        image = (image / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        logits = run_opencv(str(shipped / "lenet5.pb"), image[np.newaxis].astype(np.float32))[0].astype(float)
        shares = np.exp(logits) / np.exp(logits).sum()
        best = np.argsort(-shares)[:2]
        assert [found["class"] for found in answer["predictions"]] == [str(index) for index in best]
        assert [found["probability"] for found in answer["predictions"]] == pytest.approx(list(shares[best]), abs=1e-4)


def test_predict_prints_a_table(shipped, digits, run_here):
    image = sorted(os.path.join(digits, "test", "7", name) for name in os.listdir(f"{digits}/test/7"))[0]
    done = run_here("predict", image, "--weights", "lenet5.pb", cwd=shipped)
    assert done.returncode == 0 and done.stderr == ""
    words = done.stdout.split()
    assert words[:2] == [image, "7"] and len(words) == 1 + 5 * 3
    assert done.stdout.isprintable() is False and done.stdout.count("\n") == 1 and "\x1b" not in done.stdout


def test_images_of_any_kind_and_broken_ones(shipped, run_here):
    random = np.random.RandomState(0)
    kinds = {
        "dot.png": random.randint(0, 256, (1, 1, 3)).astype(np.uint8),
        "large.jpg": random.randint(0, 256, (1500, 2000, 3)).astype(np.uint8),
        "grey.png": random.randint(0, 256, (40, 30)).astype(np.uint8),
        "alpha.png": random.randint(0, 256, (40, 30, 4)).astype(np.uint8),
        "deep.png": random.randint(0, 65536, (40, 30, 3)).astype(np.uint16),
        "wide.bmp": random.randint(0, 256, (1, 500, 3)).astype(np.uint8),
    }
    (shipped / "images" / "deeper").mkdir(parents=True)
    for name, pixels in kinds.items():
        assert cv2.imwrite(str(shipped / "images" / "deeper" / name), pixels)
    done = run_here("predict", "--weights", "lenet5.pb", "--json", "images", cwd=shipped)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(os.path.basename(json.loads(line)["image"]) for line in done.stdout.splitlines()) == sorted(kinds)

    (shipped / "images" / "broken.png").write_text("no image")
    done = run_here("predict", "--weights", "lenet5.pb", "--json", "images", "missing.png", cwd=shipped)
    assert done.returncode == 1
    assert [line.split(":")[1] for line in done.stderr.splitlines()] == [
        " image images/broken.png",
        " image missing.png",
    ]
    assert len(done.stdout.splitlines()) == len(kinds)
    done = run_here("predict", "--weights", "lenet5.pb", "images/broken.png", cwd=shipped)
    assert (done.returncode, done.stdout) == (1, "")


def test_names_that_break_lines_are_printed_on_one(shipped):
    random = np.random.RandomState(0)
    for name in (b"two\nlines.png", b"not utf-8 \xff.png"):
        with open(os.path.join(os.fsencode(str(shipped)), name), "wb") as file:
            file.write(cv2.imencode(".png", random.randint(0, 256, (9, 9, 3)).astype(np.uint8))[1].tobytes())
    (shipped / "no\nimage.png").write_text("")
    done = run_py("predict", "--weights", "lenet5.pb", ".", cwd=shipped)
    assert (done.returncode, len(done.stdout.splitlines()), len(done.stderr.splitlines())) == (1, 2, 2)
    assert done.stderr.startswith("note: skipped in .: 1 .json, 1 .pb, 1 .txt\n")
    assert "./two\\nlines.png" in done.stdout and "./not utf-8 \\udcff.png" in done.stdout


@pytest.mark.parametrize(
    "run", [None, [1], {"run_folder": 5, "test_path": ["a"]}, {"run_folder": "a\0b", "train_path": "\ud800"}]
)
def test_evaluate_without_knowing_the_run(shipped, digits, run_here, run):
    with open(str(shipped / "lenet5.json")) as file:
        metadata = json.load(file)
    (shipped / "lenet5.json").write_text(json.dumps(dict(metadata, run=run)))
    done = run_here("evaluate", "--weights", "lenet5.pb", "--test_path", f"{digits}/test", cwd=shipped)
    assert done.returncode == 0, done.stderr
    assert len(list((shipped / "graphs" / "lenet5").iterdir())) == 1


def test_a_batch_gives_the_same_probabilities_as_single_images(shipped, digits):
    predictor = load(str(shipped / "lenet5.pb"))
    paths = list_images(f"{digits}/test")[0]
    together = [shares for _, shares in predictor.classify(paths)]
    assert len(together) == 360
    for index in (0, 99, 100, 359):
        ((path, alone),) = predictor.classify(paths[index : index + 1])
        assert path == paths[index]
        np.testing.assert_allclose(together[index], alone, atol=1e-5)
        assert alone.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "damage, expected",
    [
        (lambda pb, text: (None, text), "graph lenet5.pb: cannot be read"),
        (lambda pb, text: (pb[:1000], text), "graph lenet5.pb: "),
        (lambda pb, text: (b"", text), "graph lenet5.pb: found no operation 'Image'"),
        (lambda pb, text: (b"no graph at all", text), "graph lenet5.pb: found a file that is damaged"),
        (lambda pb, text: (pb, None), "metadata lenet5.json: cannot be read"),
        (lambda pb, text: (pb, "[1]"), "metadata lenet5.json: found None for classes"),
        (lambda pb, text: (pb, "{"), "metadata lenet5.json: found a file that is not JSON"),
        (lambda pb, text: (pb, text.replace('"Image"', '"Picture"')), "graph lenet5.pb: found no operation 'Picture'"),
        (lambda pb, text: (pb, text.replace("32", "64")), "graph lenet5.pb: found shape"),
        (lambda pb, text: (pb, text.replace("32", "0")), "metadata lenet5.json: found"),
        (lambda pb, text: (pb, text.replace('"9"', '"9", "10"')), "metadata lenet5.json: found"),
        (lambda pb, text: (pb, text.replace('"bgr"', '"gbr"')), "metadata lenet5.json: found 'gbr' for channel_order"),
        (lambda pb, text: (pb, text.replace('"output",', '"a:b",')), "graph lenet5.pb: found no operation 'a:b'"),
        (lambda pb, text: (pb, text.replace("null", "[1], 2")), "metadata lenet5.json: found"),
        (lambda pb, text: (pb, text.replace('"9"', '"\\ud800"')), "metadata lenet5.json: found"),
        (lambda pb, text: (pb, text.replace('"output": {', '"result": {')), "metadata lenet5.json: found None for out"),
    ],
)
def test_a_damaged_export_is_said_in_one_line(shipped, monkeypatch, capsys, damage, expected):
    monkeypatch.chdir(str(shipped))
    with open("lenet5.pb", "rb") as pb, open("lenet5.json") as text:
        contents = damage(pb.read(), without_checksum(text.read()))
    for name, content in zip(("lenet5.pb", "lenet5.json"), contents):
        os.remove(name)
        if content is not None:
            with open(name, "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
    assert main(["predict", "--weights", "lenet5.pb", "image.png"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {expected}") and error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], "the following arguments are required"),
        (["a.png", "--top", "0"], "--top: found 0"),
        (["a.png", "--top", "x"], "argument --top"),
        (["."], "folder .: found no images"),
    ],
)
def test_predict_says_what_is_wrong_with_its_options(shipped, tmp_path, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(str(tmp_path))
    assert main(["predict", "--weights", "shipped/lenet5.pb"] + arguments) == 2
    assert expected in capsys.readouterr().err


def test_a_reader_that_stops_ends_predict_quietly(shipped, digits):
    done = python(
        "-c",
        "import subprocess, sys; first = subprocess.Popen([sys.executable] + sys.argv[1:], "
        "stdout=subprocess.PIPE); print(len(first.stdout.readline())); first.stdout.close(); "
        "first.wait()",
        os.path.join(REPOSITORY, "run.py"),
        "predict",
        "--weights",
        "lenet5.pb",
        digits,
        cwd=shipped,
    )
    assert int(done.stdout) > 10 and done.stderr == ""


@pytest.mark.parametrize(
    "given, parameters, products",
    [  # LeCun 1998 by hand; Sandler 2018, 300 million multiply-adds
        ({"model_arch": "lenet5", "classes": 10}, 62006, 651720),
        ({"model_arch": "mobilenetv2", "classes": 1000}, 3504872, 300774272),
    ],
)
def test_summary_adds_up(given, parameters, products, capsys):
    found = layers(settings(**dict(given, classes=[str(number) for number in range(given["classes"])])))
    assert (sum(row[2] for row in found), sum(row[3] for row in found)) == (parameters, products)
    assert main(["summary", "--model_arch", given["model_arch"], "--total_class", str(given["classes"])]) == 0
    total = capsys.readouterr().out.splitlines()[-1].split()
    assert total == ["total", format(parameters, ","), format(products, ",")]


def test_summary_of_lenet_by_hand():
    assert layers(settings(model_arch="lenet5", classes=["a", "b"])) == [
        ("conv1", [28, 28, 6], 6 * 5 * 5 * 3 + 6, 28 * 28 * 6 * 5 * 5 * 3),
        ("conv2", [10, 10, 16], 16 * 5 * 5 * 6 + 16, 10 * 10 * 16 * 5 * 5 * 6),
        ("fc1", [120], 400 * 120 + 120, 400 * 120),
        ("fc2", [84], 120 * 84 + 84, 120 * 84),
        ("fc3", [2], 84 * 2 + 2, 84 * 2),
    ]


@pytest.mark.parametrize("channel_order", ["bgr", "rgb"])
def test_the_first_batch_is_drawn_as_people_see_it(two_classes, channel_order):
    trainer = Trainer(**dict(vars(two_classes), channel_order=channel_order))
    images, _, ids, cls = trainer.data.train.next_batch(8)
    for image, name, class_name in zip(trainer.data.train.preprocess.to_rgb(images), ids, cls):
        path = f"{two_classes.train_path}/{class_name}/{name}"
        assert np.array_equal(image, cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB))
    trainer.optimize(1)
    assert os.path.exists(os.path.join(trainer.run_folder, "train_batch.png"))


def test_curves_are_drawn_after_an_interruption(two_classes, monkeypatch):
    trainer = Trainer(**vars(two_classes))
    save = trainer.save

    def interrupted(reporter):
        save(reporter)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.optimize(3)
    assert len(trainer.history) == 1
    assert os.path.exists(os.path.join(trainer.run_folder, "curves.png"))


@pytest.mark.parametrize("count", [2, 3, 10, 100])
def test_pictures_for_few_and_many_classes(tmp_path, count):
    random = np.random.RandomState(0)
    names = [f"a $rather$ long name of class {number}" for number in range(count)]
    path = str(tmp_path / "picture.png")
    draw_confusion(path, random.randint(0, 2000, (count, count)), names)
    height, width = cv2.imread(path).shape[:2]
    assert 400 < height < 2200 and 500 < width < 2200
    draw_grid(path, [random.randint(0, 256, (9, 5, 3)).astype(np.uint8)] * count, names, "some")
    assert cv2.imread(path).shape[1] < 1200
    history = [{"epoch": number, "loss": 1.0, "acc": 0.5, "val_loss": 1.0, "val_acc": 0.5} for number in range(count)]
    draw_curves(path, history, history[0])
    assert cv2.imread(path).shape[:2] > (300, 700)


def test_no_mistakes_are_a_picture_as_well(tmp_path):
    draw_grid(str(tmp_path / "none.png"), [], [], "no mistakes in 3 images")
    assert cv2.imread(str(tmp_path / "none.png")).shape[1] > 500


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(InputError, match="found no images"):
        list_images(str(tmp_path))
