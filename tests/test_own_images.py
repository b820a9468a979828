"""Folders of images as people have them: their shapes, formats and sizes of classes."""

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


def test_broken_images_are_left_out_and_counted_if_asked_for(folders, in_tmp_path, capfd):
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
                stack.enter_context(pytest.raises(InputError, match="found a truncated JPEG, expected"))
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
        "from utils.images.decode import find_problem; print(find_problem('bomb.png')); "
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    done = python("-c", code, cwd=tmp_path)
    line, kilobytes = done.stdout.splitlines()
    assert (
        line == "image bomb.png: found a PNG of 50000x50000 pixels, expected at most 268 million"
        and int(kilobytes) < 500000
    )
