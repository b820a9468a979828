"""python run.py check: damaged JPEGs, hidden colours, images that are there twice, and all else that is odd."""

import os
import re
import shutil
import struct

import cv2
import numpy as np
import pytest

import run
from tests.conftest import without_origin
from tests.helpers.image_files import NOISE, PHOTO, encoded, jpegs, write
from utils.commands.check import inspect_all, report


@pytest.fixture
def odd(folders, in_tmp_path):
    """Folders with all that is odd: returns the arguments that name them."""
    train = folders({"cat": 40, "dog": 10})
    test = folders({"cat": 5, "dog": 5}, name="test")
    valid = folders({"cat": 5, "dog": 5}, name="valid")
    random = np.random.RandomState(9)  # the other sets of the fixture have the same images in them
    for part in (test, valid):
        for folder, _, names in os.walk(part):
            for name in names:
                cv2.imwrite(os.path.join(folder, name), random.randint(0, 256, (16, 16, 3)).astype(np.uint8))
    return ["--train_path", train, "--test_path", test, "--valid_path", valid, "--img_size", "16"]


def spoil(work):
    random = np.random.RandomState(3)
    shutil.copy("train/cat/001.png", "train/dog/copy.png")
    shutil.copy("train/cat/002.png", "test/cat/copy.png")
    with open("valid/dog/broken.png", "w") as file:
        file.write("no image")
    content = cv2.imencode(".jpg", random.randint(0, 256, (90, 90, 3)).astype(np.uint8))[1].tobytes()
    with open("train/cat/cut.jpg", "wb") as file:
        file.write(content[:-2])
    cv2.imwrite("train/cat/deep.png", random.randint(0, 65536, (16, 16, 3)).astype(np.uint16))
    cv2.imwrite("train/cat/long.png", random.randint(0, 256, (10, 100, 3)).astype(np.uint8))
    cv2.imwrite("train/cat/dot.png", random.randint(0, 256, (2, 2)).astype(np.uint8))


def test_check_finds_nothing_where_nothing_is_wrong(odd, capsys):
    assert run.main(["check", *odd]) == 0
    output = capsys.readouterr().out
    assert "train_path: 50 images of 2 classes" in output and "no duplicate images" in output
    assert "10 (dog) to 40 (cat) images in a class; uneven: --class_weights balanced may help" in output
    assert cv2.imread("samples.png").shape[1] > 800


def test_check_names_what_it_was_given_and_does_not_find(odd, capsys):
    os.symlink("loop.png", "train/cat/loop.png")
    shutil.rmtree("valid/dog")
    assert run.main(["check", *odd]) == 1
    output = capsys.readouterr().out
    assert "train/cat/loop.png: cannot be read (Too many levels of symbolic links)" in output
    assert "so not evaluated (no folder " in output and "valid/dog)" in output
    assert run.main(["check", *odd, "--valid_path", "nowhere"]) == 1
    assert "setting valid_path: found no folder nowhere" in capsys.readouterr().out


def test_check_finds_what_opencv_reads_only_in_part(odd, capfd, monkeypatch):
    """Such as damaged TIFFs of 16 bit: IMREAD_COLOR gives an image, IMREAD_UNCHANGED none."""
    imdecode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda data, mode: None if mode < 0 and 7 in data else imdecode(data, mode))
    assert run.main(["check", *odd]) == 1
    assert "000.png: found a file that OpenCV reads only in part" in capfd.readouterr().out


def test_check_lists_all_that_is_odd(odd, capfd):
    spoil(None)
    assert run.main(["check", *odd]) == 1
    output = capfd.readouterr()
    for text in (
        "duplicate images in different classes: ", "train/dog/copy.png", "duplicate images in different sets: ",
        "test/cat/copy.png", "valid/dog/broken.png: found a text file, expected", "train/cat/cut.jpg: found",
        "16x16 (52)", "16 bit, colour (1)", "train/cat/long.png: is more than 3 times as long as wide",
        "train/cat/dot.png: is less than a quarter of img_size",
        "  width x height: smallest 2x2, median 16x16, largest 100x10\n",
        "    remedy: a smaller --img_size", "    remedy: --resize crop", "    remedy: delete or replace these files",
        "\n  remedy: keep each image in one set only", "\n  remedy: keep each image in its true class only",
    ):  # fmt: skip
        assert text in output.out, text
    assert output.err == ""


