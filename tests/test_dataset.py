"""From image files to batches: normalization, order, cache, reading ahead and augmentation."""

import os
import threading
import time
import tracemalloc

import cv2
import numpy as np
import pytest

from dataset import DataSet, read_test_set, read_train_sets
from src.errors import InputError
from src.settings import settings
from tests.conftest import every_id, preprocess
from utils.images.decode import read_image
from utils.images.loader import Cache, ImageFiles, prefetch

# A pixel of blue 255, green 0, red 51, worked out by hand: (255/255 - .485) / .229, (0 - .456) / .224, ...
BGR_NORMALIZED = [2.248908, -2.035714, -0.915556]
# Red first: (51/255 - .485) / .229, (0 - .456) / .224, (255/255 - .406) / .225
RGB_NORMALIZED = [-1.244541, -2.035714, 2.640000]


def normalized(image, size, channel_order):
    prepared = preprocess(size, channel_order=channel_order)
    return prepared.normalize(prepared.fit(image)[np.newaxis])[0]


def normalized_plainly(image, size):
    """Normalization without a table."""
    result = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    result = np.multiply(result, 1.0 / 255.0)
    for channel in range(3):
        result[:, :, channel] -= [0.485, 0.456, 0.406][channel]
        result[:, :, channel] /= [0.229, 0.224, 0.225][channel]
    return result


@pytest.mark.parametrize("channel_order, expected", [("bgr", BGR_NORMALIZED), ("rgb", RGB_NORMALIZED)])
def test_a_pixel_is_normalized_as_worked_out_by_hand(channel_order, expected):
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 1] = [255, 0, 51]
    np.testing.assert_allclose(normalized(image, 2, channel_order)[0, 1], expected, atol=2e-6)


def test_normalization_equals_plain_arithmetic_bit_for_bit():
    image = np.random.RandomState(0).randint(0, 256, (40, 30, 3)).astype(np.uint8)
    assert np.array_equal(normalized(image, 32, "bgr"), normalized_plainly(image, 32))


@pytest.mark.parametrize(
    "name, pixels",
    [
        ("grey.png", np.full((5, 7), 90, np.uint8)),
        ("grey.bmp", np.full((5, 7), 90, np.uint8)),
        ("colour.jpg", np.full((5, 7, 3), 90, np.uint8)),
        ("alpha.png", np.dstack([np.full((5, 7, 3), 90, np.uint8), np.zeros((5, 7, 1), np.uint8)])),
        ("deep.png", np.full((5, 7, 3), 90 * 257, np.uint16)),
        ("deep_grey.png", np.full((5, 7), 90 * 257, np.uint16)),
    ],
)
def test_every_kind_of_image_becomes_three_channels_of_8_bit(tmp_path, name, pixels):
    path = str(tmp_path / name)
    assert cv2.imwrite(path, pixels)
    image = read_image(path)
    assert image.shape == (5, 7, 3) and image.dtype == np.uint8
    assert np.array_equal(image, np.full((5, 7, 3), 90, np.uint8))


def test_a_palette_image_becomes_colour(tmp_path):
    # 1x1 BMP with a palette of two colours; its pixel has the second: blue 1, green 2, red 3.
    header = b"BM" + (66).to_bytes(4, "little") + bytes(4) + (62).to_bytes(4, "little")
    info = b"".join(
        value.to_bytes(size, "little")
        for value, size in [(40, 4), (1, 4), (1, 4), (1, 2), (1, 2), (0, 4), (4, 4), (0, 4), (0, 4), (2, 4), (0, 4)]
    )
    (tmp_path / "palette.bmp").write_bytes(header + info + bytes([9, 9, 9, 0, 1, 2, 3, 0]) + bytes([0x80, 0, 0, 0]))
    assert read_image(str(tmp_path / "palette.bmp")).tolist() == [[[1, 2, 3]]]


def test_a_batch(folders):
    config = settings(train_path=folders({"cat": 20, "dog": 30}, size=20))
    images, labels, ids, cls = read_train_sets(config).train.next_batch(8)
    assert images.shape == (8, 32, 32, 3) and images.dtype == np.float32
    assert labels.shape == (8, 2) and labels.dtype == np.float32
    for image, label, name, class_name in zip(images, labels, ids, cls):
        path = f"{config.train_path}/{class_name}/{name}"
        assert label.tolist() == [float(class_name == "cat"), float(class_name == "dog")]
        assert np.array_equal(image, normalized(cv2.imread(path), 32, "bgr"))


def test_no_image_twice_in_an_epoch_and_a_new_order_each_epoch(folders):
    train = read_train_sets(settings(train_path=folders({"cat": 20, "dog": 30}))).train
    assert train.num_examples == 42
    epochs = []
    for epoch in range(3):
        assert train.epochs_completed == epoch
        epochs.append(every_id(train.next_batch(8) for _ in range(5)))  # floor(42 / 8)
        assert len(set(epochs[-1])) == 40
    assert epochs[0] != epochs[1] != epochs[2]
    assert set(epochs[0]) != set(epochs[1])  # the two images left out are others


