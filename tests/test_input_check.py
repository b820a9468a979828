"""What is said of images from which a network cannot learn, and of a training that has learned nothing."""

import csv
import glob
import json
import os
import shlex

import cv2
import numpy as np
import pytest
from PIL import Image

from dataset import read_train_sets
from models import build, mobilenetv2
from src.errors import InputError
from src.settings import SETTINGS, settings
from src.tf1 import tf
from tests.conftest import REPOSITORY
from trainer import Trainer
from utils.training.input_check import chance_note, check_batch_norms, input_note

IMAGENET = {}  # the default
HALF = {"image_normalize_mean": [0.5] * 3, "image_normalize_std": [0.5] * 3, "channel_order": "rgb"}  # Keras'
PLAIN = {"image_normalize_mean": [0, 0, 0], "image_normalize_std": [1, 1, 1]}
FOR_255 = {"image_normalize_mean": [123.7, 116.3, 103.5], "image_normalize_std": [58.4, 57.1, 57.4]}
BOTH = "settings image_normalize_mean and image_normalize_std: "
RESULTS = sorted(glob.glob(os.path.join(REPOSITORY, "docs", "results", "*", "about.json")))


def photos(count=40, size=32):
    """Coloured blobs, with levels spread as those of photos are: mean some 120, deviation some 60."""
    random = np.random.RandomState(5)
    for _ in range(count):
        image = cv2.GaussianBlur(random.normal(0, 1, (size, size, 3)), (0, 0), 3)
        yield np.clip(120 + 60 * image / image.std(), 0, 255).astype(np.uint8)


def edges(image):
    return cv2.Canny(image, 60, 120)


def in_classes(path, images, ending=".png"):
    """Half of the images in each of two classes."""
    for number, image in enumerate(images):
        folder = os.path.join(str(path), ("cat", "dog")[number % 2])
        os.makedirs(folder, exist_ok=True)
        assert cv2.imwrite(os.path.join(folder, f"{number:03d}{ending}"), image)
    return str(path)


def note_of(path, **given):
    config = settings(train_path=str(path), **given)
    return input_note(read_train_sets(config).train, config)


HEALTHY = {
    "photos": lambda image: image,
    "dark photos": lambda image: image // 6,
    "bright photos": lambda image: 255 - (255 - image) // 4,
    "pale photos": lambda image: 100 + image // 5,
    "grey photos": lambda image: image[..., 0],
    "photos in 16 bit": lambda image: image.astype(np.uint16) * 257,
    "white lines on black": edges,
    "black lines on white": lambda image: 255 - edges(image),
    "one channel of three": lambda image: image * np.array([0, 1, 0], np.uint8),
    "photos with opaque alpha": lambda image: np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]),
    "long photos": lambda image: cv2.resize(image, (160, 20)),
}


@pytest.mark.parametrize("kind", sorted(HEALTHY))
def test_nothing_is_noted_about_healthy_images(tmp_path, kind):
    path = in_classes(tmp_path, map(HEALTHY[kind], photos()))
    for given in (IMAGENET, HALF, PLAIN, {"resize": "pad", "augment": "crop+flip"}, {"resize": "crop", "img_size": 48}):
        assert note_of(path, **given) is None


def test_nothing_is_noted_about_classes_that_are_empty_or_have_doubles(tmp_path):
    images = list(photos())
    empty = [image * (number % 2) for number, image in enumerate(images)]
    assert note_of(in_classes(tmp_path / "empty", empty)) is None
    assert note_of(in_classes(tmp_path / "doubles", images[:2] * 20)) is None


@pytest.mark.parametrize("about", RESULTS, ids=lambda path: os.path.basename(os.path.dirname(path)))
def test_nothing_is_noted_about_the_results_in_docs(digits, about):
    with open(about) as file:
        words = shlex.split(json.load(file)["command"])[2:]
    given = {name[2:]: SETTINGS[name[2:]].parse(text) for name, text in zip(words[::2], words[1::2])}
    classes = 2 if given.get("train_path") == "two/train" else 10
    for name in ("train_path", "test_path", "pretrained"):
        given.pop(name, None)
    config = settings(train_path=f"{digits}/train", **given)
    assert input_note(read_train_sets(config).train, config) is None
    with open(os.path.join(os.path.dirname(about), "history.csv")) as file:
        history = [{"val_acc": float(row["val_acc"])} for row in csv.DictReader(file)]
    assert chance_note(history, np.arange(1000) % classes, config, "graphs") is None


