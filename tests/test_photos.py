"""Large JPEGs: decoded at a half, a quarter or an eighth of their size where the network sees no difference."""

import cv2
import numpy as np
import pytest

from dataset import DataSet
from src.errors import InputError
from tests.conftest import preprocess
from tests.helpers.image_files import encoded, write
from utils.images import decode
from utils.images.decode import find_problem, read_image
from utils.images.formats import jpeg_frame
from utils.images.loader import Cache
from utils.inference.predictor import Predictor

MODES = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


def photo(width, height, noise=10):
    """Blurred blobs and noise, as from a camera."""
    random = np.random.RandomState(width)
    image = cv2.resize(random.randint(0, 256, (9, 12, 3)).astype(np.uint8), (width, height))
    image = cv2.addWeighted(image, 0.8, np.full_like(image, 25), 1, 0)
    return cv2.add(image, random.randint(0, noise, image.shape).astype(np.uint8))


@pytest.mark.parametrize("size, img_size, divisor", [
    ((4000, 3000), 224, 2),  # 3000 / 224 = 13.4: at a half 6.7 times as large, at a quarter only 3.3 times
    ((4000, 3000), 96, 4),
    ((3000, 4000), 32, 8),
    ((1024, 1024), 32, 8),  # exactly 4 times
    ((1016, 1024), 32, 4),  # an eighth is 127
    ((1000, 750), 32, 2),  # 750 cannot be divided by 4
    ((999, 750), 32, 1),
    ((800, 600), 96, 1),
    ((64, 4000), 16, 1),
])  # fmt: skip
def test_by_how_much(tmp_path, size, img_size, divisor):
    path = write(tmp_path / "photo.jpg", encoded(np.zeros((size[1], size[0], 3), np.uint8), "JPEG"))
    assert read_image(path, img_size).shape == (size[1] // divisor, size[0] // divisor, 3)
    assert read_image(path).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("divisor", sorted(MODES))
def test_it_is_what_libjpeg_makes_of_it(tmp_path, divisor):
    content = encoded(photo(512, 384), "JPEG", quality=90)
    path = write(tmp_path / "photo.jpg", content)
    expected = cv2.imread(path, MODES[divisor])
    assert expected.shape == (384 // divisor, 512 // divisor, 3)
    assert np.array_equal(read_image(path, 384 // divisor // 4), expected)


def test_it_is_rotated_as_its_exif_says(tmp_path):
    exif = b"Exif\0\0" + bytes.fromhex("49492a0008000000010012010300010000000600000000000000")
    path = write(tmp_path / "photo.jpg", encoded(photo(512, 384), "JPEG", exif=exif))
    upright = write(tmp_path / "upright.jpg", encoded(photo(512, 384), "JPEG"))
    assert read_image(path, 16).shape == (128, 96, 3)
    assert np.array_equal(read_image(path, 16), np.rot90(read_image(upright, 16), -1))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_other_formats_are_decoded_whole(tmp_path, kind):
    path = write(tmp_path / "photo", encoded(photo(512, 384), kind))
    assert read_image(path, 8).shape == (384, 512, 3)


@pytest.mark.parametrize("mode", ["stretch", "crop", "pad"])
def test_resized_it_differs_by_less_than_half_a_level(tmp_path, mode):
    path = write(tmp_path / "photo.jpg", encoded(photo(1600, 1200, noise=40), "JPEG", quality=90))
    for img_size in (32, 75, 150):
        images = preprocess(img_size, resize=mode)
        assert images.read(path).shape[0] < 1200
        differences = np.abs(images.load(path).astype(int) - images.fit(read_image(path)))
        assert 0 < differences.max() <= 10 and differences.mean() < 0.5


def test_prediction_sees_what_training_sees(exported, tmp_path):
    path = write(tmp_path / "photo.jpg", encoded(photo(640, 480), "JPEG"))
    predictor = Predictor("weights/lenet5/lenet5.pb")
    data = DataSet([path], np.array([0]), predictor.classes, predictor.preprocess, Cache(0))
    assert np.array_equal(predictor.probabilities(path), predictor.run(data.read(np.array([0])).images))


def test_what_is_wrong_with_it_is_found_at_any_size(tmp_path):
    content = encoded(photo(512, 384), "JPEG")
    path = write(tmp_path / "photo.jpg", content[: len(content) // 2])
    for read in (lambda: read_image(path, 16), lambda: read_image(path)):
        with pytest.raises(InputError, match="photo.jpg: found a truncated JPEG, expected a complete one"):
            read()
    assert "truncated" in str(find_problem(path))


def test_the_limit_of_pixels_is_that_of_the_file(tmp_path, monkeypatch):
    path = write(tmp_path / "photo.jpg", encoded(photo(512, 384), "JPEG"))
    monkeypatch.setattr(decode, "pixel_limit", lambda: 512 * 384 - 1)
    assert read_image(path, 16).shape == (384, 512, 3)  # OpenCV, whose own limit it is, would refuse it


def test_the_size_in_the_header_is_not_that_of_the_thumbnail():
    thumbnail = encoded(photo(160, 120), "JPEG")
    content = encoded(photo(512, 384), "JPEG", exif=b"Exif\0\0" + bytes(8) + thumbnail)
    assert jpeg_frame(content) == (3, 512, 384)
    assert jpeg_frame(encoded(photo(512, 384)[..., 0], "JPEG")) == (1, 512, 384)
    assert jpeg_frame(content[:20]) == (0, 0, 0)