def test_reading_ahead_gives_what_next_batch_gives(folders):
    config = settings(train_path=folders({"cat": 20, "dog": 30}))
    ahead, plain = read_train_sets(config).train, read_train_sets(config).train
    for _ in range(2):
        for batch in ahead.epoch(4):
            for found, expected in zip(batch, plain.next_batch(4)):
                assert np.array_equal(found, expected)
    assert ahead.epochs_completed == plain.epochs_completed == 2


@pytest.mark.parametrize("size", [16, 32, 48])
@pytest.mark.parametrize("cache_mb", [0, 0.02, 1024])  # room for none, for some of 50 images, for all
def test_batches_are_those_of_a_plain_loader_whatever_is_cached(folders, size, cache_mb):
    config = settings(train_path=folders({"cat": 20, "dog": 30}, size=32), img_size=size, cache_mb=cache_mb)
    train = read_train_sets(config).train
    for _ in range(3):
        for images, _, ids, cls in train.epoch(8):
            for image, name, class_name in zip(images, ids, cls):
                path = f"{config.train_path}/{class_name}/{name}"
                assert np.array_equal(image, normalized_plainly(cv2.imread(path), size))


@pytest.mark.parametrize("size, kept", [(16, 13), (32, 3), (64, 0)])  # 10,000 bytes hold this many of 3 * size ** 2
def test_the_cache_keeps_no_more_than_it_is_told(folders, tmp_path, size, kept):
    path = folders({"cat": 20}, size=32)
    paths = [f"{path}/cat/{index:03d}.png" for index in range(20)]
    files = ImageFiles(paths, preprocess(size), Cache(10000 / 2**20))
    images = files.read(np.arange(20))
    os.rename(path, str(tmp_path / "gone"))
    for index, image in enumerate(images):
        if index < kept:
            assert np.array_equal(files.read(np.array([index])), image[np.newaxis])
        else:
            with pytest.raises(InputError):
                files.read(np.array([index]))


def test_two_sets_share_the_room_of_a_cache():
    cache = Cache(10000 / 2**20)
    assert [cache.reserve(count, 3000) for count in (2, 5, 5)] == [2, 1, 0]


def test_a_larger_batch_than_is_left_starts_the_next_epoch(folders):
    train = read_train_sets(settings(train_path=folders({"cat": 20, "dog": 30}))).train
    train.next_batch(22)
    assert len(train.next_batch(40)[0]) == 40
    assert train.epochs_completed == 2


def test_walking_gives_every_image_once_in_order_the_short_batch_too(folders):
    path = folders({"cat": 5, "dog": 6})
    test, _ = read_test_set(settings(train_path=path, test_path=path), preprocess(32))
    batches = list(test.batches(4))
    assert [len(batch[0]) for batch in batches] == [4, 4, 3]
    assert every_id(batches) == [f"cat/{i:03d}.png" for i in range(5)] + [f"dog/{i:03d}.png" for i in range(6)]
    assert test.epochs_completed == 0


JPEG = cv2.imencode(".jpg", np.random.RandomState(0).randint(0, 256, (32, 32, 3)).astype(np.uint8))[1].tobytes()
PNG = cv2.imencode(".png", np.random.RandomState(0).randint(0, 256, (32, 32, 3)).astype(np.uint8))[1].tobytes()


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", PNG[:20], JPEG[: len(JPEG) // 2]])
def test_a_broken_image_is_named_and_no_thread_is_left(folders, tmp_path, content):
    path = folders({"cat": 20, "dog": 20})
    broken = tmp_path / "train" / "dog" / "007.png"
    broken.write_bytes(content)
    threads = threading.active_count()
    with pytest.raises(InputError, match="007.png"):
        list(read_test_set(settings(train_path=path, test_path=path), preprocess(32))[0].batches(4))
    assert threading.active_count() == threads
    paths = [str(tmp_path / "train" / "cat" / "000.png")] * 40
    batches = DataSet(paths, np.zeros(40, int), ["cat"], preprocess(32), Cache(1)).epoch(2)
    next(batches)
    batches.close()
    assert threading.active_count() == threads


