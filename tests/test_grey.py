"""Setting numchannels 1: grey images, from the file to the exported graph."""

import json
import os
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import run
from convert.compare import open_reference
from convert.pb2tflite import open_model, pb2tflite
from dataset import read_train_sets
from models import build
from src.errors import InputError
from src.settings import settings
from src.tf1 import tf
from tests.conftest import preprocess, run_opencv
from trainer import Trainer
from utils.checkpoints.pretrained import check_settings
from utils.inference.exported import read_metadata
from utils.inference.predictor import Predictor

GREY = {"numchannels": 1, "image_normalize_mean": [0.449], "image_normalize_std": [0.226]}  # means of the defaults
COLOURS = np.random.RandomState(0).randint(0, 256, (40, 60, 3)).astype(np.uint8)  # blue, green, red
WEIGHTS = [0.114, 0.587, 0.299]  # ITU-R BT.601


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_what_the_network_sees(resize):
    size = 20
    found = preprocess(size, resize=resize, **GREY).fit(COLOURS)
    assert found.shape == (20, 20, 1) and found.dtype == np.uint8
    colours = preprocess(size, resize=resize).fit(COLOURS)
    inside = np.s_[3:16] if resize == "pad" else np.s_[:]
    assert np.abs(found[inside, :, 0] - (colours @ WEIGHTS)[inside]).max() <= 1.5
    if resize == "pad":
        assert (found[:3] == 114).all() and (found[17:] == 114).all()  # 0.449 * 255 = 114.5, rounded to even


def test_normalization_by_hand():
    images = np.arange(256).astype(np.uint8).reshape(1, 16, 16, 1)
    how = preprocess(16, **GREY)
    found = how.normalize(images)
    np.testing.assert_allclose(found.ravel(), (np.arange(256) / 255 - 0.449) / 0.226, atol=1e-5)
    assert found.shape == (1, 16, 16, 1) and found.dtype == np.float32
    assert np.array_equal(how.to_rgb(found), np.repeat(images, 3, axis=3))


def test_grey_images_are_augmented_as_those_of_three_equal_channels(folders):
    """Their epochs have the same shifts and mirror images, as these depend on the seed alone."""
    path = folders({"cat": 20, "dog": 30})
    found, colours = (
        read_train_sets(settings(train_path=path, img_size=16, augment="crop+flip", **given)).train
        for given in (GREY, {"image_normalize_mean": [0.0] * 3, "image_normalize_std": [1.0] * 3})
    )
    for grey, coloured in zip(found.epoch(7), colours.epoch(7)):
        expected = coloured.images * 255 @ WEIGHTS
        assert grey.images.shape == (7, 16, 16, 1) and grey.ids == coloured.ids
        assert np.abs((grey.images[..., 0] * 0.226 + 0.449) * 255 - expected).max() <= 0.51


@pytest.mark.parametrize("order", ["bgr", "rgb"])
def test_the_order_of_channels_does_not_matter(order):
    how = preprocess(16, channel_order=order, **GREY)
    assert np.array_equal(
        how.normalize(how.fit(COLOURS)[np.newaxis]), preprocess(16, **GREY).normalize(how.fit(COLOURS)[np.newaxis])
    )


def test_mean_and_std_become_one_number(two_classes):
    def found(**given):
        config = settings(**given)
        return config.image_normalize_mean, config.image_normalize_std

    assert found(numchannels=1) == ([0.449], [0.226])
    assert found(numchannels=1, image_normalize_mean=[0.5], image_normalize_std=[0.1, 0.2, 0.6]) == ([0.5], [0.3])
    assert found() == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with pytest.raises(InputError, match="setting image_normalize_std: found .0.5. for numchannels 3, expected three"):
        settings(image_normalize_std=[0.5])


def test_summary_shows_the_paper_s_number_of_parameters(capsys):
    """Convolutions 5·5·1·6 + 6 and 5·5·6·16 + 16, then 400·120 + 120, 120·84 + 84, 84·10 + 10."""
    assert run.main(["summary", "--numchannels", "1", "--total_class", "10"]) == 0
    out = capsys.readouterr().out
    assert "lenet5, 32x32x1, 10 classes" in out and " 61,706 " in out
    assert 61706 == 156 + 2416 + 48120 + 10164 + 850


@pytest.mark.parametrize("model_arch, kernel, shape", [
    ("lenet5", "conv1/kernel", [5, 5, 1, 6]), ("mobilenetv2", "first/kernel", [3, 3, 1, 32]),
])  # fmt: skip
def test_the_first_kernel_has_one_channel(two_classes, model_arch, kernel, shape):
    with tf.Graph().as_default():
        build(settings(model_arch=model_arch, img_size=32, numchannels=1), is4Train=True)
        found = {variable.op.name: variable.shape.as_list() for variable in tf.trainable_variables()}
    assert found[kernel] == shape


