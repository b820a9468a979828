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
MODES = ["stretch", "crop", "pad"]
LEVEL = 1.01 / 255 / 0.224  # of 256, normalized
MAIN = """
#include "prepare.hpp"
#include <cstdio>
#include <cstdlib>
int main(int, char** words) {
  Preprocessing how{32, words[2], words[3], {MEAN}, {STD}, {atof(words[4]), atof(words[5]), atof(words[6])}};
  cv::Mat input = prepare(words[1], how);
  fwrite(input.data, sizeof(float), input.total() * 3, stdout);
}
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """{shape: path of a PNG with noise and a gradient}."""
    folder, random, paths = tmp_path_factory.mktemp("photos"), np.random.RandomState(0), {}
    for height, width in SHAPES:
        pixels = random.randint(0, 120, (height, width, 3)) + np.linspace(0, 135, width)[:, np.newaxis]
        paths[height, width] = str(folder / f"{height}x{width}.png")
        cv2.imwrite(paths[height, width], pixels.astype(np.uint8))
    return paths


def about(mode, order):
    """The JSON beside a graph with these settings."""
    config = settings(train_path="nowhere", classes=["cat", "dog"], resize=mode, channel_order=order)
    origin = dict.fromkeys(("val_acc", "run_folder", "checkpoint", "fingerprint"))
    return json.loads(json.dumps(make_metadata(config, origin)))


def expected(path, mode, order):
    images = preprocess(32, resize=mode, channel_order=order)
    return images.normalize(images.load(path)[np.newaxis])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ["bgr", "rgb"])
def test_python(photos, mode, order):
    spec = importlib.util.spec_from_file_location("prepare", os.path.join(SHIP, "prepare.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path in photos.values():
        found = module.prepare(path, about(mode, order))
        assert found.shape == (1, 32, 32, 3) and found.dtype == np.float32
        np.testing.assert_allclose(found, expected(path, mode, order), atol=1e-4)


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ["bgr", "rgb"])
def test_javascript(photos, tmp_path, mode, order):
    """Within a level of 255, because OpenCV rounds several times within bilinear interpolation; area exactly."""
    script = (
        f"import {{ prepare }} from {json.dumps(os.path.join(SHIP, 'prepare.mjs'))};\n"
        "import fs from 'fs';\n"
        f"const about = {json.dumps(about(mode, order))};\n"
        "for (const [name, width, height] of JSON.parse(process.argv[2])) {\n"
        "  const input = prepare(fs.readFileSync(name), width, height, about);\n"
        "  fs.writeFileSync(name + '.out', new Uint8Array(input.buffer));\n"
        "}\n"
    )
    (tmp_path / "run.mjs").write_text(script)
    images = []
    for number, ((height, width), path) in enumerate(photos.items()):
        pixels = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGBA if number % 2 else cv2.COLOR_BGR2RGB)
        name = str(tmp_path / f"{number}.raw")
        pixels.tofile(name)
        images.append((name, width, height))
    subprocess.run(["node", str(tmp_path / "run.mjs"), json.dumps(images)], check=True)
    for (name, width, height), path in zip(images, photos.values()):
        found = np.fromfile(f"{name}.out", np.float32).reshape(1, 32, 32, 3)
        is_area = min(width, height) > 64
        np.testing.assert_allclose(found, expected(path, mode, order), atol=1e-4 if is_area else LEVEL)


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


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ["bgr", "rgb"])
def test_cpp(program, photos, mode, order):
    colour = map(str, about(mode, order)["preprocessing"]["border_colour"])
    words = [mode, order, *colour]
    for path in photos.values():
        done = subprocess.run([program, path, *words], stdout=subprocess.PIPE, check=True)
        found = np.frombuffer(done.stdout, np.float32).reshape(1, 32, 32, 3)
        np.testing.assert_allclose(found, expected(path, mode, order), atol=LEVEL)  # versions may round differently
