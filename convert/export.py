"""Exporting a network: to where evaluate, predict and the converters take it from; earlier exports are kept."""

import contextlib
import fcntl
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
from utils.files import atomic_folder, make_writable, remove_leftovers, write_atomically
from utils.inference.exported import exported_files, graph_path, make_metadata, metadata_path, read_metadata
from utils.records import is_file_name
from utils.runs import find_run


def freeze(config, weights: Dict[str, np.ndarray], origin: dict) -> str:
    """Write <model_arch>.pb, labels.txt and <model_arch>.json to config.weight_dir.

    A graph of another run that is there is first moved to a folder named by that run. Three files cannot take their
    places in the same moment, so the JSON has the graph's checksum: readers refuse two that do not belong together.

    Args:
        config: the settings of the run that learned the weights.
        weights: {variable name: array}, for every variable of the model; others are passed over.
        origin: of the weights, as make_metadata takes it.

    Returns:
        The path of the .pb file.

    Raises:
        InputError: the weights are not those of the model that config describes; unwritable folder.
    """
    make_writable("weight_dir", config.weight_dir)
    graph_def = frozen_graph(config, weights)
    path, metadata = graph_path(config), make_metadata(config, origin)
    labels = os.path.join(config.weight_dir, "labels.txt")
    contents = {labels: "".join(f"{name}\n" for name in config.classes)}
    contents.update(exported_files(path, graph_def, metadata))
    with locked_exports(config.weight_dir):
        remove_leftovers(config.weight_dir)
        write_atomically(contents, make_way=lambda: move_aside(path, metadata["run"]))
    return path


@contextlib.contextmanager
def locked_exports(folder):
    """Let one process at a time write graphs to a folder; others wait."""
    file = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network drives cannot lock folders
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def move_aside(path, run):
    """Move a graph that another run exported, and all that was made of it, to a folder with that run's name.

    The files are copied there as a whole before any is taken away, so that a graph never loses its JSON.
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
    if not is_same_file(path, os.path.join(aside, f"{stem}.pb")):  # a copy from before an interruption
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
    say(f"moved the previous graph, which is of another run, to {aside}")


def belongs_to(stem, path):
    """Whether a file is that of a graph, or was made of it; or the folder with its SavedModel."""
    name = os.path.basename(path)
    if os.path.isdir(path):
        return name == f"{stem}-savedmodel"
    is_file = os.path.isfile(path) or os.path.islink(path)  # no pipe, which has no end
    return is_file and (name == "labels.txt" or name.startswith((f"{stem}.", f"{stem}-")))


def is_same_file(path, other):
    return os.path.exists(other) and filecmp.cmp(path, other, shallow=False)


def free_name(path):
    """The path, or with -2, -3 and so on behind it if that is taken."""
    names = itertools.chain([path], (f"{path}-{number}" for number in itertools.count(2)))
    return next(name for name in names if not os.path.lexists(name))


def export_checkpoint(last: bool = False, run: Optional[str] = None, **given):
    """Freeze a checkpoint of a run in checkpoint_dir, with the settings it was trained with.

    Args:
        last: the newest; if False, the one that was best in validation.
        run: its name, as `python run.py runs` lists it; the newest run if not given.
        given: model_arch, checkpoint_dir and weight_dir, where they differ from src/config.py.

    Returns:
        (path of the .pb file, origin of its weights as freeze takes it).

    Raises:
        InputError: no checkpoint there, or one that this program did not write; unwritable weight_dir.
    """
    now = settings_for(("model_arch", "checkpoint_dir", "weight_dir"), given)
    checkpoints = find_run(now.checkpoint_dir, run)
    prefix = (None if last else checkpoints.best()) or checkpoints.newest()
    config, weights, origin = checkpoints.load(prefix, weight_dir=now.weight_dir)
    return freeze(config, weights, origin), origin
