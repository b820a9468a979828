"""An archive as a data set: what the unpacked folder would give, read in place; and what else is in it."""

import os
import shutil
import stat
import tarfile
import zipfile

import numpy as np
import pytest

from dataset import read_test_set, read_train_sets
from src.errors import ChangedError, InputError
from src.folders import class_folders
from src.settings import settings
from tests.conftest import make_folders, preprocess
from tests.helpers.archives import KINDS, pack, write_tar, write_zip
from tests.helpers.image_files import contents
from trainer import Trainer
from utils.commands.check import inspect_all
from utils.images.decode import find_problem, read_image
from utils.images.image_folders import find_images
from utils.inference.predictor import Predictor

COUNTS = {"Äpfel": 9, "cat": 12, "dog": 10}


@pytest.fixture
def folder(tmp_path):
    """Three classes of random images, with a hidden file, one that is no image, and one folder too many."""
    path = make_folders(str(tmp_path / "flowers" / "train"), COUNTS)
    for name in (".hidden.png", "notes.txt", os.path.join("more", "1.png")):
        os.makedirs(os.path.dirname(os.path.join(path, "cat", name)), exist_ok=True)
        shutil.copy(os.path.join(path, "cat", "000.png"), os.path.join(path, "cat", name))
    shutil.copytree(path, str(tmp_path / "flowers" / "test"))
    return str(tmp_path / "flowers")


@pytest.fixture
def png(folder):
    with open(os.path.join(folder, "train", "cat", "000.png"), "rb") as file:
        return file.read()


def sets_of(path, **others):
    return read_train_sets(settings(train_path=path, img_size=16, batch_size=8, augment="crop+flip", **others))


# The same as the folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "./", "/"])
def test_images_order_and_notes_are_those_of_the_unpacked_folder(folder, tmp_path, kind, prefix):
    archive = pack(folder, str(tmp_path / kind), prefix)
    unpacked, packed = sets_of(f"{folder}/train"), sets_of(f"{archive}/train")
    assert packed.train.paths == [path.replace(folder, archive) for path in unpacked.train.paths]
    assert packed.fingerprint == unpacked.fingerprint
    assert packed.notes == [note.replace(folder, archive) for note in unpacked.notes] != []
    for name in ("train", "valid"):
        for _ in range(2):  # epochs
            for found, expected in zip(*(list(getattr(sets, name).epoch(4)) for sets in (packed, unpacked))):
                assert found.ids == expected.ids and found.cls == expected.cls
                assert np.array_equal(found.images, expected.images) and np.array_equal(found.labels, expected.labels)


def test_training_on_an_archive_gives_the_same_numbers(folder, tmp_path, in_tmp_path):
    archive = pack(folder, str(tmp_path / "deflated.zip"))
    histories = []
    for path in (folder, archive):
        trained = Trainer(
            train_path=f"{path}/train", test_path=f"{path}/test", img_size=16, batch_size=8, num_epoch=2, lr=0.001
        )
        history = [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in trained.optimize()]
        histories.append(history + [trained.evaluate()])
    assert histories[0] == histories[1]
    graph = trained.export()
    of_archive, of_folder = (Predictor(graph)(f"{path}/test/cat") for path in (archive, folder))
    assert list(of_archive.values()) == list(of_folder.values()) and len(of_archive) == COUNTS["cat"] + 1


def test_an_archive_may_have_the_class_folders_at_its_top(folder, tmp_path):
    archive = pack(f"{folder}/train", str(tmp_path / "Flowers.ZIP"))
    assert class_folders(archive) == sorted(COUNTS)
    assert sets_of(archive).train.num_examples == sets_of(f"{folder}/train").train.num_examples


def test_the_split_of_an_archive_has_the_same_files_as_that_of_the_folder(folder, tmp_path, run_here):
    archive = pack(f"{folder}/train", str(tmp_path / "pets.tar"))
    assert run_here("split", archive, cwd=tmp_path).returncode == 0
    assert run_here("split", f"{folder}/train", "--output", "data/other", cwd=tmp_path).returncode == 0
    os.rename(f"{folder}/train", f"{folder}/v1.0")
    assert run_here("split", pack(folder, str(tmp_path / "all.zip")) + "/v1.0", cwd=tmp_path).returncode == 0
    assert os.path.isdir(str(tmp_path / "data" / "v1.0"))
    assert contents(str(tmp_path / "data" / "pets")) == contents(str(tmp_path / "data" / "other"))
    assert sorted(os.listdir(str(tmp_path / "data" / "pets" / "test"))) == sorted(COUNTS)


# How it is read


def test_an_archive_is_opened_once_and_nothing_is_unpacked(folder, tmp_path):
    """Were it opened for an image, or unpacked, then it could not be read once it is deleted."""
    packed = sets_of(f"{pack(folder, str(tmp_path / 'plain.tar'))}/train")
    shutil.rmtree(folder)
    os.remove(str(tmp_path / "plain.tar"))
    assert sum(len(batch.images) for batch in packed.train.batches(5)) == packed.train.num_examples
    assert os.listdir(str(tmp_path)) == []


def test_an_archive_that_was_replaced_is_indexed_again(folder, tmp_path, png):
    archive = write_zip(tmp_path / "a.zip", {"cat/1.png": png, "dog/1.png": png})
    assert class_folders(archive) == ["cat", "dog"]
    write_zip(tmp_path / "a.zip", {"cat/1.png": png, "owl/1.png": png, "dog/1.png": png})
    assert class_folders(archive) == ["cat", "dog", "owl"]
    os.remove(archive)
    assert class_folders(archive) == []


