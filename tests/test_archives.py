"""An archive as a data set: what the unpacked folder would give, read in place; and archives that cannot be used."""

import io
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest

from dataset import read_test_set, read_train_sets
from src.errors import InputError
from src.folders import class_folders
from src.settings import settings
from tests.conftest import make_folders, preprocess
from trainer import Trainer
from utils.images.decode import read_image
from utils.images.image_folders import find_images
from utils.inference.predictor import Predictor

COUNTS = {"Äpfel": 9, "cat": 12, "dog": 10}
KINDS = ["stored.zip", "deflated.zip", "plain.tar"]


def pack(folder, archive, prefix=""):
    """Write an archive of all that is in a folder, by Python's own modules, in an order that is not sorted."""
    paths = sorted(os.path.join(above, name) for above, _, names in os.walk(folder) for name in names)[::-1]
    members = [(path, prefix + os.path.relpath(path, folder).replace(os.sep, "/")) for path in paths]
    if archive.endswith(".tar"):
        with tarfile.open(archive, "w") as tar:
            for path, name in members:
                tar.add(path, name)
        return archive
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED if "deflated" in archive else zipfile.ZIP_STORED) as file:
        for path, name in members:
            file.write(path, name)
    return archive


def write_zip(path, members, **options):
    with zipfile.ZipFile(str(path), "w", **options) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return str(path)


def write_tar(path, members):
    """members: {name: content, or the fields of a TarInfo}."""
    with tarfile.open(str(path), "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, dict):
                for field in content.items():
                    setattr(info, *field)
                content = b""
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return str(path)


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
    done = subprocess.run(["diff", "-r", "data/pets", "data/other"], cwd=str(tmp_path), stdout=subprocess.PIPE)
    assert done.stdout == b"" and sorted(os.listdir(str(tmp_path / "data" / "pets" / "test"))) == sorted(COUNTS)


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
        "dog/1.png": png,
    }
    archive = write_tar(tmp_path / "a.tar", members)
    found = find_images("train_path", archive, class_folders(archive))
    assert [os.path.relpath(path, archive) for path in found.paths] == ["cat/1.png", "cat/2.png", "dog/1.png"]
    assert found.skipped["link"] == 2 and found.skipped["device or pipe"] == 1
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


# What cannot be used


def damage(path, change):
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(change(content))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_one_corrupt_image_is_found_and_can_be_skipped(folder, tmp_path, run_here, png, kind):
    archive = pack(f"{folder}/train", str(tmp_path / kind))
    middle = len(png) // 2
    with open(f"{folder}/train/dog/003.png", "rb") as file:
        content = file.read()
    if "deflated" in kind:
        with zipfile.ZipFile(archive) as file:
            content = content_in(archive, file.getinfo("dog/003.png"))
    corrupt = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
    damage(archive, lambda whole: whole.replace(content, corrupt))
    done = run_here("check", "--train_path", archive, cwd=tmp_path)
    assert done.returncode == 1 and f"image {archive}/dog/003.png" in done.stdout
    assert sets_of(archive, bad_images="skip").notes[0].startswith(f"skipped in {archive}: 1 .txt, 1 corrupt image")
    with pytest.raises(InputError, match="dog/003.png: found a .*corrupt") as raised:
        list(sets_of(archive).train.epoch(24))
    assert "--bad_images skip leaves out such images" in str(raised.value)


def content_in(archive, info):
    """The bytes of a member as they are stored."""
    with open(archive, "rb") as file:
        file.seek(info.header_offset + 30 + len(info.filename.encode()))
        return file.read(info.compress_size)


NOT_READ = "archive {path}: found one that cannot be read ("
UNUSABLE = {
    "encrypted.zip": "archive {path}: found cat/1.png, which is encrypted, expected a .zip, or a .tar without",
    "bzip2.zip": "archive {path}: found cat/1.png, compressed by method 12, expected files that are stored or deflated",
    "truncated.zip": NOT_READ,
    "text.zip": NOT_READ,
    "empty.zip": NOT_READ,
    "truncated.tar": NOT_READ,
    "cut.tar": NOT_READ + "it is truncated or corrupt), expected a complete tar without compression",
    "corrupt.tar": NOT_READ + "it is truncated or corrupt), expected a complete tar without compression",
    "gzip.tar": NOT_READ,
    "a.tar.gz": "setting train_path: found {path}, a file, expected a folder, a .zip, or a .tar without compression,",
    "nothing.zip": "setting train_path: found no class folder in {path}, expected a folder of images for each of two",
    "outer.zip": "setting train_path: found {path}, expected one with class folders; did you mean {path}/train?",
}


def make_unusable(name, path, png):
    members = {"cat/1.png": png, "dog/1.png": png}
    if name == "encrypted.zip":
        entry = b"PK\1\2\x14\x03\x14\x00"  # of the central directory; its flags follow
        return damage(write_zip(path, members), lambda content: content.replace(entry + b"\0", entry + b"\1"))
    if name == "bzip2.zip":
        return write_zip(path, members, compression=zipfile.ZIP_BZIP2)
    if name == "nothing.zip":
        return write_zip(path, {"readme.txt": "none"})
    if name == "outer.zip":
        return write_zip(path, {f"train/{member}": png for member in members})
    if name in ("gzip.tar", "a.tar.gz"):
        with tarfile.open(path, "w:gz"):
            return path
    if name.endswith("tar"):
        write_tar(path, members)
        sizes = {"truncated.tar": 600, "cut.tar": 1024 + 512 * (len(png) // 512), "corrupt.tar": None}
        if sizes[name]:
            return damage(path, lambda content: content[: sizes[name]])
        return damage(path, lambda content: content.replace(b"dog/1.png", b"dog/2.png"))  # another checksum
    if name == "truncated.zip":
        return damage(write_zip(path, members), lambda content: content[:-40])
    return damage(write_zip(path, members), lambda content: b"text" if name == "text.zip" else b"")


@pytest.mark.parametrize("name", sorted(UNUSABLE))
def test_other_archives_are_refused_in_one_line(tmp_path, png, run_here, name):
    path = str(tmp_path / name)
    make_unusable(name, path, png)
    done = run_here("--train_path", path, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: " + UNUSABLE[name].format(path=path)), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_compressed_file_may_not_be_longer_than_it_says(tmp_path, png):
    """A zip bomb: 10 MB that the archive gives out as 100 bytes are not unpacked."""
    archive = write_zip(
        tmp_path / "a.zip", {"cat/1.png": bytes(10**7), "dog/1.png": png}, compression=zipfile.ZIP_DEFLATED
    )
    size = (10**7).to_bytes(4, "little")
    damage(archive, lambda content: content.replace(size, (100).to_bytes(4, "little")))
    with pytest.raises(InputError, match=r"cat/1.png: found a corrupt file in the archive \(its checksum is another\)"):
        preprocess(16).load(f"{archive}/cat/1.png")


def test_the_test_images_may_be_in_an_archive_that_is_missing(folder, tmp_path, capsys):
    source = settings(train_path=f"{folder}/train", test_path=str(tmp_path / "no.zip"), img_size=16)
    _, where = read_test_set(source, preprocess(16))
    assert where == f"the validation images of {folder}/train"
