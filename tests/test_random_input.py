"""Random values, texts and images are taken or refused in one line."""

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, strategies
from hypothesis import settings as example_settings

from src.errors import InputError
from src.settings import SETTINGS, settings
from tests.conftest import preprocess
from tests.helpers.bad_input import write

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
def test_a_corrupt_image_is_read_in_shape_or_refused(image_file, kind, shape, flips, length):
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
