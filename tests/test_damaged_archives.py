"""Archives that cannot be used, in whole or in part, and those that were made to do harm."""

import os
import tarfile
import zipfile

import pytest

from dataset import read_train_sets
from src.archives import MEMBER, opened
from src.errors import InputError
from src.folders import class_folders
from src.settings import settings
from tests.conftest import make_folders, preprocess
from tests.helpers.archives import KINDS, damage, pack, write_tar, write_zip
from utils.images.decode import read_image
from utils.images.image_folders import find_images


@pytest.fixture
def folder(tmp_path):
    """Class folders of random images, and one file that is none."""
    path = make_folders(str(tmp_path / "train"), {"cat": 12, "dog": 10})
    with open(os.path.join(path, "cat", "notes.txt"), "w"):
        return path


@pytest.fixture
def png(folder):
    with open(os.path.join(folder, "cat", "000.png"), "rb") as file:
        return file.read()


def sets_of(path, **others):
    return read_train_sets(settings(train_path=path, img_size=16, batch_size=8, **others))


@pytest.mark.parametrize("kind", KINDS)
def test_one_corrupt_image_is_found_and_can_be_skipped(folder, tmp_path, run_here, png, kind):
    archive = pack(folder, str(tmp_path / kind))
    middle = len(png) // 2
    with open(f"{folder}/dog/003.png", "rb") as file:
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
        list(sets_of(archive).train.epoch(18))
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


def header(name, **fields):
    """A header of a tar, with numbers that TarInfo would refuse to write given as bytes."""
    info = tarfile.TarInfo(name)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for start, value in fields.values():
        block[start : start + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


NEGATIVE = b"\xff" * 10 + b"\xfe\x00"  # -512, as GNU tar writes it
HUGE = b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7  # 2 ** 63 - 1


@pytest.mark.parametrize("content", [
    header("a.png", size=(124, NEGATIVE), type=(156, b"Z")), header("a.png", size=(124, NEGATIVE), type=(156, b"V")),
    header("a.png", size=(124, HUGE), type=(156, b"x")), header("a.png", size=(124, HUGE), type=(156, b"L")),
    header("a.png", size=(124, b"00000000100\0"), type=(156, b"L")) * 4000,
])  # fmt: skip
def test_headers_made_to_do_harm_end_in_one_line(tmp_path, content):
    path = tmp_path / "a.tar"
    path.write_bytes(content + bytes(1024))
    with pytest.raises(InputError, match=f"^archive {path}: found one that cannot be read"):
        class_folders(str(path))


@pytest.mark.parametrize("size", [2**40, 2**63 - 1, 2**64 - 1])
def test_a_file_that_claims_to_be_huge_is_not_unpacked(tmp_path, png, size):
    archive = write_zip(tmp_path / "a.zip", {"cat/1.png": png, "dog/1.png": png}, compression=zipfile.ZIP_DEFLATED)
    paths = find_images("train_path", archive, ["cat", "dog"]).paths
    member = list(MEMBER.unpack(opened[archive]._folders["cat"]["1.png"]))
    opened[archive]._folders["cat"]["1.png"] = MEMBER.pack(*member[:2], size, *member[3:])
    with pytest.raises(InputError, match=f"1.png: found a file of {size:,} bytes, expected at most 2,147,483,648"):
        read_image(paths[0])


def test_a_compressed_file_may_not_be_longer_than_it_says(tmp_path, png):
    """A zip bomb: 10 MB that the archive gives out as 100 bytes are not unpacked."""
    archive = write_zip(
        tmp_path / "a.zip", {"cat/1.png": bytes(10**7), "dog/1.png": png}, compression=zipfile.ZIP_DEFLATED
    )
    size = (10**7).to_bytes(4, "little")
    damage(archive, lambda content: content.replace(size, (100).to_bytes(4, "little")))
    with pytest.raises(InputError, match=r"cat/1.png: found a corrupt file in the archive \(its checksum is another\)"):
        preprocess(16).load(f"{archive}/cat/1.png")
