"""Folders of images as people have them: their shapes, formats, sizes of classes, and what is wrong with them."""

import contextlib
import json
import os
import shutil
import struct
import zlib

import cv2
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

import run
from dataset import balanced_weights, read_train_sets
from src.errors import InputError
from src.settings import settings
from tests.conftest import preprocess, python
from trainer import Trainer
from utils.images.decode import read_image
from utils.images.preprocess import Preprocess


def numbered(height, width):
    """An image whose pixels tell where they are: blue: the column, green: the row."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(width), np.arange(height)[:, np.newaxis]
    return image


@pytest.mark.parametrize("shape", [(60, 100), (100, 60)])
def test_crop_is_the_middle(shape):
    """60x100 at size 60: columns 20 to 79 as they are."""
    cropped = preprocess(60, resize="crop").fit(numbered(*shape))
    expected = numbered(*shape)[:, 20:80] if shape[1] == 100 else numbered(*shape)[20:80]
    assert np.array_equal(cropped, expected)


@pytest.mark.parametrize("shape", [(60, 100), (100, 60)])
def test_pad_is_all_of_it_with_borders(shape):
    padded = preprocess(100, resize="pad", image_normalize_mean=[1 / 255, 2 / 255, 3 / 255]).fit(numbered(*shape))
    expected = np.full((100, 100, 3), (1, 2, 3), np.uint8)
    inside = (slice(20, 80), slice(None)) if shape[1] == 100 else (slice(None), slice(20, 80))
    expected[inside] = numbered(*shape)
    assert np.array_equal(padded, expected)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (31, 33), (64, 64), (1000, 7)])
def test_every_shape_becomes_the_square(resize, shape):
    assert preprocess(32, resize=resize).fit(np.zeros((*shape, 3), np.uint8)).shape == (32, 32, 3)


def test_a_photo_is_made_small_by_the_means_of_areas():
    image = np.random.RandomState(0).randint(0, 256, (96, 160, 3)).astype(np.uint8)
    means = image.reshape(32, 3, 32, 5, 3).mean(axis=(1, 3))
    assert np.abs(preprocess(32).fit(image) - means).max() <= 0.51  # rounded


def test_stretch_is_opencv_s_bilinear_up_to_half_the_size():
    image = np.random.RandomState(0).randint(0, 256, (50, 64, 3)).astype(np.uint8)
    assert np.array_equal(preprocess(32).fit(image), cv2.resize(image, (32, 32), interpolation=cv2.INTER_LINEAR))


@pytest.mark.parametrize("channel_order", ["bgr", "rgb"])
def test_borders_are_the_mean_colour_which_is_normalized_to_zero(folders, in_tmp_path, channel_order):
    path = folders({"cat": 10, "dog": 10})
    for name in ("cat", "dog"):
        for number in range(10):
            cv2.imwrite(f"{path}/{name}/{number:03d}.png", np.zeros((10, 40, 3), np.uint8))
    config = settings(train_path=path, img_size=16, resize="pad", channel_order=channel_order)
    images = read_train_sets(config).train.next_batch(8).images
    assert np.abs(images[:, 0]).max() < 0.01 and np.abs(images[:, 8]).min() > 1
    assert Preprocess.of(config).fit(np.zeros((10, 40, 3), np.uint8))[0, 0].tolist() == (
        [124, 116, 104] if channel_order == "bgr" else [104, 116, 124]
    )


def test_training_prediction_and_the_json_say_the_same_of_the_shape(folders, in_tmp_path, capsys):
    path = folders({"cat": 20, "dog": 20})
    arguments = ["--train_path", path, "--test_path", path, "--img_size", "16", "--batch_size", "8"]
    assert run.main([*arguments, "--resize", "crop"]) == 0
    with open("weights/lenet5/lenet5.json") as file:
        assert '"resize": "crop"' in file.read()
    image = numbered(60, 120)
    image[:, :30], image[:, 90:] = 255, 255  # what crop cuts away
    cv2.imwrite("wide.png", image)
    cv2.imwrite("square.png", image[:, 30:90])
    capsys.readouterr()
    assert run.main(["predict", "--json", "wide.png", "square.png"]) == 0
    wide, square = [json.loads(line)["predictions"] for line in capsys.readouterr().out.splitlines()]
    assert [found["probability"] for found in wide] == pytest.approx(
        [found["probability"] for found in square], abs=1e-4
    )


def jpeg_with_orientation(path, image, orientation):
    """A JPEG with an EXIF segment that says how it is turned, written by hand: TIFF header, one entry, tag 0x0112."""
    content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b"Exif\0\0" + tiff
    with open(path, "wb") as file:
        file.write(content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:])


TURNED = {  # EXIF 2.3, table 6: what has to be done to the stored image to see it upright
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image),
}


@pytest.mark.parametrize("orientation", sorted(TURNED))
def test_photos_are_turned_upright_from_file_and_from_the_cache(folders, in_tmp_path, orientation):
    path = folders({"cat": 10, "dog": 10})
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20, :30], image[:20, 30:], image[20:, :30] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    shutil.rmtree(f"{path}/cat")
    os.mkdir(f"{path}/cat")
    for number in range(10):
        jpeg_with_orientation(f"{path}/cat/{number}.jpg", image, orientation)
    upright = TURNED[orientation](image)
    found = read_image(f"{path}/cat/0.jpg")
    assert found.shape == upright.shape and np.abs(found.astype(int) - upright).mean() < 8
    data = read_train_sets(settings(train_path=path, img_size=16, batch_size=8)).train
    first, again = [next(data.batches(data.num_examples)).images for _ in range(2)]
    assert np.array_equal(first, again)
    expected = cv2.resize(np.ascontiguousarray(upright), (16, 16)) / 255.0
    expected = (expected - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.abs(first[0] - expected).mean() < 0.2


@pytest.mark.parametrize("kind", [".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".PNG", ".Tiff"])
def test_every_format_is_read(folders, in_tmp_path, kind):
    path = folders({"cat": 10, "dog": 10})
    image = np.full((20, 20, 3), (200, 100, 50), np.uint8)
    with open(f"{path}/cat/a{kind}", "wb") as file:  # OpenCV knows no .jfif
        file.write(cv2.imencode(kind.replace("jfif", "jpg"), image)[1].tobytes())
    data = read_train_sets(settings(train_path=path, img_size=16, batch_size=8))
    assert data.train.num_examples + data.valid.num_examples == 21
    assert np.abs(read_image(f"{path}/cat/a{kind}").astype(int) - image).max() < 8


def test_validation_images_of_one_s_own(folders, in_tmp_path):
    train, valid = folders({"cat": 20, "dog": 20}), folders({"cat": 5, "dog": 3}, name="valid")
    config = settings(train_path=train, valid_path=valid, img_size=16, batch_size=8)
    data = read_train_sets(config)
    assert (data.train.num_examples, data.valid.num_examples) == (40, 8)
    assert all(path.startswith(train) for path in data.train.paths)
    assert all(path.startswith(valid) for path in data.valid.paths)
    assert data.valid.labels.tolist() == 5 * [0] + 3 * [1]
    Trainer(**vars(config)).optimize(1)
    os.rename(f"{valid}/dog", f"{valid}/dogs")
    os.rename(f"{valid}/cat", f"{valid}/cats")
    with pytest.raises(InputError, match="setting valid_path: found no folder .*/valid/cat, .*; did you mean cats?"):
        Trainer(**vars(config))


def test_make_takes_the_validation_images_that_are_there(tmp_path):
    """make -n shows the commands without running them; the shell is told to do the same."""
    with open(os.path.join(os.path.dirname(os.path.dirname(__file__)), "Makefile")) as file:
        recipe = file.read().split("run: python $(INSTALLED)\n")[1].split("\n\n")[0]
    script = recipe.split("@train=")[1].split("$(if")[0].replace("$$", "$").replace("\\\n", "")
    script = "train=" + script.replace("$(DATA)", "flowers").replace("$(VENV)/bin/python", "echo")
    for name in ("val", "valid", "validation"):
        (tmp_path / name / "flowers" / "train").mkdir(parents=True)
        (tmp_path / name / "flowers" / name).mkdir()
        done = python("-c", f"import subprocess; subprocess.run(['sh', '-c', {script!r}])", cwd=tmp_path / name)
        assert done.stdout.split() == [
            "run.py", "--train_path", "flowers/train", "--test_path", "flowers/test", "--valid_path", f"flowers/{name}",
        ]  # fmt: skip


def test_balanced_weights_are_scikit_learn_s():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 7)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced_weights(labels, ["a", "b", "c"]), expected, rtol=1e-6)
    with pytest.raises(InputError, match="setting class_weights: found no training image of d left after the split"):
        balanced_weights(labels, ["a", "b", "c", "d"])


def test_class_weights_are_in_the_training_cost_alone(folders, in_tmp_path):
    path = folders({"cat": 30, "dog": 10})
    trainer = Trainer(train_path=path, img_size=16, batch_size=8, class_weights="balanced")
    counts = np.bincount(trainer.data.train.labels)
    batch = trainer.data.train.next_batch(8)
    feed = {trainer.x: batch.images, trainer.y_true: batch.labels}
    cost, each, inference = trainer.session.run([trainer.cost, trainer.cross_entropy, trainer.inference], feed)
    weights = counts.sum() / (2.0 * counts)
    assert cost == pytest.approx((each * weights[batch.labels.argmax(1)]).mean(), rel=1e-5)
    assert inference[0] == pytest.approx(each.mean(), rel=1e-5)


def test_broken_images_are_left_out_and_counted_if_that_is_said(folders, in_tmp_path, capfd):
    path = folders({"cat": 20, "dog": 20})
    for name in ("cat/003.png", "dog/007.png"):
        with open(f"{path}/{name}", "w") as file:
            file.write("no image")
    given = {"train_path": path, "img_size": 16, "batch_size": 8}
    with pytest.raises(InputError, match="image .*/00[37].png: found a text file, expected a PNG"):
        Trainer(**given).optimize(1)
    capfd.readouterr()
    trainer = Trainer(bad_images="skip", **given)
    trainer.optimize(2)
    output = capfd.readouterr()
    assert trainer.data.train.num_examples + trainer.data.valid.num_examples == 38
    assert f"note: skipped in {path}: 2 corrupt images" in output.out


def test_a_jpeg_that_is_cut_short_is_broken_even_if_its_thumbnail_is_whole(tmp_path):
    image = np.random.RandomState(0).randint(0, 256, (90, 90, 3)).astype(np.uint8)
    path, thumbnail = str(tmp_path / "photo.jpg"), cv2.imencode(".jpg", image[:20, :20])[1].tobytes()
    content = cv2.imencode(".jpg", image)[1].tobytes()
    content = content[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + content[2:]
    for length, is_whole in ((len(content), True), (len(content) - 2, False), (len(content) // 2, False)):
        with open(path, "wb") as file:
            file.write(content[:length])
        with contextlib.ExitStack() as stack:
            if not is_whole:
                stack.enter_context(pytest.raises(InputError, match="found a JPEG that is cut short, expected"))
            assert read_image(path).shape == (90, 90, 3)


def test_a_thin_image_is_cropped_without_becoming_huge():
    image = np.arange(40000, dtype=np.uint8).reshape(40000, 1, 1).repeat(3, axis=2)
    cropped = preprocess(224, resize="crop").fit(image)  # whole, it would have 2 billion pixels
    assert cropped.shape == (224, 224, 3)
    expected = cv2.resize(image[19998:20002], (224, 896), interpolation=cv2.INTER_LINEAR)[336:560]
    assert np.array_equal(cropped, expected)


def bomb(path):
    """A PNG of a few bytes that claims 50,000 x 50,000 pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 50000, 50000, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + content)


