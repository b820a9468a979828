"""Which images a folder holds: links, endings, classes that a set lacks or has alone, corrupt images."""

import csv
import glob
import json
import os
import shutil
import warnings

import cv2
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

import run
from convert.compare import open_reference
from dataset import describe, read_sample, read_test_set, read_train_sets
from src.errors import InputError
from src.settings import settings
from tests.conftest import make_folders, preprocess, without_origin
from trainer import Trainer
from utils.images.image_folders import find_images, list_images


@pytest.fixture(scope="module")
def graph(trained, tmp_path_factory):
    """A copy of the folder in which a network of the ten digits was trained."""
    folder = str(tmp_path_factory.mktemp("graph") / "work")
    shutil.copytree(str(trained), folder)
    return folder


@pytest.fixture
def test_set(digits, tmp_path):
    """A copy of the test images of the digits: 36 of each, but for a few."""
    return shutil.copytree(f"{digits}/test", str(tmp_path / "test"))


def write(path, content=""):
    with open(path, "w") as file:
        file.write(content)


# Classes that one set has and another has not


def test_evaluate_judges_the_classes_that_are_there_and_says_so(graph, test_set, run_here, recwarn):
    os.rename(f"{test_set}/3", f"{test_set}/owl")
    for name in sorted(os.listdir(f"{test_set}/owl"))[:3]:  # so that a class without images is answered
        shutil.copy(f"{test_set}/owl/{name}", f"{test_set}/8/three-{name}")
    write(f"{test_set}/8/notes.txt")
    count = len(os.listdir(f"{test_set}/owl"))
    done = run_here("evaluate", "--test_path", test_set, cwd=graph)
    assert done.returncode == 0
    assert without_origin(done.stderr).splitlines() == [
        f"note: setting test_path: found no images of 3 in {test_set}, so not evaluated (no folder {test_set}/3)",
        f"note: setting test_path: found {count} images in {test_set} of classes that are not learned, so not "
        f"evaluated: owl ({count})",
        f"note: skipped in {test_set}: 1 .txt",
    ]
    assert not [warning for warning in recwarn if "sklearn" in warning.filename or "y_" in str(warning.message)]
    (table,) = glob.glob(f"{graph}/graphs/lenet5/*/predictions.csv")
    with open(table) as file:
        rows = list(csv.DictReader(file))
    true, predicted = [row["true"] for row in rows], [row["predicted"] for row in rows]
    assert len(rows) == 360 - count + 3 and "3" not in true and "3" in predicted and "owl" not in true
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an answer that no image has
        balanced = balanced_accuracy_score(true, predicted)
    macro = f1_score(true, predicted, labels=sorted(set(true)), average="macro")
    assert f", accuracy {accuracy_score(true, predicted):.4f}, top-5 accuracy" in done.stdout
    assert f", balanced accuracy {balanced:.4f}, macro F1" in done.stdout
    assert f"macro F1 {macro:.4f}\n" in done.stdout and "without images: 1 of 10 classes;" in done.stdout
    report = [line.split() for line in done.stdout.splitlines()]
    assert [line for line in report if line[:1] == ["3"]] == [["3"] + 3 * ["0.000"] + ["0"], ["3"] + 10 * ["0"]]


def test_validation_may_lack_a_class_and_training_says_all_that_is_not_judged(folders, in_tmp_path):
    train = folders({"cat": 9, "dog": 9, "owl": 9})
    valid = folders({"cat": 3, "dog": 2, "bat": 4, "cow": 5, "empty": 0}, name="valid")
    test = folders({"cat": 3, "dog": 2, "owl": 1, "bat": 7}, name="test")
    config = settings(train_path=train, valid_path=valid, test_path=test, img_size=16)
    data = read_train_sets(config)
    assert data.train.num_examples == 27 and data.valid.labels.tolist() == [0, 0, 0, 1, 1]
    lines = describe(data, config).splitlines()[1:]
    assert [line.split(" (no")[0] for line in lines] == [
        f"note: setting valid_path: found no images of owl in {valid}, so not evaluated",
        f"note: setting valid_path: found 9 images in {valid} of classes that are not learned, so not evaluated: bat "
        "(4), cow (5)",
        f"note: setting test_path: found 7 images in {test} of classes that are not learned, so not evaluated: bat (7)",
    ]


