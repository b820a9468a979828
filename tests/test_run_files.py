"""Files of a run that were exchanged, deleted, damaged or replaced by links and pipes, while it trains and after."""

import json
import os
import shutil
import socket
import threading

import numpy as np
import pytest

import run
from convert.export import export_checkpoint
from src.errors import InputError
from src.settings import settings
from tests.conftest import make_folders, run_file, working_in
from trainer import Trainer
from utils.checkpoints.manager import CheckpointManager, find_checkpoint, read_weights
from utils.checkpoints.pretrained import inherit_settings, load_pretrained
from utils.checkpoints.resume import load_resume_point
from utils.commands.runs import ELSEWHERE

FOLDER = "checkpoints/lenet5"


# Real checkpoints


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory):
    """A folder in which two epochs of a run were done, of 5 steps each."""
    folder = tmp_path_factory.mktemp("two_epochs")
    with working_in(folder):
        path = make_folders("train", {"cat": 25, "dog": 25})
        Trainer(**vars(settings(train_path=path, img_size=16, batch_size=8))).optimize(2)
    return folder


@pytest.fixture
def work(two_epochs, tmp_path, monkeypatch):
    """Work in a copy of it; the folder of the run."""
    shutil.copytree(str(two_epochs), str(tmp_path / "work"))
    monkeypatch.chdir(str(tmp_path / "work"))
    return os.path.dirname(run_file("run.json"))


ENDS = ("index", "data-00000-of-00001")


def copy_checkpoint(folder, source, target):
    for end in ENDS:
        shutil.copy(os.path.join(folder, f"{source}.{end}"), os.path.join(folder, f"{target}.{end}"))


def test_a_checkpoint_under_the_name_of_another_is_skipped_for_the_one_before(work, capsys):
    copy_checkpoint(work, "lenet5-5", "lenet5-10")
    _, _, prefix = load_resume_point({})
    assert prefix == f"{work}/lenet5-5"
    expected = f"note: checkpoint: found {work}/lenet5-10 with global_step 5, expected 10, as in run.json; its"
    assert capsys.readouterr().err.startswith(expected)


def exchange(folder):
    copy_checkpoint(folder, "lenet5-5", "lenet5-1")
    copy_checkpoint(folder, "lenet5-10", "lenet5-5")
    copy_checkpoint(folder, "lenet5-1", "lenet5-10")


def test_checkpoints_with_exchanged_names_are_refused_wherever_they_are_read(work, capsys):
    trainer = Trainer(resume=True)
    exchange(work)
    with pytest.raises(InputError, match="found no checkpoint to resume"):
        load_resume_point({})
    with pytest.raises(InputError, match="with global_step .*, expected .*, as in run.json"):
        trainer.export()
    given = vars(settings(model_arch="lenet5", img_size=16, total_class=2, classes=["cat", "dog"], pretrained=FOLDER))
    with pytest.raises(InputError, match=f"^setting pretrained: found {work}/lenet5-10 with global_step 5, exp"):
        load_pretrained(trainer.session, trainer.variables, inherit_settings(given))
    capsys.readouterr()
    for words in (["export"], ["export", "--last"], ["evaluate", "--checkpoint", f"{work}/lenet5-10"]):
        assert run.main(words) == 2
        errors = capsys.readouterr().err
        assert errors.startswith(f"error: checkpoint: found {work}/lenet5-") and errors.count("\n") == 1
        assert "with global_step" in errors
    assert not os.path.exists("weights/lenet5/lenet5.pb")


def test_a_record_or_a_checkpoint_that_has_no_step_is_read(work):
    """Those of an earlier version."""
    with open(run_file("run.json")) as file:
        record = json.load(file)
    del record["lenet5-10"]["global_step"]
    with open(run_file("run.json"), "w") as file:
        json.dump(record, file)
    assert "conv1/kernel" in CheckpointManager(work).read(f"{work}/lenet5-10")


# Files that go while a training runs