def test_an_image_that_claims_gigabytes_is_one_line(tmp_path):
    bomb(str(tmp_path / "bomb.png"))
    code = (
        "from utils.images.decode import problem_of; print(problem_of('bomb.png')); "
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    done = python("-c", code, cwd=tmp_path)
    line, kilobytes = done.stdout.splitlines()
    assert (
        line == "image bomb.png: found a PNG of 50000x50000 pixels, expected at most 268 million"
        and int(kilobytes) < 500000
    )


@pytest.fixture
def odd(folders, in_tmp_path):
    """Folders with all that is odd: returns the arguments that name them."""
    train = folders({"cat": 40, "dog": 10})
    test = folders({"cat": 5, "dog": 5}, name="test")
    valid = folders({"cat": 5, "dog": 5}, name="valid")
    random = np.random.RandomState(9)  # the other sets of the fixture have the same images in them
    for part in (test, valid):
        for folder, _, names in os.walk(part):
            for name in names:
                cv2.imwrite(os.path.join(folder, name), random.randint(0, 256, (16, 16, 3)).astype(np.uint8))
    return ["--train_path", train, "--test_path", test, "--valid_path", valid, "--img_size", "16"]


def spoil(work):
    random = np.random.RandomState(3)
    shutil.copy("train/cat/001.png", "train/dog/copy.png")
    shutil.copy("train/cat/002.png", "test/cat/copy.png")
    with open("valid/dog/broken.png", "w") as file:
        file.write("no image")
    content = cv2.imencode(".jpg", random.randint(0, 256, (90, 90, 3)).astype(np.uint8))[1].tobytes()
    with open("train/cat/cut.jpg", "wb") as file:
        file.write(content[:-2])
    cv2.imwrite("train/cat/deep.png", random.randint(0, 65536, (16, 16, 3)).astype(np.uint16))
    cv2.imwrite("train/cat/long.png", random.randint(0, 256, (10, 100, 3)).astype(np.uint8))
    cv2.imwrite("train/cat/dot.png", random.randint(0, 256, (2, 2)).astype(np.uint8))


def test_check_finds_nothing_where_nothing_is_wrong(odd, capsys):
    assert run.main(["check", *odd]) == 0
    output = capsys.readouterr().out
    assert "train_path: 50 images of 2 classes" in output and "no image is there twice" in output
    assert "10 (dog) to 40 (cat) images in a class; uneven: --class_weights balanced may help" in output
    assert cv2.imread("samples.png").shape[1] > 800


def test_check_names_what_it_was_given_and_does_not_find(odd, capsys):
    os.symlink("loop.png", "train/cat/loop.png")
    shutil.rmtree("valid/dog")
    assert run.main(["check", *odd]) == 1
    output = capsys.readouterr().out
    assert "train/cat/loop.png: cannot be read (Too many levels of symbolic links)" in output
    assert "valid/dog, expected one with images of that class" in output
    assert run.main(["check", *odd, "--valid_path", "nowhere"]) == 1
    assert "setting valid_path: found no folder nowhere" in capsys.readouterr().out


def test_check_finds_what_opencv_reads_only_in_part(odd, capfd, monkeypatch):
    """Such as damaged TIFFs of 16 bit: IMREAD_COLOR gives an image, IMREAD_UNCHANGED none."""
    imdecode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda data, mode: None if mode < 0 and 7 in data else imdecode(data, mode))
    assert run.main(["check", *odd]) == 1
    assert "000.png: found a file that OpenCV reads only in part" in capfd.readouterr().out