@pytest.mark.parametrize("given, expected", [
    (FOR_255, BOTH + "found 123.7,116.3,103.5 and 58.4,57.1,57.4, which gives"),
    ({"image_normalize_mean": [127.5] * 3, "image_normalize_std": [127.5] * 3}, BOTH + "found 127.5,127.5,127.5 and"),
    ({"image_normalize_std": [58.4, 57.1, 57.4]}, "setting image_normalize_std: found 58.4,57.1,57.4, which gives"),
    ({"image_normalize_mean": [123.7, 116.3, 103.5]}, "setting image_normalize_mean: found 123.7,116.3,103.5, which"),
    ({"image_normalize_mean": [0.485, 456, 0.406]}, "setting image_normalize_mean: found 0.485,456,0.406, which gives"),
    ({"image_normalize_mean": [0] * 3, "image_normalize_std": [255] * 3}, "setting image_normalize_std: found 255,"),
    ({"image_normalize_std": [1 / 255] * 3}, BOTH + "they give the network inputs with mean "),
])  # fmt: skip
@pytest.mark.parametrize("channel_order", ["bgr", "rgb"])
def test_a_mean_or_std_for_other_levels_is_named(digits, given, expected, channel_order):
    note = note_of(f"{digits}/train", channel_order=channel_order, **given)
    assert note.startswith(expected) and "\n" not in note


def test_the_numbers_of_the_note_are_those_that_pillow_and_numpy_find(tmp_path):
    path = in_classes(tmp_path, photos())
    config = settings(train_path=path, channel_order="rgb", valid_path=path, **FOR_255)  # so that all are looked at
    levels = np.array([np.array(Image.open(file)) for file in glob.glob(f"{path}/*/*.png")]).reshape(-1, 3) / 255
    entering = (levels - config.image_normalize_mean) / config.image_normalize_std
    note = input_note(read_train_sets(config).train, config)
    for values, form in (
        (entering.mean(0), "mean {:.3g},{:.3g},{:.3g}, "),
        (entering.std(0), "standard deviation {:.3g},{:.3g},{:.3g}, "),
        (levels.mean(0), "--image_normalize_mean {:.3f},{:.3f},{:.3f} "),
        (levels.std(0), "--image_normalize_std {:.3f},{:.3f},{:.3f}"),
    ):  # fmt: skip
        assert form.format(*values) in note


def transparent(colour):
    return lambda image: np.dstack([np.full_like(image, colour(image)), edges(image)])


