"""Setting transparency; Pillow's alpha_composite says how an image looks on a background."""

import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

import run
from tests.conftest import preprocess
from tests.helpers.image_files import write
from tests.test_decode import tiff
from utils.commands.check import thumbnail
from utils.images.decode import read_image
from utils.images.pixels import pixels_of
from utils.inference.predictor import Predictor

RANDOM = np.random.RandomState(0)
PIXELS = RANDOM.randint(0, 256, (20, 30, 4)).astype(np.uint8)  # red, green, blue, alpha
PIXELS[:4, :, 3], PIXELS[4:8, :, 3] = 0, 255
BACKGROUNDS = {"white": (255, 255, 255, 255), "black": (0, 0, 0, 255)}


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def palette():
    image = Image.fromarray(PIXELS[..., :3]).quantize(8)
    return saved(image, "PNG", transparency=3)


FILES = {
    "PNG": lambda: saved(Image.fromarray(PIXELS), "PNG"),
    "grey PNG": lambda: saved(Image.fromarray(PIXELS).convert("LA"), "PNG"),
    "palette PNG": palette,
    "WebP": lambda: saved(Image.fromarray(PIXELS), "WEBP", lossless=True, exact=True),
    "TIFF": lambda: saved(Image.fromarray(PIXELS), "TIFF"),
}


def on_background(content, transparency):
    """By Pillow: uint8 [H, W, 3], channels blue, green, red."""
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    background = Image.new("RGBA", image.size, BACKGROUNDS[transparency])
    return np.array(Image.alpha_composite(background, image))[..., 2::-1].astype(int)


@pytest.mark.parametrize("transparency", sorted(BACKGROUNDS))
@pytest.mark.parametrize("kind", sorted(FILES))
def test_files(tmp_path, kind, transparency):
    content = FILES[kind]()
    path = write(tmp_path / "image", content)
    found = read_image(path, transparency=transparency)
    assert found.dtype == np.uint8 and np.abs(found - on_background(content, transparency)).max() <= 1
    if (kind, transparency) != ("TIFF", "black"):  # libtiff multiplies the colours by alpha, which is as on black
        assert np.abs(read_image(path).astype(int) - found).max() > 100


@pytest.mark.parametrize("transparency", sorted(BACKGROUNDS))
@pytest.mark.parametrize("kind", [".png", ".tiff"])
def test_16_bits(tmp_path, kind, transparency):
    content = cv2.imencode(kind, PIXELS[..., [2, 1, 0, 3]].astype(np.uint16) * 257)[1].tobytes()
    found = read_image(write(tmp_path / "image", content), transparency=transparency)
    assert np.abs(found - on_background(FILES["PNG"](), transparency)).max() <= 1


@pytest.mark.parametrize("kind", [".png", ".jpg", ".bmp", ".webp", ".tiff"])
def test_nothing_changes_without_transparency(tmp_path, kind):
    path = str(tmp_path / f"image{kind}")
    cv2.imwrite(path, PIXELS[..., :3])
    assert np.array_equal(read_image(path, transparency="white"), read_image(path))


def test_the_fourth_channel_of_a_bmp_is_not_transparency(tmp_path):
    path = str(tmp_path / "image.bmp")
    cv2.imwrite(path, np.dstack([PIXELS[..., :3], np.zeros((20, 30), np.uint8)]))
    assert np.array_equal(read_image(path, transparency="white"), PIXELS[..., :3])


@pytest.mark.parametrize("transparency", sorted(BACKGROUNDS))
def test_colours_that_a_tiff_stores_multiplied_by_alpha(tmp_path, transparency):
    """By hand, of 16 bits: ExtraSamples, tag 338, is 1; each of red, green, blue is at most alpha."""
    stored = np.minimum(PIXELS, PIXELS[..., 3:]).astype("<u2") * 257
    tags = {256: 30, 257: 20, 258: 16, 259: 1, 262: 2, 273: 0, 277: 4, 278: 20, 279: stored.nbytes, 338: 1}
    found = read_image(write(tmp_path / "image", tiff(stored.tobytes(), tags)), transparency=transparency)
    colours, alpha = stored[..., 2::-1] // 257, PIXELS[..., 3:].astype(int)
    assert np.abs(found - (colours + (255 - alpha if transparency == "white" else 0))).max() <= 1


def test_samples_of_check_are_on_the_background(tmp_path):
    path = write(tmp_path / "image.png", FILES["PNG"]())
    white = on_background(FILES["PNG"](), "white")[..., ::-1]
    assert np.abs(thumbnail(path, "white") - white).max() <= 1


@pytest.mark.parametrize("transparency", sorted(BACKGROUNDS))
def test_arrays_and_pillow_images(transparency):
    how = preprocess(8, transparency=transparency)
    expected = on_background(FILES["PNG"](), transparency)
    for image, rgb in ((PIXELS, True), (PIXELS[..., [2, 1, 0, 3]], False), (Image.fromarray(PIXELS), False)):
        assert np.abs(pixels_of(image, rgb, "image", how) - expected).max() <= 1
    content = palette()
    found = pixels_of(Image.open(io.BytesIO(content)), False, "image", how)
    assert np.abs(found - on_background(content, transparency)).max() <= 1


def test_training_evaluation_and_prediction_see_the_background(folders, in_tmp_path, capsys):
    """Black drawings on nothing: they can be told apart on white only, as check says."""
    path = folders({"bar": 20, "dot": 20})
    for number in range(20):
        for name, part in (("bar", np.s_[2:14, 4:12]), ("dot", np.s_[6:9, 6:9])):
            drawing = np.zeros((16, 16, 4), np.uint8)
            drawing[part] = 0, 0, 0, 255
            drawing[15, number % 16, 3] = 255
            cv2.imwrite(f"{path}/{name}/{number:03d}.png", drawing)
    data = ["--train_path", path, "--test_path", path]
    assert run.main(["check", *data, "--transparency", "white"]) == 1  # the others are duplicates
    assert "40 images with transparency: the network sees them on a white background" in capsys.readouterr().out
    words = [*data, "--img_size", "16", "--batch_size", "8", "--num_epoch", "5", "--transparency", "white"]
    assert run.main(words) == 0
    with open("weights/lenet5/lenet5.json") as file:
        about = json.load(file)
    assert about["transparency"] == "white" and "by a white background" in about["preprocessing"]["decode"]
    predictor = Predictor("weights/lenet5/lenet5.pb")
    for name in ("bar", "dot"):
        assert predictor(f"{path}/{name}/003.png")[0][0] == name
    assert run.main(["evaluate"]) == 0
    assert "40 images: loss 0.0" in capsys.readouterr().out
