"""What is read of an image file, the same with every version of OpenCV; Pillow says how it is meant."""

import io
import re
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from src.errors import InputError
from tests.helpers.image_files import NOISE, PHOTO, chunk, encoded, jpegs, with_segments, write
from utils.images.decode import read_image


def orientation_data(orientation, order="<", prefix=b"Exif\0\0"):
    """EXIF data by hand: a TIFF header, one entry, tag 0x0112."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    return prefix + start + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def tiff(data, tags, order="<"):
    """A TIFF by hand: its image data, one directory. tags: {tag: value}, those of 16 bit."""
    count = len(tags)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    places = {273: 8 + 6 + 12 * count, 324: 8 + 6 + 12 * count}  # of the data
    directory = struct.pack(order + "H", count)
    for tag, value in sorted(tags.items()):
        kind = (4, 1, places[tag]) if tag in places else (4, 1, value) if tag in (279, 325) else (3, 1, value)
        directory += struct.pack(order + ("HHII" if kind[0] == 4 else "HHIHxx"), tag, *kind)
    return start + directory + bytes(4) + data


def grey_tiff(bits, data, size=(4, 3), sample_format=1, order="<", more=None):
    width, height = size
    given = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 0, 277: 1, 278: height, 279: len(data)}
    given.update({339: sample_format, **(more or {})})
    return tiff(data, {tag: value for tag, value in given.items() if value is not None}, order)


def png_with_exif(pixels, exif, place=33):
    """A PNG with EXIF data at that place, else behind its header."""
    content = encoded(pixels, "PNG")
    place %= len(content)
    return content[:place] + chunk(b"eXIf", exif) + content[place:]


GREY = (np.arange(50 * 70).reshape(50, 70) // 14).astype(np.uint8)
TILES = {322: 80, 323: 64, 324: 0, 325: 80 * 64, 273: None, 278: None, 279: None}
WAYS = {  # (EXIF data, the orientation in them, the order of bytes) -> a file
    "JPEG": lambda exif, *_: encoded(PHOTO, "JPEG", quality=98, subsampling=0, exif=exif),
    "JPEG, after XMP": lambda exif, *_: with_segments(encoded(PHOTO, "JPEG", quality=98, subsampling=0), XMP, exif),
    "WebP": lambda exif, *_: encoded(NOISE, "WEBP", lossless=True, exif=exif),
    "PNG": lambda exif, *_: png_with_exif(NOISE, exif[6:]),
    "PNG, at its end": lambda exif, *_: png_with_exif(NOISE, exif[6:], -12),
    "TIFF": lambda _, turn, order: grey_tiff(8, GREY.tobytes(), (70, 50), order=order, more={274: turn}),
    "TIFF of 16 bit": lambda _, turn, order: grey_tiff(
        16, (GREY.astype(order + "u2") * 257).astype(order + "u2").tobytes(), (70, 50), order=order, more={274: turn}
    ),
    "TIFF in tiles": lambda _, turn, order: grey_tiff(
        8, np.pad(GREY, ((0, 14), (0, 10)), "constant").tobytes(), (70, 50), order=order, more={274: turn, **TILES}
    ),
}
XMP = b"http://ns.adobe.com/xap/1.0/\0" + bytes(900)


@pytest.mark.parametrize("kind", sorted(WAYS))
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", "<>")
def test_an_image_of_any_format_is_upright_as_pillow_turns_it(tmp_path, kind, orientation, order):
    exif = orientation_data(orientation, order)
    found = read_image(write(tmp_path / "image", WAYS[kind](exif, orientation, order)))
    stored = PHOTO if "JPEG" in kind else GREY if "TIFF" in kind else NOISE
    same = Image.open(write(tmp_path / "same.png", png_with_exif(stored, exif[6:])))
    expected = np.array(ImageOps.exif_transpose(same).convert("RGB"))[..., ::-1]
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (8 if "JPEG" in kind else 0)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
@pytest.mark.parametrize("kind", sorted(WAYS))
def test_an_orientation_that_does_not_exist_is_upright(tmp_path, kind, orientation):
    found, upright = [WAYS[kind](orientation_data(turn), turn, "<") for turn in (orientation, 1)]
    assert np.array_equal(
        read_image(write(tmp_path / "found", found)), read_image(write(tmp_path / "upright", upright))
    )


def test_exif_data_that_are_cut_short_turn_nothing(tmp_path):
    expected = cv2.imdecode(np.frombuffer(encoded(PHOTO, "JPEG"), np.uint8), cv2.IMREAD_COLOR)
    exif = orientation_data(6)[:-4]  # ends behind the entry
    for length in range(6, len(exif)):
        path = write(tmp_path / "photo.jpg", encoded(PHOTO, "JPEG", exif=exif[:length]))
        assert np.array_equal(read_image(path), expected), length
    path = write(tmp_path / "photo.jpg", encoded(PHOTO, "JPEG", exif=exif))
    assert np.array_equal(read_image(path), expected[::-1].transpose(1, 0, 2))


@pytest.mark.parametrize("name", sorted(jpegs()))
def test_what_follows_a_jpeg_does_not_matter(tmp_path, name):
    """A phone's video, a second picture, padding: 50 of each kind, with what looks like the start of a scan in them."""
    content = jpegs()[name]
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    random = np.random.RandomState(1)
    for length in range(50):
        video = b"\0\0\0\x18ftypmp42" + random.bytes(10 * length) + b"\xff\xda" + random.bytes(length)
        assert np.array_equal(read_image(write(tmp_path / "photo.jpg", content + video)), expected)