def test_check_lists_all_that_is_odd(odd, capfd):
    spoil(None)
    assert run.main(["check", *odd]) == 1
    output = capfd.readouterr()
    for text in (
        "the same image in different classes: ", "train/dog/copy.png", "the same image in different sets: ",
        "test/cat/copy.png", "valid/dog/broken.png: found a text file, expected", "train/cat/cut.jpg: found",
        "16x16 (52)", "16 bit, colour (1)", "train/cat/long.png: is more than 3 times as long as wide",
        "train/cat/dot.png: is less than a quarter of img_size",
    ):  # fmt: skip
        assert text in output.out, text
    assert output.err == ""


def test_a_folder_with_all_that_is_odd_goes_the_whole_way(odd, capfd):
    spoil(None)
    with open("train/cat/Thumbs.db", "w"), open("train/dog/notes.txt", "w"):
        os.makedirs("train/cat/more")
    settings_given = ["--bad_images", "skip", "--class_weights", "balanced", "--resize", "pad", "--batch_size", "8"]
    assert run.main([*odd, *settings_given, "--num_epoch", "2"]) == 0
    output = capfd.readouterr().out
    assert f"note: skipped in {odd[1]}: 1 .db, 1 .txt, 1 corrupt image, 1 folder\n" in output
    assert f"note: skipped in {odd[5]}: 1 corrupt image\n" in output
    with open("test/dog/cut.png", "w"):  # a run that skips corrupt images is evaluated without them
        assert run.main(["evaluate"]) == 0
    output = capfd.readouterr()
    assert "balanced accuracy" in output.out and output.err == f"note: skipped in {odd[3]}: 1 corrupt image\n"
    assert run.main(["explain", *["train/dog/000.png"] * 101]) == 2
    assert "explain: found 101 images, expected at most 100 for one picture" in capfd.readouterr().err
    assert run.main(["explain", "train/cat"]) == 2
    assert "train/cat/cut.jpg" in capfd.readouterr().err
    assert run.main(["explain", "train/cat/long.png", "train/dog/000.png"]) == 0
    assert cv2.imread("explanation.png").shape[0] > 300
