"""Images are divided into training and validation sets by class; folders that cannot be used are named."""

import os

import pytest

from dataset import read_test_set, read_train_sets
from src.errors import InputError
from src.settings import settings
from tests.conftest import every_id, preprocess


def test_the_split_is_exact_stratified_disjoint_and_the_same_in_every_run(folders):
    path = folders({"a": 10, "b": 100, "c": 40})

    def split_with(**given):
        data = read_train_sets(settings(train_path=path, **given))
        return every_id(data.train.batches(50)), every_id(data.valid.batches(50))

    train, valid = split_with()
    assert len(train) == 126 and len(valid) == 24  # 150 * .16
    assert not set(train) & set(valid)
    shares = [sum(name.startswith(c) for name in valid) for c in "abc"]
    assert all(abs(share - expected) < 1 for share, expected in zip(shares, [1.6, 16, 6.4]))
    assert (train, valid) == split_with()
    # Written down once: the split may not change from one version of numpy, or of this program, to the next.
    assert [name for name in valid if name[0] in "ac"] == [
        "a/006.png",
        "a/008.png",
        "c/005.png",
        "c/007.png",
        "c/019.png",
        "c/025.png",
        "c/026.png",
        "c/038.png",
    ]
    assert valid != split_with(seed=1)[1]


def test_many_small_classes_can_be_split(folders):
    data = read_train_sets(settings(train_path=folders({f"class{i:02d}": 3 for i in range(50)})))
    assert data.valid.num_examples == 24  # 150 * .16


def test_any_class_names_and_only_image_files(folders, tmp_path):
    path = folders({"été": 3, "a b": 3, "10%": 3})
    (tmp_path / "train" / "a b" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / "a b" / "._000.png").write_text("left by a file manager")
    (tmp_path / "train" / "README.md").write_text("not a class")
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / "a b" / "folder.png").mkdir()
    os.mkfifo(str(tmp_path / "train" / "a b" / "pipe.png"))
    data = read_train_sets(settings(train_path=path))
    assert data.train.num_examples + data.valid.num_examples == 9
    assert len(every_id(data.train.batches(2))) == data.train.num_examples


def test_where_there_is_no_data_the_message_names_what_there_is(folders, in_tmp_path):
    with pytest.raises(InputError, match="a folder of images per class; python run.py prepare makes one"):
        read_train_sets(settings())
    folders({"cat": 1, "dog": 1}, name="data/digitspng/train")
    folders({"cat": 1, "dog": 1}, name="data/digitspng/test")
    expected = "found no folder data/cifar10png/%s, expected one with a folder of images per class; there is "
    train = "data/digitspng/train: --train_path data/digitspng/train --test_path data/digitspng/test$"
    with pytest.raises(InputError, match=expected % "train" + train):
        read_train_sets(settings())
    with pytest.raises(InputError, match=expected % "test" + "data/digitspng/test: --test_path data/digitspng/test$"):
        read_test_set(settings(classes=["cat", "dog"]), preprocess(32))


def test_the_folder_above_is_told_from_that_of_the_classes(folders, in_tmp_path):
    folders({"cat": 3, "dog": 3}, name="photos/train")
    folders({"cat": 3, "dog": 3}, name="photos/test")
    with pytest.raises(InputError, match="found photos, expected one with class folders; did you mean photos/train"):
        read_train_sets(settings(train_path="photos"))
    folders({"plane": 3, "train": 3}, name="vehicles")  # a class of that name
    assert read_train_sets(settings(train_path="vehicles")).train.num_examples == 5


def test_a_file_name_that_is_not_utf8(folders):
    path = folders({"cat": 3, "dog": 3})
    os.rename(f"{path}/cat/000.png", os.fsencode(path) + b"/cat/caf\xe9.png")
    data = read_train_sets(settings(train_path=path))
    assert len(every_id(data.train.batches(2))) + len(every_id(data.valid.batches(2))) == 6


def test_a_link_to_nowhere_is_named(folders):
    path = folders({"cat": 3, "dog": 3})
    os.symlink("nowhere", f"{path}/cat/link.png")
    with pytest.raises(InputError, match="link.png: cannot be read .No such file"):
        list(read_test_set(settings(train_path=path, test_path=path), preprocess(32))[0].batches(4))


@pytest.mark.parametrize(
    "counts, given, expected",
    [
        ({"cat": 3}, {}, "train_path: found one class, cat"),
        ({}, {}, "train_path: found no folder"),
        ({"cat": 3, "dog": 0}, {}, "found no images in class folder"),
        ({"cat": 2, "dog": 2}, {"validation_size": 0.01}, "validation_size: found 0.01"),
        ({"cat": 2, "dog": 2}, {"validation_size": 0.99}, "validation_size: found 0.99"),
        ({"cat": 2, "dog": 2}, {"classes": ["cat", "cow"]}, "train_path: found no folder"),
    ],
)
def test_data_that_cannot_be_used(folders, counts, given, expected):
    with pytest.raises(InputError) as caught:
        read_train_sets(settings(train_path=folders(counts), **given))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_test_set_without_any_of_the_classes(folders):
    config = settings(
        train_path=folders({"cat": 2, "dog": 2}), test_path=folders({"owl": 2}, name="test"), validation_size=0.01
    )  # and no validation images
    with pytest.raises(InputError, match="test_path: found no folder .*cat"):
        read_test_set(config, preprocess(32))