LOST = {
    "black on transparent": (transparent(lambda image: 0), "have a single colour", "its transparency is dropped"),
    "icons in colours": (transparent(lambda image: image[0, 0]), "have a single colour", "its transparency is dropped"),
    "8 bits in 16": (lambda image: image.astype(np.uint16), "have a single colour", "its 16-bit values end at"),
    "10 bits in 16": (lambda image: image.astype(np.uint16) * 4, "fewer than 16 of 256", "its 16-bit values end at"),
    "12 bits in 16": (lambda image: image.astype(np.uint16) * 16, "fewer than 16 of 256", "its 16-bit values end at"),
    "black": (lambda image: image * 0, "have a single colour", "the files themselves are"),
    "plain colours": (lambda image: image * 0 + image[0, 0], "have a single colour", "the files themselves are"),
    "the same": (lambda image: next(photos(1)), "are identical to one of another class", "the files themselves are"),
    "fine pattern": (
        lambda image: (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8),
        "have a single colour", "settings resize and img_size: stretch to 32 pixels leaves nothing of it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(LOST))
@pytest.mark.parametrize(
    "given", [IMAGENET, HALF, {"image_normalize_mean": [0.03] * 3, "image_normalize_std": [0.02] * 3}]
)
def test_images_that_lose_their_picture_are_reported_with_the_reason(tmp_path, kind, given):
    change, what, reason = LOST[kind]
    path = in_classes(tmp_path, map(change, photos()))
    note = note_of(path, **given)
    assert note.startswith("setting train_path: 34 of 34 sampled images ") and "\n" not in note  # and 6 for validation
    assert what in note and reason in note
    assert os.path.isfile(note.split("such as ")[1].split(": ")[0])


def test_numbers_of_classes_as_levels_need_a_mean_and_std_of_their_own(tmp_path):
    path = in_classes(tmp_path, [image // 16 for image in photos()])
    note = note_of(path)
    assert note.startswith(BOTH + "they give the network inputs with")
    own = note.split("these images have ")[1].split()
    given = {name[2:]: SETTINGS[name[2:]].parse(text) for name, text in zip(own[::2], own[1::2])}
    assert note_of(path, **given) is None


@pytest.mark.parametrize("cache_mb", [0, 0.05, 100])
def test_looking_changes_nothing_in_the_batches(digits, cache_mb):
    config = settings(train_path=f"{digits}/train", cache_mb=cache_mb, augment="crop+flip")
    untouched, looked_at = read_train_sets(config).train, read_train_sets(config).train
    assert input_note(looked_at, config) is None
    for _ in range(2):
        for one, other in zip(list(untouched.epoch(64)), list(looked_at.epoch(64))):
            assert one.ids == other.ids and np.array_equal(one.images, other.images)


def test_a_broken_image_is_left_to_the_step_that_needs_it(tmp_path):
    path = in_classes(tmp_path, photos())
    for number in (0, 6, 12, 18, 24):
        with open(f"{path}/cat/{number:03d}.png", "w") as file:
            file.write("no image")
    assert note_of(path) is None and note_of(path, **FOR_255).startswith(BOTH)


@pytest.fixture
def shrinking(monkeypatch, shallow):
    """MobileNetV2's first blocks make 32 pixels one, as all of its blocks do."""
    monkeypatch.setattr(mobilenetv2, "STRIDES", {"paper": (4, (4, 2))})


def test_one_pixel_of_one_image_is_no_batch(shrinking, run_here, digits, tmp_path):
    """Batch norm makes the same of single images, whatever they show, where maps are 1x1."""
    config = settings(train_path=f"{digits}/train", model_arch="mobilenetv2", img_size=32, batch_size=1)
    with tf.Graph().as_default() as graph, tf.Session() as session:
        model = build(config, is4Train=True)
        session.run(tf.global_variables_initializer())
        images = np.random.RandomState(0).normal(0, 1, (3, 32, 32, 3))
        one, other, two = [session.run(model.output, {model.inputImage: images[i]}) for i in ([0], [1], [1, 2])]
    assert np.array_equal(one, other) and np.abs(two[0] - two[1]).max() > 0.1
    with pytest.raises(InputError, match="setting batch_size: found 1, expected 2 or more, .* batch norm in block2/"):
        check_batch_norms(graph, config)
    check_batch_norms(graph, settings(**dict(vars(config), batch_size=2)))
    given = ["--model_arch", "mobilenetv2", "--img_size", "32", "--batch_size", "1"]
    done = run_here("--train_path", f"{digits}/train", *given, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: setting batch_size: found 1, expected 2 or more, or a larger img_size; ")


@pytest.mark.parametrize("train_layers, img_size", [("all", 33), ("head", 32)])
def test_single_images_are_a_batch_if_no_batch_norm_sees_one_number(shrinking, digits, train_layers, img_size):
    config = settings(train_path=f"{digits}/train", model_arch="mobilenetv2", img_size=img_size, batch_size=1)
    with tf.Graph().as_default() as graph:
        build(config, is4Train=train_layers == "all")
    check_batch_norms(graph, config)


@pytest.mark.parametrize("accuracies, counts, is_chance", [
    ([0.5, 0.4], [5, 5], True),
    ([0.5, 0.6, 0.1], [5, 5], False),  # the best of all epochs counts, before a run was resumed too
    ([0.8], [8, 2], True),
    ([0.9], [8, 2], False),
    ([0.1], [1] * 10, True),
    ([29 / 49], [29, 20], True),
    ([30 / 49], [29, 20], False),
])  # fmt: skip
def test_chance_is_the_share_of_the_most_frequent_class(digits, accuracies, counts, is_chance):
    labels = np.repeat(np.arange(len(counts)), counts)
    history = [{"val_acc": accuracy} for accuracy in accuracies]
    note = chance_note(history, labels, settings(train_path=f"{digits}/train"), "graphs/lenet5/now")
    assert (note is not None) == is_chance


def notes(capfd):
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]


def test_a_training_that_has_learned_nothing_says_so_at_its_end(in_tmp_path, capfd, monkeypatch):
    headings = []
    monkeypatch.setattr("utils.training.monitor.draw_grid", lambda *given: headings.append(given[-1]))
    train, images = in_classes("train", photos()), list(photos(20))
    valid = in_classes("valid", images[:10])  # 5 cats, 5 dogs
    for number in range(4):
        os.rename(f"valid/dog/{2 * number + 1:03d}.png", f"valid/cat/{2 * number + 1:03d}.png")
    given = {"train_path": train, "valid_path": valid, "batch_size": 40, "lr": 1e-9, "num_epoch": 1}
    trainer = Trainer(**given, **FOR_255)
    trainer.optimize()
    assert trainer.val_acc <= 0.9
    looked, learned = notes(capfd)
    assert looked.startswith(f"note: {BOTH}found 123.7,")
    expected = f"found {trainer.val_acc:.4f}, expected more than 0.9000, that of always predicting cat, "
    assert learned.startswith(f"note: best validation accuracy: {expected}")
    assert f"look at {trainer.run_folder}/train_batch.png and" in learned and "settings lr, num_epoch, " in learned
    levels = np.array([cv2.imread(path) for path in glob.glob("train/*/*.png")]).reshape(-1, 3) / 255
    entering = (levels - FOR_255["image_normalize_mean"]) / FOR_255["image_normalize_std"]
    assert headings[0].endswith("mean {:.3g},{:.3g},{:.3g}, standard deviation {:.3g},{:.3g},{:.3g}".format(
        *entering.mean(0), *entering.std(0)))  # fmt: skip
    Trainer(resume=True, num_epoch=2).optimize()
    assert [note[:30] for note in notes(capfd)] == [learned[:30]]  # the images were looked at when the run began
    assert len(headings) == 1


def test_a_training_that_has_learned_says_nothing(in_tmp_path, capfd):
    images = [image // 3 + 170 * (number % 2) for number, image in enumerate(photos())]  # dark cats, bright dogs
    trainer = Trainer(train_path=in_classes("train", images), batch_size=8, num_epoch=3)
    trainer.optimize()
    assert max(entry["val_acc"] for entry in trainer.history) > 0.5 and notes(capfd) == []