@pytest.mark.parametrize("name", sorted(jpegs()))
def test_a_jpeg_without_its_end_is_cut_short_wherever_that_is(tmp_path, name):
    content = jpegs()[name]
    for length in range(4, len(content) - 1, len(content) // 50):
        with pytest.raises(InputError, match="photo.jpg: found a truncated JPEG, expected a complete one"):
            read_image(write(tmp_path / "photo.jpg", content[:length]))


def animation(kind):
    file = io.BytesIO()
    frames = [Image.fromarray(pixels) for pixels in (NOISE, NOISE[::-1])]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=100)
    return file.getvalue()


def png_of(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def jpeg_of(width, height):
    content = encoded(NOISE, "JPEG")
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]


PNG, WEBP, BMP = [cv2.imencode(kind, NOISE)[1].tobytes() for kind in (".png", ".webp", ".bmp")]
FLOATS = np.linspace(0, 1, 12).astype(np.float32).tobytes()
NOT_READ = [
    (b"", "an empty file, expected a PNG, JPEG, BMP, WebP or TIFF image"),
    (b"<!DOCTYPE html>\n<title>404", "an HTML page, expected a PNG, JPEG, BMP, WebP or TIFF image"),
    (b"\xef\xbb\xbf \n<HTML>", "an HTML page"),
    (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG"),
    (b"<?xml version='1.0'?><a/>", "XML"),
    (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a",
        "a Git LFS pointer (git lfs pull fetches the image)",
    ),
    (b"not an image\n", "a text file"),
    (bytes(5000), "a file of zeros"),
    (b"\x01\x02\x03", "a file of unknown format, starting with 01 02 03"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photo (convert it to JPEG)"),
    (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC photo (convert it to JPEG)"),
    (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "an AVIF image"),
    (b"\0\0\0\x18ftypmp42\0\0\0\0isom", "an MP4 video"),
    (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "a QuickTime video"),
    (b"PK\3\4\x14\0", "a ZIP archive"),
    (b"%PDF-1.7\n", "a PDF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (b"II+\0\x08\0\0\0", "a BigTIFF"),
    (b"\0\5\x16\7\0\2\0\0Mac OS X", "an AppleDouble file (metadata of macOS)"),
    (encoded(NOISE, "GIF"), "a GIF"),
    (encoded(NOISE, "PPM"), "a PNM image"),
    (encoded(NOISE, "ICO"), "an icon (ICO)"),
    (animation("WEBP"), "an animated WebP"),
    (PNG[:-20], "a truncated PNG"),
    (WEBP[:-20], "a truncated WebP"),
    (BMP[:-20], "a truncated BMP"),
    (animation("PNG")[:-20], "a truncated PNG"),
    (grey_tiff(8, NOISE[..., 0].tobytes())[:40], "a truncated TIFF"),
    (PNG[:900] + bytes(64) + PNG[964:], "a PNG that is corrupt, or of a variant that OpenCV cannot decode"),
    (
        grey_tiff(32, FLOATS, sample_format=3),
        "a TIFF of 32-bit floating-point numbers, expected .* TIFF image of 8 or 16",
    ),
    (grey_tiff(32, FLOATS, sample_format=3, order=">"), "a TIFF of 32-bit floating-point numbers"),
    (grey_tiff(64, FLOATS + FLOATS, sample_format=3), "a TIFF of 64-bit floating-point numbers"),
    (grey_tiff(12, bytes(18)), "a TIFF of 12-bit numbers"),
    (grey_tiff(32, bytes(48)), "a TIFF of 32-bit numbers"),
    (grey_tiff(8, bytes(12), more={258: None}), "a TIFF without the number of bits per sample"),
    (grey_tiff(8, bytes(12), more={259: 50000}), "a TIFF with Zstandard compression"),
    (png_of(40000, 40000), "a PNG of 40000x40000 pixels, expected at most 268 million$"),
    (jpeg_of(65000, 65000), "a JPEG of 65000x65000 pixels, expected at most 268 million$"),
    (BMP[:18] + struct.pack("<ii", 20000, -20000) + BMP[26:], "a BMP of 20000x20000 pixels, expected at most 268"),
    (grey_tiff(8, bytes(12), (20000, 20000)), "a TIFF of 20000x20000 pixels, expected at most 268 million$"),
    (png_of(2000000, 1), "a PNG of 2000000x1 pixels, expected at most 1000000 a side$"),
]


@pytest.mark.parametrize("content, what", NOT_READ, ids=[what[:40] for _, what in NOT_READ])
def test_a_file_that_is_not_read_is_called_what_it_is(tmp_path, content, what):
    path = write(tmp_path / "image.png", content)
    with pytest.raises(InputError) as error:
        read_image(path)
    pattern = what.replace("(", r"\(").replace(")", r"\)")
    assert re.match(f"image {re.escape(path)}: found {pattern}", str(error.value)), str(error.value)


def test_every_kind_that_is_read_is_read_as_pillow_reads_it(tmp_path):
    photo, random = Image.fromarray(NOISE), np.random.RandomState(2)
    palette = photo.quantize(16)
    for kind, image, options in (
        ("PNG", photo, {}), ("PNG", photo.convert("L"), {}), ("PNG", photo.convert("1"), {}), ("PNG", palette, {}),
        ("BMP", photo, {}), ("BMP", palette, {}), ("TIFF", photo, {"compression": "tiff_lzw"}),
        ("TIFF", palette, {"compression": "tiff_adobe_deflate"}), ("TIFF", photo.convert("CMYK"), {}),
        ("TIFF", photo.convert("1"), {"compression": "group4"}), ("WEBP", photo, {"lossless": True}),
    ):  # fmt: skip
        file = io.BytesIO()
        image.save(file, kind, **options)
        found = read_image(write(tmp_path / "image", file.getvalue()))
        assert np.array_equal(found[..., ::-1], np.array(image.convert("RGB"))), (kind, image.mode)
    deep = random.randint(0, 65536, (9, 7, 3)).astype(np.uint16)
    for kind in (".png", ".tif"):
        path = write(tmp_path / "deep", cv2.imencode(kind, deep)[1].tobytes())
        assert np.abs(read_image(path).astype(int) - deep / 257).max() < 1.01, kind
