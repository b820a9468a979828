"""Image files made by hand and by Pillow."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

NOISE = np.random.RandomState(0).randint(0, 256, (48, 64, 3)).astype(np.uint8)
PHOTO = cv2.resize(NOISE[:6, :8], (96, 72), interpolation=cv2.INTER_CUBIC)  # smooth, as JPEG likes it
JPEGS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimized": {"optimize": True},
    "fine": {"quality": 98, "subsampling": 0},
}


def write(path, content):
    with open(str(path), "wb") as file:
        file.write(content)
    return str(path)


def contents(folder):
    """{path below the folder: content}."""
    found = {}
    for above, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(above, name), "rb") as file:
                found[os.path.relpath(os.path.join(above, name), folder)] = file.read()
    return found


def encoded(pixels, kind, **options):
    """The bytes of an image file, by Pillow."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def chunk(name, data):
    """Of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) & 0xFFFFFFFF)


def with_segments(jpeg, *contents):
    """A JPEG with these APP1 segments before all others."""
    segments = [b"\xff\xe1" + struct.pack(">H", 2 + len(content)) + content for content in contents]
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def jpegs():
    """{name: the bytes of a healthy JPEG}, of every kind."""
    found = {name: encoded(PHOTO, "JPEG", **options) for name, options in JPEGS.items()}
    found["grey"] = encoded(PHOTO[..., 0], "JPEG")
    found["of one pixel"] = encoded(PHOTO[:1, :1], "JPEG")
    file = io.BytesIO()
    Image.fromarray(PHOTO).convert("CMYK").save(file, "JPEG")
    found["CMYK"] = file.getvalue()
    found["restarts"] = cv2.imencode(".jpg", PHOTO, [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1].tobytes()
    assert b"\xff\xd3" in found["restarts"]
    # libjpeg knows JFIF 1 and 2: it writes a warning, and reads on.
    found["of another version"] = found["baseline"].replace(b"JFIF\0\1", b"JFIF\0\3")
    assert found["of another version"] != found["baseline"]
    found["thumbnail"] = with_segments(found["baseline"], found["baseline"])
    return found
