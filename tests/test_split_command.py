"""python run.py split: train and test from one folder of class folders."""

import os
import shutil

import pytest

import run
from src.errors import InputError
from tests.conftest import make_folders, python
from tests.helpers.image_files import contents
from utils.commands.split import put


@pytest.fixture
def photos(in_tmp_path):
    """20 cats, of which three are one image, 10 dogs, and an image that is in both classes."""
    make_folders("photos", {"cat": 17, "dog": 9})
    for name in ("a.png", "b.png", "c.png"):
        shutil.copy("photos/cat/000.png", f"photos/cat/copy-{name}")
    shutil.copy("photos/cat/001.png", "photos/dog/no dog.png")
    return "photos"


def test_all_images_are_in_one_part_each_and_the_same_content_never_in_both(photos, capsys):
    assert run.main(["split", photos]) == 0
    train, test = contents("data/photos/train"), contents("data/photos/test")
    assert sorted([*train, *test]) == sorted(contents(photos)) and {**train, **test} == contents(photos)
    assert not set(train.values()) & set(test.values())
    assert [sum(path.startswith(name) for path in test) for name in ("cat", "dog")] == [4, 2]  # .2 of 20 and of 10
    assert "cat/001.png" in train and "dog/no dog.png" in train  # one image, two classes
    assert capsys.readouterr().out == (
        "data set: data/photos: 24 images to train on, 6 to test on, of 2 classes\n"
        "to train on it: python run.py --train_path data/photos/train --test_path data/photos/test\n"
    )


def test_on_a_disk_that_ignores_case_no_image_takes_the_place_of_another(photos):
    """Where copy/Cat is copy/cat: links and copies find a file there."""
    put("photos/cat/000.png", "copy/cat/000.png")
    with pytest.raises(InputError, match="image photos/dog/000.png: found copy/cat/000.png, which is another image's"):
        put("photos/dog/000.png", "copy/cat/000.png")
    assert contents("copy") == {"cat/000.png": contents("photos")["cat/000.png"]}


def test_it_depends_on_contents_and_seed_alone(photos):
    assert run.main(["split", photos, "--output", "one"]) == 0
    os.rename(photos, "moved")
    os.rename("moved/cat/005.png", "moved/cat/renamed.png")
    assert run.main(["split", "moved", "--output", "two", "--test_size", "0.2"]) == 0
    assert run.main(["split", "moved", "--output", "three", "--seed", "1"]) == 0
    one, two, three = [sorted(contents(f"{name}/test").values()) for name in ("one", "two", "three")]
    assert one == two != three


def test_images_are_linked_or_else_copied(photos, monkeypatch):
    assert run.main(["split", photos, "--output", "linked"]) == 0
    path = next(iter(contents("linked/test")))
    assert os.path.samefile(f"linked/test/{path}", f"photos/{path}")

    def no_links(*arguments, **options):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    assert run.main(["split", photos, "--output", "copied"]) == 0
    assert contents("copied") == contents("linked")
    assert not os.path.samefile(f"copied/test/{path}", f"photos/{path}")


@pytest.mark.parametrize("words, damage, expected", [
    ("nowhere", None, "split: found no folder nowhere, expected one with a folder of images per class"),
    ("photos", lambda: os.makedirs("data/photos"), "--output: found data/photos, which exists, expected a new"),
    ("photos --output photos/new", None, "--output: found photos/new, a folder in photos, expected a new folder"),
    ("photos --test_size 1", None, "--test_size: found 1, expected a fraction above 0 and below 1"),
    ("photos --test_size x", None, "argument --test_size: invalid float value: 'x'; python run.py split --help lists"),
    ("photos", lambda: make_folders("photos/owl", {".": 1}), "split: found 0 different images of owl that no o"),
    ("photos", lambda: os.mkdir("photos/owl"), "split: found no images in class folder photos/owl, exp"),
])  # fmt: skip
def test_what_cannot_be_split_is_one_line_and_nothing_is_written(photos, capfd, words, damage, expected):
    if damage:
        damage()
    before = contents(".")
    assert run.main(["split", *words.split()]) == 2
    errors = capfd.readouterr().err
    assert errors.startswith(f"error: {expected}") and errors.count("\n") == 1
    assert contents(".") == before


def test_an_output_may_end_in_a_slash(photos):
    assert run.main(["split", photos, "--output", "new/"]) == 0 and sorted(os.listdir("new")) == ["test", "train"]


def test_an_output_deep_inside_the_input_is_refused(photos, capfd):
    assert run.main(["split", photos, "--output", "photos/cat/new"]) == 2
    assert capfd.readouterr().err.startswith(
        "error: --output: found photos/cat/new, a folder in photos, expected a new"
    )


@pytest.mark.parametrize("test_size", ["0.0001", "0.9999"])
def test_each_part_has_an_image_of_each_class(photos, test_size):
    assert run.main(["split", photos, "--output", "new", "--test_size", test_size]) == 0
    counts = [len(os.listdir(f"new/test/{name}")) for name in ("cat", "dog")]
    assert 0 < counts[0] < 20 and 0 < counts[1] < 10


def test_many_copies_of_one_image_stay_together_where_they_fit(in_tmp_path):
    make_folders("photos", {"cat": 3, "dog": 4})
    for number in range(17):
        shutil.copy("photos/cat/000.png", f"photos/cat/copy{number}.png")
    os.remove("photos/dog/000.png")  # that of the cats
    os.remove("photos/dog/001.png")
    assert run.main(["split", "photos"]) == 0
    assert len(os.listdir("data/photos/test/cat")) <= 4  # a fifth of 20


def test_class_names_need_not_be_utf8(photos, capfd):
    os.rename(b"photos/dog", b"photos/d\xe4g")
    assert run.main(["split", photos]) == 0
    assert os.path.isdir(b"data/photos/train/d\xe4g")


def test_it_does_not_wait_for_tensorflow(photos):
    code = "import sys, run; run.main(['split', 'photos']); print('tensorflow' in sys.modules)"
    assert python("-c", code, cwd=os.getcwd()).stdout.splitlines()[-1] == "False"
