"""Spoil a project at random: each command then does its work or says in one line what is wrong, and loses nothing.

make test tries some of these; make chaos tries 300 (the hypothesis profile "long" of conftest.py).
"""

import contextlib
import glob
import json
import os
import shutil
import signal
from unittest import mock

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, strategies
from hypothesis import settings as example_settings

import run
from src import config
from src.settings import SETTINGS
from tests.conftest import working_in

NOTES = "notes.partial-1.txt"  # a file of the user's, in each folder that the program writes to
READING = ["evaluate", "predict test", "explain test/cat/00.png", "check", "runs", "summary"]
COMMANDS = [*READING, "export", "train", "train --resume --num_epoch 2"]
SECONDS = 100  # that a command may take
CONFIG = {"train_path": "train", "test_path": "test", "img_size": 16, "batch_size": 4}

VALUES = strategies.one_of(
    strategies.none(),
    strategies.booleans(),
    strategies.sampled_from([-1, 0, 1, 2, 3, 17, 10**30, -1.5, 0.0, 0.5, 1e30, float("nan"), float("inf")]),
    strategies.text(strategies.characters(blacklist_characters="/."), max_size=3),
    strategies.sampled_from(["\ud800", "train", "mobilenetv2", "None", "skip", "head", "crop", "cat\n", ""]),
    strategies.lists(strategies.sampled_from(["cat", "dog", 1, None, 0.5]), max_size=3),
    strategies.just({}),
)
PLACE = strategies.integers(0, 10**6)  # which of the files, or of the values in a file, or which byte
MUTATIONS = strategies.lists(
    strategies.one_of(
        strategies.tuples(strategies.just("setting"), strategies.sampled_from(sorted(SETTINGS)), VALUES),
        strategies.tuples(strategies.just("record"), PLACE, VALUES),
        strategies.tuples(strategies.just("flip"), PLACE, PLACE, strategies.integers(1, 255)),
        strategies.tuples(strategies.just("cut"), PLACE, PLACE),
        strategies.tuples(strategies.just("insert"), PLACE, PLACE, strategies.binary(max_size=9)),
        strategies.tuples(
            strategies.just("replace"), PLACE, strategies.sampled_from(["nothing", "file", "folder", "link", "pipe"])
        ),
        strategies.tuples(strategies.just("rename"), PLACE, strategies.sampled_from(["a b", "\u00e4", "-x", "1.png"])),
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with images in three formats and a network that has learned them for an epoch."""
    folder = tmp_path_factory.mktemp("project")
    random = np.random.RandomState(0)
    with working_in(folder), with_settings(CONFIG):
        for part in ("train", "test"):
            for name in ("cat", "dog"):
                os.makedirs(os.path.join(part, name))
                for number in range(12):
                    pixels = random.randint(0, 256, (16, 16, 3)).astype(np.uint8)
                    ending = (".png", ".jpg", ".webp")[number % 3]
                    cv2.imwrite(os.path.join(part, name, f"{number:02d}{ending}"), pixels)
        assert run.main(["train"]) == 0
        for path in [*glob.glob("*/lenet5"), *glob.glob("checkpoints/lenet5/2*"), "."]:
            with open(os.path.join(path, NOTES), "w") as file:
                file.write("a user's own")
    return str(folder)


@contextlib.contextmanager
def with_settings(changed):
    """Within it, src/config.py says so."""
    with mock.patch.dict(vars(config), changed):
        yield


def mutate(kind, place, *how):
    """Spoil a file or folder of the project that we are in."""
    files = sorted(path for path in glob.glob("**", recursive=True) if os.path.isfile(path) and NOTES not in path)
    if kind == "record":
        change_value(glob.glob("checkpoints/lenet5/2*/run.json"), place, *how)
    elif kind in ("replace", "rename"):
        paths = sorted(path for path in glob.glob("**/*", recursive=True) if NOTES not in path)
        {"replace": replace, "rename": rename}[kind](paths[place % len(paths)], *how)
    elif files:
        change_bytes(files[place % len(files)], kind, *how)


def change_value(paths, place, value):
    """Change a value somewhere in a JSON file."""
    for path in paths:
        try:
            with open(path) as file:
                record = json.load(file)
        except (OSError, ValueError):
            return
        places = list(walk(record))
        holder, key = places[place % len(places)]
        holder[key] = value
        with open(path, "w") as file:
            json.dump(record, file)


def walk(value):
    """All (dict or list, key) below a value that JSON can hold."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from walk(value[key])


def change_bytes(path, kind, place, what=b""):
    with open(path, "rb") as file:
        content = bytearray(file.read())
    place %= len(content) + 1
    if kind == "flip" and place < len(content):
        content[place] ^= what
    elif kind == "cut":
        del content[place:]
    elif kind == "insert":
        content[place:place] = what
    with open(path, "wb") as file:
        file.write(content)


def replace(path, by):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.remove(path)
    if by == "file":
        open(path, "w").close()
    elif by == "folder":
        os.mkdir(path)
    elif by == "link":
        os.symlink(os.path.abspath(NOTES), path)
    elif by == "pipe":
        os.mkfifo(path)


def rename(path, name):
    with contextlib.suppress(OSError):  # there is one of that name
        os.rename(path, os.path.join(os.path.dirname(path), name))


def contents(*folders):
    """{path: bytes} of the files in some folders, but for those by which processes keep each other out."""
    found = {}
    for folder in folders:
        for path in sorted(glob.glob(f"{glob.escape(folder)}/**", recursive=True)):
            if os.path.isfile(path) and not path.endswith("lock"):
                with open(path, "rb") as file:
                    found[path] = file.read()
    return found


def lost(before, after):
    """What is no longer there, under its own or another name."""
    return [path for path, content in before.items() if content and content not in after.values()]


def kept_by(command, mutations):
    """The folders of which a command may lose nothing."""
    kept = ["train", "test"]
    if command in READING:
        kept += ["checkpoints", "weights"]
    elif command == "train" and not any(mutation[:2] == ("setting", "keep_runs") for mutation in mutations):
        kept += sorted(glob.glob("checkpoints/lenet5/2*"))
    return kept


@given(mutations=MUTATIONS, command=strategies.sampled_from(COMMANDS))
@example_settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_a_spoiled_project_is_used_or_refused_in_one_line_and_loses_nothing(
    project, tmp_path_factory, capfd, mutations, command
):
    work = tmp_path_factory.mktemp("work")
    shutil.copytree(project, str(work / "project"))
    changed = dict(CONFIG, **{name: value for kind, name, value in (m[:3] for m in mutations) if kind == "setting"})
    with working_in(work / "project"):
        for mutation in mutations:
            if mutation[0] != "setting" and os.listdir("."):
                mutate(*mutation)
        before = contents(*kept_by(command, mutations))
        notes = {path: NOTES for path in contents(".") if NOTES in path}
        capfd.readouterr()
        signal.alarm(SECONDS)
        try:
            with with_settings(changed):
                code = run.main(command.split())
        finally:
            signal.alarm(0)
        output, errors = capfd.readouterr()
        note(f"exit code {code}\n{output}{errors}")
        assert code in (0, 1, 2)
        assert "Traceback" not in output + errors
        if code == 2:
            assert [line for line in errors.splitlines() if line.startswith("error: ")] == errors.splitlines()[-1:]
        assert lost(before, contents(".")) == []
        assert [path for path in notes if not os.path.exists(path)] == []
    shutil.rmtree(str(work))
