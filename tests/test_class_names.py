"""Names of classes are names of folders, in any form of Unicode, and may begin with a dash."""

import os
import unicodedata

import pytest

import run
from dataset import read_test_set, read_train_sets
from src.errors import InputError
from src.settings import SETTINGS, settings
from tests.conftest import preprocess
from utils.command_line import Parser
from utils.images.image_folders import find_images

NFC, NFD = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")


@pytest.mark.parametrize("name", ["dog/../cat", "./dog", "dog/", "/dog", "sub/dog", ".", ".."])
def test_a_class_is_the_name_of_a_folder_and_no_path(folders, name):
    path = folders({"cat": 2, "dog": 2})
    with pytest.raises(InputError, match="^setting classes: found .*expected a list of different names of folders"):
        settings(train_path=path, classes=["cat", name])


def test_two_names_of_one_folder_are_said_in_one_line(folders, tmp_path, capsys):
    path = folders({"cat": 2, "dog": 2})
    os.symlink("cat", f"{path}/chat")
    for given in ({}, {"classes": ["cat", "chat"]}):
        with pytest.raises(InputError, match="^setting train_path: found cat and chat, two names of one folder, in"):
            read_train_sets(settings(train_path=path, **given))
    assert len(read_train_sets(settings(train_path=path, classes=["chat", "dog"])).train.paths) == 3
    assert run.main(["check", "--train_path", path]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_counts_once_where_a_disk_has_it_under_two_names(folders):
    """As a disk that folds case does: CAT is found where cat is listed."""
    path = folders({"cat": 2, "dog": 2})
    os.symlink("cat", f"{path}/CAT")
    found = find_images("test_path", path, ["CAT", "dog"])
    assert len(found.paths) == 4 and found.notes == []


def test_classes_that_other_disks_take_for_one_are_noted(folders, capsys):
    path = folders({"Cat": 2, "cat": 3, "dog": 2})
    found = find_images("train_path", path, ["Cat", "cat", "dog"])
    assert found.labels.tolist() == [0, 0, 1, 1, 1, 2, 2]
    note = f"setting train_path: found classes Cat, cat in {path}, which differ only in case: most disks "
    assert found.notes == [f"{note}on Windows and macOS take them for one"]
    run.main(["check", "--train_path", path])
    assert capsys.readouterr().out.count(note) == 1
    assert find_images("train_path", path, ["cat", "dog"]).notes == []


@pytest.mark.parametrize("given, there", [(NFC, NFD), (NFD, NFC)])
def test_a_name_in_another_form_of_unicode_is_found(folders, given, there):
    train, test = folders({there: 3, "dog": 3}), folders({there: 2, "dog": 1}, name="test")
    assert read_train_sets(settings(train_path=train, classes=[given, "dog"])).train.num_examples == 5
    data, _ = read_test_set(settings(train_path=train, test_path=test, classes=[given, "dog"]), preprocess(32))
    assert data.labels.tolist() == [0, 0, 1]


def test_two_folders_in_two_forms_of_unicode_are_two_classes(folders):
    found = find_images("train_path", folders({NFC: 3, NFD: 2}), [NFC, NFD])
    assert found.labels.tolist() == [0, 0, 0, 1, 1]
    assert all(f"/{name}/" in path for name, path in zip(3 * [NFC] + 2 * [NFD], found.paths))


def test_values_that_begin_with_a_dash_are_taken(folders, in_tmp_path, capsys):
    parser = Parser(prog="run.py")
    parser.add_settings(SETTINGS)
    words = "--classes -1,1 --image_normalize_mean -1,0,0 --decay -1 --train_path -data --lr=-2 --weight_decay -.5"
    assert parser.parse(words.split()) == {
        "classes": ["-1", "1"], "image_normalize_mean": (-1, 0, 0), "decay": -1, "train_path": "-data", "lr": -2,
        "weight_decay": -0.5,
    }  # fmt: skip
    path = folders({"-1": 2, "1": 2, "2": 2})
    assert run.main(["check", "--train_path", path, "--classes", "-1,1"]) == 0
    assert "train_path: 4 images of 2 classes" in capsys.readouterr().out


def test_a_value_with_two_dashes_is_told_how_to_be_given(capsys):
    assert run.main(["--classes", "--a,b"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: argument --classes: found --a,b, expected a value; one that begins with a dash is ")
    assert "--classes=--a,b" in error and error.count("\n") == 1
