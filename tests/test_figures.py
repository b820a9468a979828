"""The pictures of the guide, and the table that docs/figures/make_figures.py makes."""

import os
import re
import subprocess
import sys

from tests.conftest import REPOSITORY

FIGURES = os.path.join(REPOSITORY, "docs", "figures")


def test_each_picture_that_the_script_makes_is_there_and_small():
    with open(os.path.join(FIGURES, "make_figures.py"), encoding="utf-8") as file:
        lines = re.findall(r"^    ([a-z][a-z_, ]+?)  ", file.read(), flags=re.MULTILINE)
    named = {f"{name}.png" for name in ", ".join(lines).split(", ")}
    there = {name for name in os.listdir(FIGURES) if name.endswith(".png")}
    assert len(there) == 16 and named == there
    for name in there:
        assert os.path.getsize(os.path.join(FIGURES, name)) < 200000, name


def test_the_table_of_blocks_has_the_numbers_worked_out_by_hand():
    """Block 2 of MobileNetV2 at 224 pixels: 112x112x16 -> 112x112x96 -> 56x56x96 -> 56x56x24."""
    expand, depthwise, project = 112 * 112 * 16 * 96, 56 * 56 * 96 * 9, 56 * 56 * 96 * 24
    block, plain = expand + depthwise + project, 56 * 56 * 24 * 9 * 16
    other = expand + 96 * depthwise + project
    line = f"| 2 | 2 | 112x112x16 | 56x56x24 | {block:,} | {plain:,} (0.4) | {other:,} (9.8) |"
    code = "import make_figures; print(make_figures.blocks_table())"
    environment = dict(os.environ, PYTHONPATH=FIGURES)
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, check=True)
    lines = done.stdout.decode().splitlines()
    assert line in lines and len(lines) == 2 + 12
    with open(os.path.join(REPOSITORY, "docs", "networks.md"), encoding="utf-8") as file:
        assert "\n".join(lines) in file.read()
