"""SIGKILL at any moment, also while files are written: what is there stays, and the run is resumed exactly."""

import json
import os
import re
import shutil
import signal

import pytest

from convert.export import export_checkpoint
from src.errors import InputError
from tests.conftest import load_graph, make_folders, python, working_in
from tests.helpers import chaos
from tests.helpers.short_runs import COUNTS, few
from trainer import Trainer
from utils.checkpoints.run_index import find_run
from utils.files import remove_leftovers


def test_a_comparison_of_runs_finds_a_difference(few_images):
    for name, seed in (("one", 0), ("two", 1)):
        os.mkdir(name)
        os.chdir(name)
        trainer = Trainer(**dict(few_images, seed=seed))
        trainer.optimize(1)
        trainer.export()
        os.chdir("..")
    found = chaos.differences("one", "two", "lenet5")
    assert {"graph", "fc3/bias", "fc3/bias/Adam_1", "history", "curve train_loss", "curve val_loss"} <= set(found)


def test_three_sigkills_change_nothing(capsys):
    """With this seed at any moment, while a checkpoint is written, and while the graph is exported; for the last there
    is but one chance. Sixty, of both networks: make chaos."""
    assert chaos.prove("lenet5", kills=3, seed=0, epochs=6, exports=1) == []
    first, second, third = re.findall("kill . of 3, (.*), in epoch .*: (hit|missed)", capsys.readouterr().out)
    assert (first, second, third[0]) == (("any moment", "hit"), ("checkpoint", "hit"), "export")


def test_what_killed_processes_left_is_removed_by_the_next_run(few_images):
    def left():
        """The name of what a process was writing that is no more."""
        return python("-c", "from utils.files import partial_name; print(partial_name(''))", cwd=".").stdout.strip()

    os.makedirs(f"weights/lenet5/{left()}/lenet5-savedmodel")
    for name in (left(), "lenet5.pb.partial-1999999"):  # the latter is somebody's own
        open(f"weights/lenet5/{name}", "w").close()
    trainer = Trainer(**few_images)
    trainer.optimize(1)
    assert os.listdir("weights/lenet5") == ["lenet5.pb.partial-1999999"]
    folder = find_run("checkpoints/lenet5").folder
    copy = "my-5.data-00000-of-00001"
    for name in ("lenet5-9.index.tempstate123", "lenet5-9.data-00000-of-00001", left(), "notes.txt", copy):
        open(os.path.join(folder, name), "w").close()
    open(os.path.join(trainer.run_folder, left()), "w").close()
    Trainer(resume=True, num_epoch=2).optimize()
    stems = {name.split(".")[0] for name in os.listdir(folder)}
    assert stems == {"lenet5-5", "lenet5-10", "run", "notes", "my-5"}
    assert not [name for name in os.listdir(trainer.run_folder) if "partial" in name]
    remove_leftovers("nowhere")


KILLS_AT = ["copytree", "copy2", "rename", "remove", "replace"]
# In the folder of each of these names, a process that dies when it calls the function of that name. TensorFlow is
# imported once, which takes seconds; it has computed nothing yet when the process is forked.
EXPORTS_AND_DIES = f"""
import os, shutil, signal
from convert.export import export_checkpoint
def die(*arguments, **options): os.kill(os.getpid(), signal.SIGKILL)
for name in {KILLS_AT}:
    child = os.fork()
    if not child:
        os.chdir(name)
        for module in (os, shutil):
            hasattr(module, name) and setattr(module, name, die)
        export_checkpoint()
        os._exit(0)
    print("status", os.waitpid(child, 0)[1], flush=True)  # or the next child would have the line in its buffer, too
"""


@pytest.fixture(scope="module")
def killed_exports(tmp_path_factory):
    """A folder with these folders in it; and of the first of two runs, which had exported before, folder and graph."""
    folder = tmp_path_factory.mktemp("killed_exports")
    (folder / KILLS_AT[0]).mkdir()
    with working_in(folder / KILLS_AT[0]):
        given = few(make_folders("train", COUNTS))
        first, second = Trainer(**given), Trainer(**dict(given, seed=1))
        first.optimize(1)
        graph = load_graph(first.export())
        os.makedirs("weights/lenet5/lenet5-savedmodel/1")
        open("weights/lenet5/lenet5.onnx", "w").close()
        second.optimize(1)
    for name in KILLS_AT[1:]:
        shutil.copytree(str(folder / KILLS_AT[0]), str(folder / name))
    done = python("-c", EXPORTS_AND_DIES, cwd=folder)
    assert done.stdout.count(f"status {int(signal.SIGKILL)}\n") == len(KILLS_AT), done.stderr
    return folder, first.run_folder, graph


@pytest.mark.parametrize("kills_at", KILLS_AT)
def test_a_kill_while_a_graph_is_moved_aside_loses_nothing(killed_exports, monkeypatch, kills_at):
    folder, run_folder, graph = killed_exports
    monkeypatch.chdir(str(folder / kills_at))
    name = os.path.basename(run_folder)
    export_checkpoint()
    assert sorted(os.listdir("weights/lenet5")) == sorted([name, "labels.txt", "lenet5.json", "lenet5.pb"])
    assert load_graph(f"weights/lenet5/{name}/lenet5.pb") == graph
    with open(f"weights/lenet5/{name}/lenet5.json") as file:
        assert json.load(file)["run"]["run_folder"] == run_folder
    assert os.path.exists(f"weights/lenet5/{name}/lenet5.onnx")


def test_a_run_that_was_killed_before_its_first_checkpoint_is_not_taken_for_the_one_before(few_images):
    first = Trainer(**few_images)
    first.optimize(1)
    code = (
        "import os, signal, trainer\n"
        "trainer.Trainer._train_step = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"trainer.Trainer(train_path={few_images['train_path']!r}, img_size=16, batch_size=8).optimize(1)\n"
    )
    assert python("-c", code, cwd=os.getcwd()).returncode == -signal.SIGKILL
    with pytest.raises(InputError, match="found no checkpoint in checkpoints/lenet5/.*, the latest run; --run 2"):
        Trainer(resume=True)
    resumed = Trainer(resume=os.path.basename(first.run_folder), num_epoch=2)
    resumed.optimize()
    assert resumed.epoch == 2
    assert Trainer(resume=True).epoch == 2  # now it is the newest