def delete_run(folder):
    shutil.rmtree(folder)


def delete_all(folder):
    shutil.rmtree("checkpoints")


def delete_record(folder):
    os.remove(f"{folder}/run.json")


def delete_data(folder):
    os.remove(f"{folder}/lenet5-15.data-00000-of-00001")


def delete_index(folder):
    os.remove(f"{folder}/lenet5-15.index")


def train_one_more(before_last_epoch):
    """Resume for two epochs; between them, call before_last_epoch(folder)."""
    trainer = Trainer(resume=True, num_epoch=4)
    evaluate = trainer.evaluate

    def evaluating(data):
        if trainer.step == 20:
            before_last_epoch(trainer.checkpoints.folder)
        return evaluate(data)

    trainer.evaluate = evaluating
    trainer.optimize()
    return trainer


@pytest.mark.parametrize("delete", [delete_run, delete_all, delete_record, delete_data, delete_index])
def test_what_is_in_memory_is_saved_when_files_were_deleted_during_training(work, delete):
    trainer = train_one_more(delete)
    resumed = Trainer(resume=True, num_epoch=5)
    assert (resumed.epoch, resumed.step, len(resumed.history)) == (4, 20, 4)
    weights = read_weights("checkpoint", FOLDER)
    assert np.array_equal(weights["fc3/kernel"], trainer.session.run("fc3/kernel:0"))
    names = [os.path.basename(prefix) for prefix in CheckpointManager(work).prefixes()]
    expected = {delete_run: [20], delete_all: [20], delete_record: [5, 10, 15, 20]}.get(delete, [5, 10, 20])
    assert names == [f"lenet5-{step}" for step in expected]
    assert export_checkpoint()[0] == trainer.export()


def become_a_file(path):
    shutil.rmtree(path)
    open(path, "w").close()


def become_a_link(path):
    os.rename(path, "elsewhere")
    os.symlink(os.path.abspath("elsewhere"), path)
    open("elsewhere/lenet5-1.index", "w").close()


@pytest.mark.parametrize("replace, found", [
    (become_a_file, "which can no longer be written to"),
    (lambda path: become_a_file(FOLDER), "which can no longer be written to"),
    (become_a_link, "a symbolic link, expected a folder or none"),
])  # fmt: skip
def test_a_folder_that_became_something_else_during_training_is_one_line(work, replace, found):
    with pytest.raises(InputError, match=f"^setting checkpoint_dir: found {work}, {found}"):
        train_one_more(replace)
    if replace is become_a_link:
        assert os.path.exists("elsewhere/lenet5-1.index") and os.path.exists("elsewhere/lenet5-5.index")


def test_a_run_that_is_a_link_is_not_resumed_but_can_be_exported(work):
    become_a_link(work)
    before = sorted(os.listdir("elsewhere"))
    with pytest.raises(InputError, match=f"^setting checkpoint_dir: found {work}, a symbolic link, expected"):
        Trainer(resume=True).optimize()
    assert sorted(os.listdir("elsewhere")) == before
    assert export_checkpoint()[0] == "weights/lenet5/lenet5.pb"


def test_a_log_that_is_a_link_is_not_written_to(work):
    folder = work.replace("checkpoints", "graphs")
    os.rename(folder, "log")
    os.symlink(os.path.abspath("log"), folder)
    before = sorted(os.listdir("log"))
    with pytest.raises(InputError, match=f"^setting tensorboard_dir: found {folder}, a symbolic link, expected"):
        Trainer(resume=True).optimize()
    assert sorted(os.listdir("log")) == before


# What is no file where a checkpoint should be


@pytest.fixture
def never_waited_for():
    """Make a pipe; whoever waits for what comes out of it gets its end."""
    done = threading.Event()
    threads = []

    def make(path):
        os.mkfifo(path)
        threads.append(threading.Thread(target=end_whoever_reads, args=(path,)))
        threads[-1].start()

    def end_whoever_reads(path):
        while not done.wait(0.05):
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:  # nobody reads
                continue

    yield make
    done.set()
    for thread in threads:
        thread.join()