def test_a_folder_with_all_that_is_odd_goes_the_whole_way(odd, capfd):
    spoil(None)
    with open("train/cat/Thumbs.db", "w"), open("train/dog/notes.txt", "w"):
        os.makedirs("train/cat/more")
    settings_given = ["--bad_images", "skip", "--class_weights", "balanced", "--resize", "pad", "--batch_size", "8"]
    assert run.main([*odd, *settings_given, "--num_epoch", "2"]) == 0
    output = capfd.readouterr().out
    assert f"note: skipped in {odd[1]}: 1 .db, 1 .txt, 1 corrupt image, 1 folder\n" in output
    assert f"note: skipped in {odd[5]}: 1 corrupt image\n" in output
    with open("test/dog/cut.png", "w"):  # a run that skips corrupt images is evaluated without them
        assert run.main(["evaluate"]) == 0
    output = capfd.readouterr()
    assert "balanced accuracy" in output.out
    assert without_origin(output.err) == f"note: skipped in {odd[3]}: 1 corrupt image\n"
    assert run.main(["explain", *["train/dog/000.png"] * 101]) == 2
    assert "explain: found 101 images, expected at most 100 for one figure" in capfd.readouterr().err
    assert run.main(["explain", "train/cat"]) == 2
    assert "train/cat/cut.jpg" in capfd.readouterr().err
    assert run.main(["explain", "train/cat/long.png", "train/dog/000.png"]) == 0
    assert cv2.imread("explanation.png").shape[0] > 300


