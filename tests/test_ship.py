"""docs/ship: programs that prepare an image for an exported network elsewhere, compared with what training does."""

import importlib.util
import json
import os
import shutil
import subprocess

import cv2
import numpy as np
import pytest

from src.settings import settings
from tests.conftest import REPOSITORY, preprocess
from utils.inference.exported import make_metadata

SHIP = os.path.join(REPOSITORY, "docs", "ship")
# Height and width: smaller, equal, halved, more than halved in one direction or in both, thin, a photo.
SHAPES = [(9, 9), (20, 70), (32, 32), (64, 64), (64, 90), (33, 200), (300, 40), (4, 150), (601, 803)]
LARGE = [(600, 800), (512, 1024), (1024, 1032), (401, 600)]  # JPEGs: of the first three predict decodes a part
CASES = [(mode, order, {}) for mode in ("stretch", "crop", "pad") for order in ("bgr", "rgb")]
CASES += [
    ("pad", "rgb", {"numchannels": 1}),
    ("stretch", "rgb", {"transparency": "white"}),
    ("crop", "bgr", {"numchannels": 1, "transparency": "black"}),
]
LEVEL = 1.01 / 255 / 0.224  # of 256, normalized
MAIN = """
#include "prepare.hpp"
#include <cstdio>
#include <cstdlib>
int main(int, char** words) {
  Preprocessing how{32, atoi(words[2]), words[3], words[4], words[5], {MEAN}, {STD},
                    {atof(words[6]), atof(words[7]), atof(words[8])}};
  if (how.channels == 1) how.mean = 0.449, how.std = 0.226;
  cv::Mat input = prepare(words[1], how);
  fwrite(input.data, sizeof(float), input.total() * input.channels(), stdout);
}
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """{shape: path}: PNG files with noise, a gradient, and transparency in some of them; large JPEG files."""
    folder, random, paths = tmp_path_factory.mktemp("photos"), np.random.RandomState(0), {}
    for height, width in SHAPES:
        pixels = random.randint(0, 120, (height, width, 3)) + np.linspace(0, 135, width)[:, np.newaxis]
        paths[height, width] = str(folder / f"{height}x{width}.png")
        if height % 2 == 0:
            pixels = np.dstack([pixels, random.randint(0, 256, (height, width))])
        cv2.imwrite(paths[height, width], pixels.astype(np.uint8))
    for height, width in LARGE:
        pixels = cv2.resize(random.randint(0, 256, (9, 12, 3)).astype(np.uint8), (width, height))
        paths[height, width] = str(folder / f"{height}x{width}.jpg")
        cv2.imwrite(paths[height, width], cv2.add(pixels, random.randint(0, 30, pixels.shape).astype(np.uint8)))
    return paths


def about(mode, order, **others):
    """The JSON beside a graph with these settings."""
    config = settings(train_path="nowhere", classes=["cat", "dog"], resize=mode, channel_order=order, **others)
    origin = dict.fromkeys(("val_acc", "run_folder", "checkpoint", "fingerprint"))
    return json.loads(json.dumps(make_metadata(config, origin)))


def expected(path, mode, order, **others):
    if others.get("numchannels") == 1:
        others = dict(others, image_normalize_mean=[0.449], image_normalize_std=[0.226])
    images = preprocess(32, resize=mode, channel_order=order, **others)
    return images.normalize(images.load(path)[np.newaxis])


@pytest.mark.parametrize("mode, order, others", CASES)
def test_python(photos, mode, order, others):
    spec = importlib.util.spec_from_file_location("prepare", os.path.join(SHIP, "prepare.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path in photos.values():
        found = module.prepare(path, about(mode, order, **others))
        assert found.shape == (1, 32, 32, others.get("numchannels", 3)) and found.dtype == np.float32
        np.testing.assert_allclose(found, expected(path, mode, order, **others), atol=1e-4)


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
@pytest.mark.parametrize("mode, order, others", CASES)
def test_javascript(photos, tmp_path, mode, order, others):
    """Within a level of 255, because OpenCV rounds within bilinear interpolation and for grey; area exactly."""
    script = (
        f"import {{ prepare }} from {json.dumps(os.path.join(SHIP, 'prepare.mjs'))};\n"
        "import fs from 'fs';\n"
        f"const about = {json.dumps(about(mode, order, **others))};\n"
        "for (const [name, width, height] of JSON.parse(process.argv[2])) {\n"
        "  const input = prepare(fs.readFileSync(name), width, height, about);\n"
        "  fs.writeFileSync(name + '.out', new Uint8Array(input.buffer));\n"
        "}\n"
    )
    (tmp_path / "run.mjs").write_text(script)
    images = []
    photos = {shape: path for shape, path in photos.items() if shape not in LARGE}
    for number, ((height, width), path) in enumerate(photos.items()):
        pixels = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)
        name = str(tmp_path / f"{number}.raw")
        pixels.tofile(name)
        images.append((name, width, height))
    subprocess.run(["node", str(tmp_path / "run.mjs"), json.dumps(images)], check=True)
    for (name, width, height), path in zip(images, photos.values()):
        found = np.fromfile(f"{name}.out", np.float32).reshape(1, 32, 32, -1)
        is_exact = min(width, height) > 64 and "numchannels" not in others
        np.testing.assert_allclose(found, expected(path, mode, order, **others), atol=1e-4 if is_exact else LEVEL)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """prepare.hpp in a program that writes the input for an image to standard output."""
    folder = tmp_path_factory.mktemp("cpp")
    known = about("pad", "bgr")
    text = MAIN.replace("MEAN", ", ".join(map(str, known["image_normalize_mean"])))
    text = text.replace("STD", ", ".join(map(str, known["image_normalize_std"])))
    (folder / "main.cpp").write_text(text)
    libraries = ["-lopencv_imgcodecs", "-lopencv_imgproc", "-lopencv_core"]
    words = ["g++", "-std=c++11", "-I", SHIP, "-I/usr/include/opencv4", "-o", "main", "main.cpp", *libraries]
    if not shutil.which("g++") or subprocess.run(words, cwd=str(folder), stderr=subprocess.DEVNULL).returncode:
        pytest.skip("needs g++ and OpenCV's headers and libraries")
    return str(folder / "main")


@pytest.mark.parametrize("mode, order, others", CASES)
def test_cpp(program, photos, mode, order, others):
    known = about(mode, order, **others)
    colour = map(str, (known["preprocessing"]["border_colour"] + [0, 0])[:3])
    words = [str(known["input"]["shape"][3]), mode, known["transparency"], order, *colour]
    for path in photos.values():
        done = subprocess.run([program, path, *words], stdout=subprocess.PIPE, check=True)
        found = np.frombuffer(done.stdout, np.float32).reshape(1, 32, 32, -1)
        # Versions of OpenCV may round differently.
        np.testing.assert_allclose(found, expected(path, mode, order, **others), atol=LEVEL)