def make_socket(path):
    with working_in(os.path.dirname(path)):  # the path of a socket is short
        socket.socket(socket.AF_UNIX).bind(os.path.basename(path))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "device"])
def test_a_pipe_or_the_like_for_a_file_of_a_checkpoint_is_skipped_for_the_one_before(
    work, never_waited_for, capsys, end, kind
):
    path = f"{work}/lenet5-10.{end}"
    os.remove(path)
    make = {"pipe": never_waited_for, "folder": os.mkdir, "socket": make_socket}
    make.get(kind, lambda path: os.symlink("/dev/zero", path))(path)
    _, _, prefix = load_resume_point({})
    assert prefix == f"{work}/lenet5-5"
    expected = f"found {work}/lenet5-10, expected a readable checkpoint (lenet5-10.{end} is a folder, a de"
    assert capsys.readouterr().err.startswith(f"note: checkpoint: {expected}")
    with pytest.raises(InputError) as refused:
        export_checkpoint(last=True)
    assert str(refused.value).startswith(f"checkpoint: {expected}")


def test_a_folder_of_a_checkpoint_s_name_is_not_taken_for_it(work, never_waited_for):
    os.mkdir(f"{work}/lenet5-10")
    never_waited_for(f"{work}/lenet5-10/checkpoint")
    assert load_resume_point({})[2] == f"{work}/lenet5-10"


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_tensorflow_s_list_of_checkpoints_that_is_no_file(work, never_waited_for, kind):
    """It is read for --pretrained alone, and written by training, which finds it before it learns anything."""
    path = f"{FOLDER}/checkpoint"
    os.remove(path)
    (never_waited_for if kind == "pipe" else os.mkdir)(path)
    with pytest.raises(InputError, match=f"^x: found {FOLDER}, .*checkpoint is a folder, a device or a pipe"):
        find_checkpoint("x", FOLDER)
    trainer = Trainer(resume=True)
    with pytest.raises(InputError, match=f"^file {path}: found a folder, a device or a pipe, expected a file or none"):
        trainer.optimize()
    assert trainer.step == 10


# Records from elsewhere


@pytest.mark.parametrize("value", ["\ud800", float("nan"), float("-inf"), "a\0b", [[[[]]]]], ids=repr)
@pytest.mark.parametrize("name", ["train_path", "lr", "run_folder", "val_acc", "progress"])
def test_a_record_with_what_no_training_writes_is_one_line_and_never_a_traceback(work, capsys, name, value):
    with open(run_file("run.json")) as file:
        record = json.load(file)
    value = nested(200) if value == [[[[]]]] else value
    for entry in (record["lenet5-5"], record["lenet5-10"]):
        (entry["settings"] if name in entry["settings"] else entry)[name] = value
    with open(run_file("run.json"), "w") as file:
        json.dump(record, file)
    assert run.main(["runs"]) == 0
    assert capsys.readouterr().out == f"no runs in {FOLDER}, checkpoints/mobilenetv2; {ELSEWHERE}\n"
    for words in (["export"], ["--resume"], ["evaluate", "--checkpoint", f"{work}/lenet5-10"]):
        assert run.main(words) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("error: ") and errors.count("\n") == 1
    assert os.path.exists(f"{work}/lenet5-10.index")


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def test_a_corrupt_entry_costs_no_other_checkpoint(work):
    with open(run_file("run.json")) as file:
        record = json.load(file)
    record["lenet5-5"]["val_loss"] = float("nan")
    record["\ud800"] = record["lenet5-5"]
    with open(run_file("run.json"), "w") as file:
        json.dump(record, file)
    Trainer(resume=True, num_epoch=3).optimize()
    assert os.path.exists(f"{work}/lenet5-5.index") and os.path.exists(f"{work}/lenet5-15.index")