@pytest.fixture
def grey(folders, in_tmp_path):
    """The folder of the images of a trained grey network."""
    path = folders({"cat": 20, "dog": 20})
    words = ["--train_path", path, "--test_path", path, "--img_size", "16", "--batch_size", "8", "--numchannels", "1"]
    assert run.main(words) == 0
    return path


def test_the_exported_graph_predicts_as_opencv_does(grey, capsys):
    with open("weights/lenet5/lenet5.json") as file:
        about = json.load(file)
    assert about["input"]["shape"] == [None, 16, 16, 1]
    assert about["image_normalize_mean"] == [0.449] and about["preprocessing"]["border_colour"] == [114]
    image = f"{grey}/cat/003.png"
    pixels = cv2.cvtColor(cv2.imread(image), cv2.COLOR_BGR2GRAY)
    assert pixels.shape == (16, 16)
    logits = run_opencv("weights/lenet5/lenet5.pb", ((pixels / 255.0 - 0.449) / 0.226)[np.newaxis, ..., np.newaxis])
    expected = np.exp(logits[0]) / np.exp(logits[0]).sum()
    predictor = Predictor("weights/lenet5/lenet5.pb")
    np.testing.assert_allclose(predictor.probabilities(image)[0], expected, atol=1e-5)
    np.testing.assert_allclose(predictor.probabilities(pixels)[0], expected, atol=1e-5)  # an array
    assert run.main(["evaluate"]) == 0 and run.main(["explain", image]) == 0
    assert os.path.exists("explanation.png")


def test_a_tflite_model_for_phones_takes_colours(grey):
    pb2tflite(open_reference(), rgb=True)
    levels = np.random.RandomState(1).randint(0, 256, (1, 16, 16, 3)).astype(np.float32)  # red, green, blue
    found = open_model("weights/lenet5/lenet5-rgb.tflite")(levels)
    expected = run_opencv("weights/lenet5/lenet5.pb", ((levels @ WEIGHTS[::-1]) / 255 - 0.449)[..., np.newaxis] / 0.226)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_training_says_what_images_are_normalized_with(two_classes, capfd):
    Trainer(train_path=two_classes.train_path, img_size=16, batch_size=8, numchannels=1).close()
    assert "read as grey, with image_normalize_mean 0.449 and image_normalize_std 0.226" in capfd.readouterr().out


def test_grey_weights_start_a_grey_network_only(grey, capfd):
    words = ["--train_path", grey, "--batch_size", "8", "--pretrained", "checkpoints/lenet5"]
    assert run.main(words) == 0  # numchannels follows from the weights
    assert "loaded 10 of 10 variables" in capfd.readouterr().out
    assert run.main([*words, "--numchannels", "3"]) == 2
    error = capfd.readouterr().err
    assert (
        "setting pretrained: found weights for numchannels 1 in checkpoints/lenet5, expected for numchannels 3" in error
    )


def test_the_same_command_resumes_also_with_three_means(grey, capfd):
    words = ["--train_path", grey, "--img_size", "16", "--batch_size", "8", "--numchannels", "1", "--num_epoch", "2"]
    assert run.main([*words, "--image_normalize_mean", "0.485,0.456,0.406", "--resume"]) == 0
    assert run.main([*words, "--image_normalize_mean", "0.5", "--resume"]) == 2
    assert "setting image_normalize_mean: found [0.5], expected [0.449]" in capfd.readouterr().err


def test_a_grey_network_of_keras_that_fits_gives_no_note(capsys):
    config = settings(classes=["a", "b"], numchannels=1, image_normalize_mean=[0.5], image_normalize_std=[0.5])
    recorded = {"width": 1.0, "image_normalize_mean": [0.5] * 3, "image_normalize_std": [0.5] * 3}
    network = SimpleNamespace(weights={"first/kernel": np.zeros((3, 3, 1, 32))}, settings=recorded, unread=[])
    check_settings(config, network)
    assert capsys.readouterr().err == ""
    with pytest.raises(
        InputError, match="whose first kernel has 1 input channel, expected 3, as in setting numchannels"
    ):
        check_settings(settings(classes=["a", "b"]), network)


def test_metadata_of_another_number_of_channels_is_refused(grey):
    with open("weights/lenet5/lenet5.json") as file:
        about = json.load(file)
    about["image_normalize_mean"] = [0.5, 0.5, 0.5]
    with open("weights/lenet5/lenet5.json", "w") as file:
        json.dump(about, file)
    expected = r"lenet5.json: found \[0.5, 0.5, 0.5\] for image_normalize_mean, expected numbers for 1 channels"
    with pytest.raises(InputError, match=expected):
        read_metadata("weights/lenet5/lenet5.json")
