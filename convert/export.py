"""Exports a network for evaluate, predict and the converters; earlier exports are kept."""

import contextlib
import filecmp
import itertools
import os
import shutil
import time
from typing import Dict, Optional

import numpy as np

from convert.freeze import frozen_graph
from src.console import say
from src.errors import InputError
from src.settings import settings_for
from src.system import lock, open_to_lock, release
from utils.checkpoints.run_index import find_run
from utils.checkpoints.run_metadata import is_file_name
from utils.files import atomic_folder, make_writable, remove_leftovers, write_atomically
from utils.inference.exported import exported_files, graph_path, make_metadata, metadata_path, read_metadata


def freeze(config, weights: Dict[str, np.ndarray], origin: dict) -> str:
    """Write <model_arch>.pb, labels.txt and <model_arch>.json to config.weight_dir.

    A graph of another run is first moved to a folder named after that run. Three files cannot be replaced in one atomic
    step, so the JSON holds the graph's checksum, and readers refuse a pair that does not match.

    Args:
        config: the settings of the run that the weights come from.
        weights: {variable name: array} for every variable of the model; others are ignored.
        origin: of the weights, as make_metadata takes it.

    Returns:
        The path of the .pb file.

    Raises:
        InputError: the weights do not match the model, or contain NaN or Inf; unwritable folder.
    """
    make_writable("weight_dir", config.weight_dir)
    graph_def = frozen_graph(config, weights)
    path, metadata = graph_path(config), make_metadata(config, origin)
    labels = os.path.join(config.weight_dir, "labels.txt")
    contents = {labels: "".join(f"{name}\n" for name in config.classes)}
    contents.update(exported_files(path, graph_def, metadata))
    with locked_exports(config.weight_dir):
        remove_leftovers(config.weight_dir)
        write_atomically(contents, before_replace=lambda: move_aside(path, metadata["run"]))
    return path


@contextlib.contextmanager
def locked_exports(folder):
    """Let one process at a time write graphs to a folder; others wait."""
    file = open_to_lock(folder)
    try:
        with contextlib.suppress(OSError):  # some network drives do not support locks on folders
            lock(file, wait=True)
        yield
    finally:
        release(file)


def move_aside(path, run):
    """Move a graph that another run exported, and everything converted from it, to a folder with that run's name.

    All files are copied before the first is removed, so that a graph never loses its JSON.
    """
    if not os.path.exists(path):
        return
    try:
        exported_by = read_metadata(metadata_path(path))["run"].get("run_folder")
    except InputError:
        exported_by = None
    if exported_by == run["run_folder"] is not None:
        return
    folder, stem = os.path.split(os.path.splitext(path)[0])
    name = os.path.basename(exported_by or "")
    if not is_file_name(name):
        name = time.strftime("%Y%m%d-%H%M%S", time.localtime(os.path.getmtime(path)))
    files = [file for file in sorted(os.listdir(folder)) if belongs_to(stem, os.path.join(folder, file))]
    aside = os.path.join(folder, name)
    if not is_same_file(path, os.path.join(aside, f"{stem}.pb")):  # else an interrupted process copied it already
        aside = free_name(aside)
        with atomic_folder(aside) as partial:
            for file in files:
                source, target = os.path.join(folder, file), os.path.join(partial, file)
                if os.path.isdir(source) and not os.path.islink(source):
                    shutil.copytree(source, target, symlinks=True)
                else:
                    shutil.copy2(source, target, follow_symlinks=False)
    for file in set(files) - {"labels.txt", f"{stem}.json", f"{stem}.pb"}:  # these are replaced
        moved = os.path.join(folder, file)
        remove = shutil.rmtree if os.path.isdir(moved) and not os.path.islink(moved) else os.remove
        remove(moved)
    say(f"moved the previous graph, exported by another run, to {aside}")


def belongs_to(stem, path):
    """Whether a path is a file of the graph, or was converted from it."""
    name = os.path.basename(path)
    if os.path.isdir(path):
        return name == f"{stem}-savedmodel"
    is_file = os.path.isfile(path) or os.path.islink(path)  # a pipe could not be copied
    return is_file and (name == "labels.txt" or name.startswith((f"{stem}.", f"{stem}-")))


def is_same_file(path, other):
    return os.path.exists(other) and filecmp.cmp(path, other, shallow=False)


def free_name(path):
    """The path if it is free, else the first free one with -2, -3 and so on appended."""
    names = itertools.chain([path], (f"{path}-{number}" for number in itertools.count(2)))
    return next(name for name in names if not os.path.lexists(name))


def export_checkpoint(last: bool = False, run: Optional[str] = None, **overrides):
    """Freeze a checkpoint of a run in checkpoint_dir, with the settings it was trained with.

    Args:
        last: the latest checkpoint; if False, the best in validation.
        run: its name, as `python run.py runs` lists it; None: the latest run.
        overrides: model_arch, checkpoint_dir and weight_dir, where they differ from src/config.py.

    Returns:
        (path of the .pb file, origin of its weights as freeze takes it).

    Raises:
        InputError: no checkpoint, or one that training did not write; unwritable weight_dir.
    """
    now = settings_for(("model_arch", "checkpoint_dir", "weight_dir"), overrides)
    checkpoints = find_run(now.checkpoint_dir, run)
    prefix = (None if last else checkpoints.best()) or checkpoints.latest()
    config, weights, origin = checkpoints.load(prefix, weight_dir=now.weight_dir)
    return freeze(config, weights, origin), origin