def test_check_says_which_images_are_not_judged(folders, in_tmp_path, capsys):
    paths = ["--train_path", folders({"cat": 2, "dog": 2}), "--test_path", folders({"cat": 2, "owl": 3}, name="test")]
    for number, file in enumerate(glob.glob("test/*/*.png")):  # else they are those of train
        cv2.imwrite(file, np.full((16, 16, 3), number, np.uint8))
    assert run.main(["check", *paths]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2 and "found no images of dog" in notes[0] and "owl (3)" in notes[1]


def test_many_classes_are_counted_in_a_note(folders):
    test = make_folders(folders({"cat": 1, "dog": 1}, name="test"), {f"other{number:02d}": 1 for number in range(20)})
    (note,) = find_images("test_path", test, ["cat", "dog"]).notes
    assert note.endswith("other00 (1), other01 (1), other02 (1), other03 (1), other04 (1), and 15 more")


# One walk over folders


@pytest.fixture
def linked(folders, tmp_path):
    """Class folders with all that a walk can meet: (path, the images in them by hand)."""
    path = folders({"cat": 3, "dog": 3})
    elsewhere = folders({"owls": 2}, name="elsewhere")
    shutil.move(f"{path}/dog", f"{elsewhere}/dog")
    os.symlink(f"{elsewhere}/dog", f"{path}/dog")  # a class folder that is a link
    os.symlink(f"{elsewhere}/owls/001.png", f"{path}/cat/owl.PNG")  # an image that is a link
    os.symlink("000.png", f"{path}/cat/again.png")  # the same file a second time
    shutil.copy(f"{path}/cat/000.png", f"{path}/cat/photo.jfif")
    os.mkdir(f"{path}/cat/.thumbnails")
    shutil.copy(f"{path}/cat/000.png", f"{path}/cat/.thumbnails/small.png")
    write(f"{path}/cat/._000.png", "left by a file manager")
    write(f"{path}/cat/notes.txt")
    os.mkfifo(f"{path}/cat/pipe.png")
    names = ["cat/000.png", "cat/001.png", "cat/002.png", "cat/again.png", "cat/owl.PNG", "cat/photo.jfif"]
    return path, [f"{path}/{name}" for name in names + ["dog/000.png", "dog/001.png", "dog/002.png"]]


def test_training_and_prediction_find_the_same_images(linked):
    path, expected = linked
    found = find_images("train_path", path, ["cat", "dog"])
    images, skipped = list_images(path)
    assert found.paths == images == expected
    assert +found.skipped == skipped == {".txt": 1, "device or pipe": 1}
    assert read_test_set(settings(train_path=path, test_path=path), preprocess(32))[0].paths == expected


def test_links_that_loop_end(linked):
    path, expected = linked
    os.symlink("..", f"{path}/cat/all")
    os.symlink(path, f"{path}/dog/everything")
    os.symlink("itself", f"{path}/itself")
    images, skipped = list_images(path)
    assert images == expected and skipped["looping link"] == 2
    assert find_images("train_path", path, settings(train_path=path).classes).paths == expected


def test_predict_says_what_it_skips(graph, digits, tmp_path, run_here):
    os.mkdir(str(tmp_path / "photos"))
    for number, name in enumerate(sorted(os.listdir(f"{digits}/test/7"))[:3]):
        shutil.copy(f"{digits}/test/7/{name}", str(tmp_path / "photos" / f"{number}.jfif"))
    os.symlink(f"{digits}/test/1", str(tmp_path / "photos" / "ones"))
    os.symlink(".", str(tmp_path / "photos" / "loop"))
    for name in ("a.txt", "b.txt", "c.gif"):
        write(str(tmp_path / "photos" / name))
    expected = "note: skipped in photos: 2 .txt, 1 .gif, 1 looping link\n"
    weights = f"{graph}/weights/lenet5/lenet5.pb"
    done = run_here("predict", "photos", "--json", "--weights", weights, cwd=tmp_path)
    images = [json.loads(line)["image"] for line in done.stdout.splitlines()]
    assert (done.returncode, without_origin(done.stderr)) == (0, expected)
    ones = [f"photos/ones/{name}" for name in sorted(os.listdir(f"{digits}/test/1"))]
    assert images == ["photos/0.jfif", "photos/1.jfif", "photos/2.jfif", *ones]
    os.remove(str(tmp_path / "photos" / "ones"))
    done = run_here("explain", "photos", "--weights", weights, cwd=tmp_path)
    assert (done.returncode, without_origin(done.stderr)) == (0, expected)


@pytest.mark.parametrize("setting", ["train_path", "valid_path", "test_path"])
def test_images_one_level_too_deep_are_reported(folders, setting):
    path = folders({"cat/images": 2, "dog/images": 2})
    expected = "^setting {}: found no images in class folder {}/cat, but in {}/cat/images, expected them directly in"
    with pytest.raises(InputError, match=expected.format(setting, path, path)):
        find_images(setting, path, ["cat", "dog"])
    make_folders(path, {"owl": 2})
    if setting != "train_path":
        (note,) = find_images(setting, path, ["cat", "owl"]).notes
        assert "found no images of cat in" in note and f"but in {path}/cat/images)" in note


def test_the_folder_above_is_told_by_the_name_of_the_set(folders, in_tmp_path):
    for part in ("train", "test"):
        folders({"cat": 1, "dog": 1}, name=f"photos/{part}")
        with pytest.raises(InputError, match=f"found photos, .*; did you mean photos/{part}[?]"):
            find_images(f"{part}_path", "photos", ["train"])


def test_images_outside_the_class_folders_are_counted(folders):
    path = folders({"cat": 2, "dog": 2})
    for name in ("a.png", "b.png", "labels.csv"):
        write(f"{path}/{name}")
    data = read_train_sets(settings(train_path=path))
    assert data.notes == [f"skipped in {path}: 2 images outside the class folders, 1 .csv"]


@pytest.mark.parametrize("unreadable", ["train", "train/dog", "train/dog/deep"])
def test_a_folder_that_cannot_be_read_is_an_input_error(folders, in_tmp_path, monkeypatch, unreadable):
    folders({"cat": 2, "dog": 2, "dog/deep": 2})
    scandir = os.scandir

    def forbidden(path):
        if path == unreadable:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(InputError, match=f"^folder {unreadable}: cannot be read .Permission denied.$"):
        list_images("train")
    if unreadable != "train/dog/deep":
        with pytest.raises(InputError, match=f"^folder {unreadable}: cannot be read .Permission denied.$"):
            read_train_sets(settings(train_path="train"))


# Corrupt images


@pytest.fixture
def corrupt(graph, test_set):
    """A test set with a corrupt image, and one that is cut short; returns its path."""
    first, second = sorted(os.listdir(f"{test_set}/4"))[:2]
    write(f"{test_set}/4/{first}", "no image")
    with open(f"{test_set}/4/{second}", "r+b") as file:
        file.truncate(60)
    return test_set


def test_evaluate_stops_at_a_corrupt_image_and_says_what_helps(graph, corrupt, run_here):
    done = run_here("evaluate", "--test_path", corrupt, cwd=graph)
    assert (
        done.returncode == 2 and done.stderr.startswith(f"error: image {corrupt}/4/") and done.stderr.count("\n") == 1
    )
    assert "--bad_images skip" in done.stderr and "python run.py check" in done.stderr


def test_evaluate_skips_corrupt_images_if_it_is_told_to(graph, corrupt, run_here):
    done = run_here("evaluate", "--test_path", corrupt, "--bad_images", "skip", cwd=graph)
    assert (done.returncode, without_origin(done.stderr)) == (0, f"note: skipped in {corrupt}: 2 corrupt images\n")
    assert done.stdout.splitlines()[1].startswith("358 images: ")


@pytest.mark.parametrize("of_the_run", ["skip", None])
def test_conversion_skips_corrupt_images_as_the_run_did_or_as_it_is_told_to(
    graph, corrupt, tmp_path, monkeypatch, capfd, of_the_run
):
    shutil.copytree(f"{graph}/weights/lenet5", str(tmp_path / "weights"))
    path = str(tmp_path / "weights" / "lenet5.json")
    with open(path) as file:
        metadata = json.load(file)
    assert metadata["run"].pop("bad_images") == "stop"
    metadata["run"].update({"bad_images": of_the_run} if of_the_run else {}, train_path=corrupt)
    write(path, json.dumps(metadata))
    given = {} if of_the_run else {"bad_images": "skip"}
    reference = open_reference(str(tmp_path / "weights" / "lenet5.pb"), test_path=corrupt, **given)
    samples, _ = read_sample("train_path", reference.source, preprocess(32), 500)  # as int8 is calibrated with
    assert [sum(len(batch.images) for batch in data.batches(50)) for data in (reference.data, samples)] == [358, 358]
    assert capfd.readouterr().err == 2 * f"note: skipped in {corrupt}: 2 corrupt images\n"


def test_a_test_set_of_which_a_class_is_corrupt_is_judged_without_it(folders, capsys):
    path = folders({"cat": 2, "dog": 2, "owl": 1})
    write(f"{path}/owl/000.png", "no image")
    config = settings(train_path=path, test_path=path, bad_images="skip")
    assert read_test_set(config, preprocess(32))[0].labels.tolist() == [0, 0, 1, 1]
    assert f"found no images of owl in {path}, so not evaluated (no readable image of owl" in capsys.readouterr().err
    with pytest.raises(InputError, match="^setting train_path: found no readable image of owl in"):
        read_train_sets(config)


def test_a_run_that_a_corrupt_image_stops_before_its_first_step_leaves_nothing(two_classes):
    path = two_classes.train_path
    shutil.copytree(path, "sound")
    for file in glob.glob(f"{path}/*/*.png"):
        write(file, "no image")
    trainer = Trainer(**vars(two_classes))
    with pytest.raises(InputError, match="--bad_images skip leaves out such images, python run.py check lists them$"):
        trainer.optimize(1)
    assert os.listdir("graphs/lenet5") == [] and os.listdir("checkpoints/lenet5") == ["lock"]
    shutil.rmtree(path)
    os.rename("sound", path)
    assert len(trainer.optimize(1)) == 1
    assert len(os.listdir("graphs/lenet5")) == 1 and len(glob.glob("checkpoints/lenet5/*/run.json")) == 1