def test_an_archive_that_changes_while_it_is_used_is_reported(tmp_path, png):
    archive = write_tar(tmp_path / "a.tar", {"cat/1.png": png, "cat/2.png": png})
    paths = find_images("test_path", archive, ["cat", "dog"]).paths
    with open(archive, "r+b") as file:
        file.truncate(512)
    with pytest.raises(InputError) as raised:
        read_image(paths[0])
    assert str(raised.value) == f"archive {archive}: found one that was changed since it was indexed, expected the same"


def test_a_data_set_keeps_to_the_archive_that_it_found(tmp_path, png):
    """Another use of the same path has indexed its successor in the meantime."""
    members = {f"{name}/{number}.png": png for name in ("cat", "dog") for number in range(6)}
    data = sets_of(write_zip(tmp_path / "a.zip", members), cache_mb=0).train
    assert len(list(data.epoch(4))) == 2
    write_zip(tmp_path / "b.zip", dict(members, **{"cat/1.png": b"other"}))
    os.replace(str(tmp_path / "b.zip"), str(tmp_path / "a.zip"))
    assert len(list(data.epoch(4))) == 2  # as it was
    class_folders(str(tmp_path / "a.zip"))
    with pytest.raises(
        ChangedError, match="a.zip: found one that was changed since it was indexed, expected the same$"
    ):
        list(data.epoch(4))


def test_an_archive_that_changes_makes_no_image_corrupt(tmp_path, png):
    archive = write_tar(tmp_path / "a.tar", {f"{name}/1.png": png for name in ("cat", "dog", "owl")})
    found = find_images("train_path", archive, class_folders(archive))
    os.utime(archive, (1, 1))
    for look in (find_problem, read_image):
        with pytest.raises(ChangedError):
            look(found.paths[0])
    with pytest.raises(ChangedError):
        inspect_all(found.paths, "train_path")


def test_a_folder_whose_name_ends_in_zip_stays_a_folder(tmp_path):
    path = make_folders(str(tmp_path / "photos.zip" / "train.tar"), {"cat": 2, "dog": 2})
    found = find_images("train_path", path, class_folders(path))
    assert len(found.paths) == 4 and read_image(found.paths[0]).shape == (16, 16, 3)


# What is in it besides images


@pytest.mark.parametrize("write, ending", [(write_zip, "zip"), (write_tar, "tar")])
def test_no_name_leads_out_of_the_archive(tmp_path, png, write, ending):
    members = {
        "cat/1.png": png,
        "dog/1.png": png,
        "../../cat/2.png": png,
        "dog/../../x.png": png,
        "__MACOSX/cat/1.png": png,
    }
    members["/".join("a" * 5000) + "/1.png"] = png
    archive = write(tmp_path / f"a.{ending}", members)
    found = find_images("train_path", archive, class_folders(archive))
    assert [os.path.relpath(path, archive) for path in found.paths] == ["cat/1.png", "dog/1.png"]
    assert +found.skipped == {"path out of the archive": 3}
    with pytest.raises(InputError, match="no such file in the archive"):
        read_image(f"{archive}/../a.{ending}")


def test_hard_links_are_followed_and_other_links_and_devices_counted(tmp_path, png):
    members = {
        "cat/1.png": png,
        "cat/2.png": {"type": tarfile.LNKTYPE, "linkname": "./cat/1.png"},
        "cat/3.png": {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"},
        "cat/4.png": {"type": tarfile.SYMTYPE, "linkname": "1.png"},
        "cat/5.png": {"type": tarfile.FIFOTYPE},
        "cat/6.png": {"type": tarfile.LNKTYPE, "linkname": "cat"},
        "cat/7.png": {"type": tarfile.GNUTYPE_SPARSE},
        "cat/8.png/1.png": png,
        "cat/8.png": png,
        "dog/1.png": png,
    }
    archive = write_tar(tmp_path / "a.tar", members)
    found = find_images("train_path", archive, class_folders(archive))
    assert [os.path.relpath(path, archive) for path in found.paths] == ["cat/1.png", "cat/2.png", "dog/1.png"]
    assert +found.skipped == {"link": 3, "device or pipe": 1, "sparse file": 1, "folder": 1}
    assert read_image(f"{archive}/cat/../dog/1.png").shape == (16, 16, 3)
    assert np.array_equal(read_image(found.paths[0]), read_image(found.paths[1]))


def test_backslashes_of_windows_separate_names(tmp_path, png):
    members = {}
    for name in ("cat/1.png", "dog/1.png"):
        info = zipfile.ZipInfo(name)
        info.create_system, info.filename = 0, name.replace("/", "\\")
        members[info] = png
    archive = write_zip(tmp_path / "a.zip", members)
    assert class_folders(archive) == ["cat", "dog"]
    assert read_image(find_images("train_path", archive, ["cat", "dog"]).paths[1]).shape == (16, 16, 3)


def test_a_link_in_a_zip_is_not_an_image(tmp_path, png):
    link = zipfile.ZipInfo("cat/2.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = write_zip(tmp_path / "a.zip", {"cat/1.png": png, "dog/1.png": png, link: "1.png"})
    found = find_images("train_path", archive, class_folders(archive))
    assert len(found.paths) == 2 and found.skipped["link"] == 1


def test_the_test_images_may_be_in_an_archive_that_is_missing(folder, tmp_path, capsys):
    source = settings(train_path=f"{folder}/train", test_path=str(tmp_path / "no.zip"), img_size=16)
    _, where = read_test_set(source, preprocess(16))
    assert where == f"the validation images of {folder}/train"
