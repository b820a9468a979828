"""CONTRIBUTING.md, "Add a setting", done in a copy of the program: one that changes what the network sees."""

import glob
import json
import os

import cv2
import numpy as np

from tests.conftest import run_graph
from tests.helpers.program_copy import copy_program, run_copy

EDITS = {  # all of them: {file: [(what is there, what follows it)]}
    "src/config.py": [
        ('resize = "stretch"', 'interpolation = "bilinear"  # bilinear; nearest: the nearest pixel\nresize = "stretch"')
    ],
    "src/settings.py": [(
        '    "resize": setting(',
        '    "interpolation": setting("learning preprocessing", rules.one_of("bilinear", "nearest"), '
        '"bilinear; nearest: the nearest pixel"),\n    "resize": setting(',
    )],
    "utils/images/preprocess.py": [
        ('EARLIER = {', 'EARLIER = {"interpolation": "bilinear", '),
        (
            "resize, transparency\n    ):\n",
            "resize, transparency,\n        interpolation\n    ):\n        self.interpolation = interpolation\n",
        ),
        (
            '        if self.resize == "stretch":\n',
            '        if self.interpolation == "nearest":\n'
            "            return cv2.resize(image, (size, size), interpolation=cv2.INTER_NEAREST)\n"
            '        if self.resize == "stretch":\n',
        ),
    ],
}  # fmt: skip


def copy_with_the_setting(folder):
    copy_program(folder)
    for name, edits in EDITS.items():
        path = os.path.join(folder, name)
        with open(path, encoding="utf-8") as file:
            text = file.read()
        for old, new in edits:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def test_a_new_setting_of_preprocessing_reaches_training_graph_prediction_and_transfer(folders, tmp_path):
    folder, train_path = str(tmp_path / "program"), folders({"cat": 20, "dog": 20}, size=48)
    copy_with_the_setting(folder)
    data = ["--train_path", train_path, "--test_path", train_path, "--batch_size", "8"]
    run_copy(folder, *data, "--interpolation", "nearest")
    with open(os.path.join(folder, "weights", "lenet5", "lenet5.json")) as file:
        assert json.load(file)["interpolation"] == "nearest"

    image = os.path.join(train_path, "cat", "000.png")
    pixels = cv2.resize(cv2.imread(image), (32, 32), interpolation=cv2.INTER_NEAREST) / 255.0
    normalized = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    (logits,) = run_graph(os.path.join(folder, "weights", "lenet5", "lenet5.pb"), [normalized.astype(np.float32)])
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    found = json.loads(run_copy(folder, "predict", image, "--json"))["predictions"]
    found = {row["class"]: row["probability"] for row in found}
    np.testing.assert_allclose([found["cat"], found["dog"]], expected, atol=2e-6)

    (checkpoint,) = glob.glob(os.path.join(folder, "checkpoints", "lenet5", "2*"))
    output = run_copy(folder, *data, "--pretrained", checkpoint, "--checkpoint_dir", "other")
    assert "interpolation nearest" in output
    (record,) = glob.glob(os.path.join(folder, "other", "2*", "run.json"))
    with open(record) as file:
        (entry,) = [entry for name, entry in json.load(file).items() if name.startswith("lenet5-")]
    assert entry["settings"]["interpolation"] == "nearest"