def damaged(content, how):
    """A JPEG that OpenCV reads, with much of it grey or noise."""
    scan = content.rindex(b"\xff\xda") + 14  # behind a thumbnail
    length = len(content) - scan
    if how.startswith("cut at"):
        return content[: scan + length * int(how.split()[2]) // 100] + b"\xff\xd9"
    if how == "zeros":
        return content[: scan + length // 3] + bytes(length // 3) + content[scan + 2 * (length // 3) :]
    other = encoded(PHOTO[::-1], "JPEG")
    return content[: scan + length * 3 // 4] + other[-length * 3 // 4 :]  # two are glued together


DAMAGES = [f"cut at {part} %" for part in range(10, 100, 10)] + ["zeros", "two"]


@pytest.fixture
def checked(tmp_path, capfd):
    """checked({name: content of a file}) -> (the lines that check prints of them, how many problems it counts)."""

    def check(files):
        paths = [write(tmp_path / name, content) for name, content in sorted(files.items())]
        sets = {"train_path": (paths, np.zeros(len(paths), int))}
        found = report(sets, {"train_path": inspect_all(paths, "train_path")}, ["flower"], 32)
        output = capfd.readouterr()
        assert output.err + output.out == ""  # libjpeg writes to file number 2
        return found

    return check


def test_check_names_every_damaged_jpeg_and_no_healthy_one(checked, monkeypatch):
    """As libjpeg itself finds them; threads decode at the same time, so that what it writes may be of any file."""
    files, expected = {}, []
    for kind, content in jpegs().items():
        for number in range(20):  # 200 healthy files
            files[f"{kind} {number}.jpg"] = content + bytes(number)
    for kind in ("baseline", "optimized", "fine", "restarts", "thumbnail"):
        for how in DAMAGES:
            name = f"{kind} {how}.jpg"
            files[name] = damaged(jpegs()[kind], how)
            expected.append(name)
    monkeypatch.setattr("utils.commands.check.MAX_LINES", len(files))
    lines, _ = checked(files)
    found = re.findall(r"  image \S*/([^/]*.jpg): found a corrupt JPEG \(.*\), expected", "\n".join(lines))
    assert sorted(found) == sorted(expected)


def test_check_does_not_take_a_cut_progressive_jpeg_for_healthy(checked):
    content = jpegs()["progressive"]
    half = content[: content.index(b"\xff\xda") + 200] + b"\xff\xd9"
    lines, problems = checked({"half.jpg": half, "whole.jpg": content})
    assert problems == 1 and "half.jpg: found a corrupt JPEG (premature end of data segment), exp" in "\n".join(lines)


def test_nothing_of_libjpeg_is_seen_while_check_draws_its_picture(folders, in_tmp_path, capfd):
    """It warns of this image each time that it is read."""
    train = folders({"cat": 1, "dog": 1})
    write(in_tmp_path / "train" / "cat" / "new.jpg", jpegs()["of another version"])
    assert run.main(["check", "--train_path", train]) == 0
    output = capfd.readouterr()
    assert output.out.splitlines()[-1] == "some images of each class: samples.png" and output.err == ""


def transparent(colour, alpha, dtype=np.uint8):
    """A PNG with a red square on a ground of that colour and opacity."""
    pixels = np.zeros((40, 40, 4), dtype)
    pixels[...] = (*3 * [colour], alpha)
    pixels[10:30, 10:30] = (0, 0, np.iinfo(dtype).max, np.iinfo(dtype).max)
    return cv2.imencode(".png", pixels)[1].tobytes()


def test_check_tells_where_transparency_hides_colours_that_the_network_sees(checked):
    files = {
        "black.png": transparent(0, 0), "grey.png": transparent(128, 100), "deep.png": transparent(0, 0, np.uint16),
        "white.png": transparent(255, 0), "opaque.png": transparent(0, 255), "nearly.png": transparent(0, 250),
        "plain.png": encoded(NOISE, "PNG"), "deepwhite.png": transparent(65535, 0, np.uint16),
    }  # fmt: skip
    lines, _ = checked(files)
    told = [line for line in lines if "transparent where the colour is not white" in line]
    assert len(told) == 1 and ": 3 images, such as " in told[0]
    assert re.findall(r"(\w+)\.png", told[0]) == ["black", "deep", "grey"]


def test_check_tells_of_images_that_use_few_levels(checked):
    deep = np.random.RandomState(0).randint(0, 4096, (30, 30)).astype(np.uint16)
    files = {
        "12 of 16 bit.png": cv2.imencode(".png", deep)[1].tobytes(),
        "12 of 16 bit.tif": cv2.imencode(".tif", deep[::-1])[1].tobytes(),
        "0 and 1.png": encoded((NOISE[..., 0] > 99).astype(np.uint8), "PNG"),
        "faint.png": encoded(NOISE // 4 + 100, "PNG"),
        "0 and 255.png": encoded((NOISE[..., 0] > 99).astype(np.uint8) * 255, "PNG"),
        "16 bit.png": cv2.imencode(".png", deep * 16)[1].tobytes(),
        "soft.png": encoded(NOISE // 3, "PNG"),
    }
    lines, problems = checked(files)
    told = [line for line in lines if "values within 64 of the 256 levels" in line]
    assert problems == 0 and len(told) == 1 and ": 4 images, such as " in told[0]
    names = re.findall(r"/([\w ]+\.\w+)", told[0])
    assert names == ["0 and 1.png", "12 of 16 bit.png", "12 of 16 bit.tif"]


def test_a_bmp_with_an_empty_fourth_channel_is_not_called_transparent(checked):
    pixels = np.dstack([NOISE, np.zeros(NOISE.shape[:2], np.uint8)])
    header = b"BM" + struct.pack("<IIIIiiHHIIiiII", 54 + pixels.size, 0, 54, 40, 64, -48, 1, 32, 0, 0, 0, 0, 0, 0)
    lines, _ = checked({"screen.bmp": header + pixels.tobytes()})
    assert not any("transparen" in line for line in lines)


def test_check_says_the_smallest_the_median_and_the_largest_size(checked):
    shapes = [(40, 30), (5, 60), (70, 20), (8, 8), (100, 90), (33, 31)]  # 1200, 300, 1400, 64, 9000, 1023 pixels
    files = {f"{n}.png": encoded(np.full((*shape, 3), 9 * n + 99, np.uint8), "PNG") for n, shape in enumerate(shapes)}
    lines, _ = checked(files)
    assert "  width x height: smallest 8x8, median 31x33, largest 90x100" in lines


def test_check_tells_what_becomes_of_transparency(checked):
    lines, _ = checked({"white.png": transparent(255, 0), "half.png": transparent(255, 128)})
    told = "it is dropped, so the network sees the colours alone; --transparency white puts them on white"
    assert f"  2 images with transparency: {told}" in lines
    lines, _ = checked({"plain.png": encoded(NOISE, "PNG")})
    assert not any("transparency" in line for line in lines)


def test_long_lists_of_duplicates_end_with_how_many_more_there_are(checked):
    files = {f"{n:02d} of one.png": encoded(NOISE, "PNG") for n in range(9)}
    for pair in range(12):
        for n in range(2):
            files[f"pair {pair:02d} {n}.png"] = encoded(NOISE // 2 + pair, "PNG")
    lines, problems = checked(files)
    start = next(number for number, line in enumerate(lines) if line.startswith("duplicate images: "))
    assert re.findall(r"(\d\d of one)", lines[start]) == [f"0{n} of one" for n in range(4)]
    assert lines[start].endswith(" and 5 more") and problems == 13
    assert all(line.startswith("duplicate images: ") for line in lines[start : start + 10])
    assert lines[start + 10 : start + 12] == ["and 3 more", "  remedy: delete all but one of each"]