def test_the_next_batches_are_read_while_a_step_takes_its_time(folders, monkeypatch):
    """As on a GPU: the loop asks for no other batch meanwhile."""
    monkeypatch.setattr("dataset.CHUNK_BYTES", 1)  # each batch is read alone
    monkeypatch.setattr("utils.images.loader.THREADS", 2)
    train = read_train_sets(settings(train_path=folders({"cat": 20, "dog": 30}), img_size=16)).train
    started, read = [], train._read_augmented
    monkeypatch.setattr(train, "_read_augmented", lambda chosen: started.append(len(chosen)) or read(chosen))
    batches = train.epoch(4)
    next(batches)
    step_ends = time.monotonic() + 30
    while len(started) < 3 and time.monotonic() < step_ends:
        time.sleep(0.01)
    assert 3 <= len(started) <= 6 and set(started) == {4}  # ahead, but not the whole epoch
    assert len(list(batches)) == 9


@pytest.mark.parametrize("batch_size", [0, -1, 43])
def test_a_batch_of_impossible_size(folders, batch_size):
    train = read_train_sets(settings(train_path=folders({"cat": 20, "dog": 30}))).train
    with pytest.raises(InputError, match="batch_size"):
        train.next_batch(batch_size)


def test_augmented_images_are_moved_and_mirrored_originals(folders):
    """Every image of an augmented batch is found among all the windows into its reflected original."""
    config = settings(train_path=folders({"cat": 20, "dog": 30}), img_size=16, augment="crop+flip")
    data = read_train_sets(config)
    seen = []
    for images, _, ids, cls in data.train.epoch(7):
        for image, name, class_name in zip(images, ids, cls):
            original = cv2.imread(f"{config.train_path}/{class_name}/{name}")
            padded = np.pad(original, ((2, 2), (2, 2), (0, 0)), mode="reflect")  # an eighth of 16
            windows = {
                (y, x, mirrored): padded[y : y + 16, x : x + 16][:, :: -1 if mirrored else 1]
                for y in range(5)
                for x in range(5)
                for mirrored in (False, True)
            }
            (found,) = [
                key
                for key, window in windows.items()
                if np.array_equal(normalized_plainly(np.ascontiguousarray(window), 16), image)
            ]
            seen.append(found)
    assert len(set(seen)) > 20 and {key[2] for key in seen} == {False, True}
    for images, _, ids, cls in data.valid.batches(4):
        for image, name, class_name in zip(images, ids, cls):
            assert np.array_equal(image, normalized_plainly(cv2.imread(f"{config.train_path}/{class_name}/{name}"), 16))


@pytest.mark.parametrize("augment", ["crop", "crop+flip"])
def test_augmentation_is_a_function_of_seed_epoch_and_image(folders, monkeypatch, augment):
    path = folders({"cat": 20, "dog": 30})

    def two_epochs(seed=0, batch_size=8, ahead=True):
        train = read_train_sets(settings(train_path=path, img_size=16, augment=augment, seed=seed)).train
        epochs = []
        for _ in range(2):
            count = 42 // batch_size
            batches = train.epoch(batch_size) if ahead else (train.next_batch(batch_size) for _ in range(count))
            epochs.append(
                {
                    (name, cls): image
                    for images, _, ids, classes in batches
                    for image, name, cls in zip(images, ids, classes)
                }
            )
        return epochs

    first, second = two_epochs(batch_size=14)
    assert any(not np.array_equal(first[key], second[key]) for key in set(first) & set(second))
    monkeypatch.setattr("utils.images.loader.THREADS", 5)
    for again in (two_epochs(batch_size=6), two_epochs(batch_size=7, ahead=False)):
        for expected, found in zip((first, second), again):
            assert len(found) == 42 and all(np.array_equal(expected[key], found[key]) for key in found)


@pytest.mark.parametrize("threads, choice_bytes, most", [
    (2, 2**20, 4), (2, 20 * 2**20, 3), (2, 2**30, 2),  # 64 MB, but one a thread
    (16, 2**20, 32), (16, 20 * 2**20, 16), (32, 20 * 2**20, 25), (32, 2**30, 8),  # of more than 8 threads, 512 MB
])  # fmt: skip
def test_reading_ahead_is_bounded_by_bytes(monkeypatch, threads, choice_bytes, most):
    monkeypatch.setattr("utils.images.loader.THREADS", threads)
    asked = []
    choices = (asked.append(choice) or choice for choice in range(40))
    results = prefetch(lambda choice: choice, choices, choice_bytes)
    for taken, result in enumerate(results):
        assert result == taken
        assert len(asked) == min(40, taken + 1 + most)


def test_a_batch_of_very_many_classes_does_not_take_their_square_in_memory(folders):
    """np.eye of 20,000 classes takes 1.6 GB."""
    path = f"{folders({'cat': 1, 'dog': 1})}/cat/000.png"
    tracemalloc.start()
    data = DataSet([path] * 3, np.array([7, 0, 19999]), [str(label) for label in range(20000)], preprocess(8), Cache(0))
    labels = data.read(np.array([2, 0])).labels
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6 and labels.shape == (2, 20000) and labels.dtype == np.float32
    assert np.argwhere(labels).tolist() == [[0, 19999], [1, 7]] and labels.sum() == 2
