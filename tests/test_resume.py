"""Interrupted runs go on as if they had never been interrupted; no run takes anything from another."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import run
from convert.export import export_checkpoint
from src import config
from src.errors import InputError
from src.settings import settings
from src.signals import HeldSignals
from src.tf1 import tf
from tests.conftest import FIXTURES, REPOSITORY, load_graph, make_folders, python, run_file, working_in
from tests.helpers import chaos
from trainer import Trainer
from utils.checkpoints.manager import assign, find_checkpoint, read_weights
from utils.checkpoints.run_index import find_run
from utils.files import remove_leftovers
from utils.training import monitor
from utils.training.graph import Requests

COUNTS = {"cat": 25, "dog": 25}


def few(path):
    """Settings for a run of 5 steps an epoch, with augmentation, whose checkpoints are often in the middle of one."""
    return vars(settings(train_path=path, img_size=16, batch_size=8, augment="crop+flip", num_epoch=4, cache_mb=0))


@pytest.fixture
def few_images(folders, in_tmp_path):
    return few(folders(COUNTS))


@pytest.fixture(scope="module")
def done_once(tmp_path_factory):
    """A folder in which one epoch of such a run was done."""
    folder = tmp_path_factory.mktemp("done_once")
    with working_in(folder):
        Trainer(**few(make_folders("train", COUNTS))).optimize(1)
    return folder


@pytest.fixture
def one_epoch(done_once, tmp_path, monkeypatch):
    """Work in a copy of it, in which the images are in `train`."""
    shutil.copytree(str(done_once), str(tmp_path / "work"))
    monkeypatch.chdir(str(tmp_path / "work"))


def interrupt_at(monkeypatch, step, error=KeyboardInterrupt):
    """Let the training end with an error when it has done a step."""
    train_step = Trainer._train_step

    def interrupted(trainer, batch, monitor):
        requests = train_step(trainer, batch, monitor)
        if trainer.step == step:
            raise error
        return requests

    monkeypatch.setattr(Trainer, "_train_step", interrupted)


def killed_before_it_saves(trainer, its_monitor):
    """In place of Trainer.save."""
    its_monitor.flush()
    raise ZeroDivisionError


def straight_and_resumed(given, monkeypatch, steps, kills=0):
    """Train in the folder `straight`; and in `resumed`, with an interruption after each of these steps.

    After the last of them, it is killed so many times before the next checkpoint is written.
    """
    for name in ("straight", "resumed"):
        os.mkdir(name)
    os.chdir("straight")
    trainer = Trainer(**given)
    trainer.optimize()
    trainer.export()
    os.chdir("../resumed")
    resume = False
    for step in steps:
        with monkeypatch.context() as patch:
            interrupt_at(patch, step)
            with pytest.raises(KeyboardInterrupt):
                Trainer(resume, **({} if resume else given)).optimize()
        resume = True
    for _ in range(kills):
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "save", killed_before_it_saves)
            with pytest.raises(ZeroDivisionError):
                Trainer(resume=True).optimize()
    trainer = Trainer(resume=True)
    trainer.optimize()
    trainer.export()
    os.chdir("..")
    return chaos.differences("straight", "resumed", given["model_arch"])


def test_an_interrupted_run_ends_as_one_that_never_was(few_images, monkeypatch):
    """Before, at and after the end of an epoch, twice in one, and after the last step of all."""
    assert straight_and_resumed(few_images, monkeypatch, [3, 5, 7, 8, 11, 20]) == []


def test_an_interrupted_mobilenetv2_ends_as_one_that_never_was(few_images, shallow, monkeypatch):
    """make chaos does it with all blocks."""
    given = dict(few_images, model_arch="mobilenetv2", img_size=32, width=0.35, weight_decay=4e-5, num_epoch=2)
    for name in ("checkpoint_dir", "weight_dir", "tensorboard_dir"):
        del given[name]
    with pytest.raises(InputError, match="found no run with checkpoints in checkpoints/lenet5,"):
        Trainer(resume=True)
    monkeypatch.setitem(vars(config), "model_arch", "mobilenetv2")
    assert straight_and_resumed(given, monkeypatch, [3]) == []


def test_points_that_a_killed_process_wrote_before_its_checkpoint_are_not_doubled(few_images, monkeypatch):
    """Three times it validates, writes the points of the epoch, and is ended before it saves."""
    monkeypatch.setattr(monitor, "WINDOW", 5)  # so that there are points of the training curves at the same steps
    assert straight_and_resumed(dict(few_images, num_epoch=2), monkeypatch, [5], kills=3) == []


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


def test_a_checkpoint_is_written_whenever_so_many_minutes_have_passed(few_images, monkeypatch):
    trainer = Trainer(**dict(few_images, checkpoint_minutes=1e-9))
    saved, save = [], trainer.save

    def noting_save(monitor):
        save(monitor)
        saved.append(os.path.basename(trainer.last_checkpoint))

    monkeypatch.setattr(trainer, "save", noting_save)
    trainer.optimize(1)
    assert saved == [f"lenet5-{step}" for step in (1, 2, 3, 4, 5, 5)]
    assert find_run("checkpoints/lenet5").best() == trainer.last_checkpoint


def test_each_checkpoint_keeps_the_sums_of_its_own_step(few_images, monkeypatch):
    """The newest may be lost, and training then goes on from the one before."""
    interrupt_at(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        Trainer(**dict(few_images, checkpoint_minutes=1e-9)).optimize()
    checkpoints = find_run("checkpoints/lenet5")
    windows = [checkpoints.entry(prefix)["progress"]["window"]["steps"] for prefix in checkpoints.prefixes()]
    assert windows == [1, 2, 3, 4]


def test_num_epoch_is_the_total_and_early_stopping_goes_on_counting(few_images, monkeypatch):
    trainer = Trainer(**few_images)
    trainer.optimize(2)
    trainer = Trainer(resume=True, num_epoch=3)
    trainer.optimize()
    assert (trainer.epoch, len(trainer.history)) == (3, 3)
    risen = [dict(entry, val_loss=float(entry["epoch"])) for entry in trainer.history]
    trainer.checkpoints._write_record(risen)
    trainer = Trainer(resume=True, num_epoch=9, early_stopping=3)
    monkeypatch.setattr(trainer, "evaluate", lambda data: (5.0, 0.5))
    assert [entry["epoch"] for entry in trainer.optimize()] == [1, 2, 3, 4]
    trainer = Trainer(resume=True, num_epoch=6, early_stopping=None)
    trainer.optimize()
    assert trainer.epoch == 6


@pytest.mark.parametrize("given, expected", [
    ({"lr": 0.02}, "setting lr: found 0.02, expected 0.01: checkpoints/lenet5/"),
    ({"seed": 1}, "setting seed: found 1, expected 0"),
    ({"batch_size": 4}, "setting batch_size: found 4, expected 8"),
    ({"img_size": 20}, "setting img_size: found 20, expected 16"),
    ({"classes": ["dog", "cat"]}, "setting classes: found"),
    ({"validation_size": 0.5}, "setting validation_size: found 0.5"),
    ({"model_arch": "mobilenetv2"}, "setting checkpoint_dir: found no run with checkpoints in checkpoints/mobilenetv2"),
    ({"model_arch": "mobilenetv2", "checkpoint_dir": "checkpoints/lenet5"}, "setting model_arch: found 'mobilenetv2'"),
    ({"checkpoint_dir": "nowhere"}, "setting checkpoint_dir: found no run with checkpoints in nowhere"),
])  # fmt: skip
def test_what_no_longer_fits_is_refused(one_epoch, given, expected):
    with pytest.raises(InputError, match=expected):
        Trainer(resume=True, **given)


def test_a_data_set_may_move_but_not_change(one_epoch):
    os.rename("train", "moved")
    trainer = Trainer(resume=True, train_path="moved", num_epoch=2)
    trainer.optimize()
    assert trainer.epoch == 2
    os.remove("moved/cat/003.png")
    with pytest.raises(
        InputError, match="setting train_path or valid_path: found other images in moved, expected the same"
    ):
        Trainer(resume=True)


def test_folders_are_those_given_and_never_those_of_the_record(few_images):
    Trainer(**dict(few_images, weight_dir="../outside", tensorboard_dir="../outside")).optimize(1)
    trainer = Trainer(resume=True, num_epoch=2)
    assert trainer.config.weight_dir == "weights/lenet5" and trainer.run_folder.startswith("graphs/lenet5/")


@pytest.mark.parametrize("damage", ["data", "index", "truncated"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(few_images, capsys, damage):
    trainer = Trainer(**few_images)
    trainer.optimize(2)
    expected = trainer.session.run("fc1/kernel:0")
    prefix = trainer.last_checkpoint
    path = f"{prefix}.index" if damage == "index" else f"{prefix}.data-00000-of-00001"
    with open(path, "r+b") as file:
        if damage == "truncated":
            file.truncate(1000)
        else:
            file.seek(40)
            file.write(b"\xff\xff\xff\xff")
    trainer = Trainer(resume=True)
    assert (trainer.epoch, trainer.step) == (1, 5)
    assert f"note: checkpoint: found {prefix}" in capsys.readouterr().err
    trainer.optimize(1)
    assert np.array_equal(trainer.session.run("fc1/kernel:0"), expected)


def test_a_record_that_was_not_written_gives_way_to_the_one_before(few_images, monkeypatch):
    """Killed between the weights and their record, at a name that an earlier attempt used: nothing is mixed up."""
    trainer = Trainer(**few_images)
    trainer.optimize(1)
    monkeypatch.setattr(trainer.checkpoints, "_write_record", lambda history: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        trainer.optimize(1)
    trainer = Trainer(resume=True)
    assert trainer.step == 5
    trainer.optimize(1)
    assert trainer.step == 10


@pytest.mark.parametrize("runtime", ["1.14", "2.21"])
def test_a_run_of_either_runtime_is_resumed_on_this_one(in_tmp_path, runtime):
    """A fixture: a run interrupted in its second epoch, and the logits that its own runtime ended with."""
    folder = os.path.join(FIXTURES, f"tensorflow-{runtime}", "interrupted")
    shutil.copytree(folder, "work")
    os.chdir("work")
    trainer = Trainer(resume=True)
    assert (trainer.epoch, trainer.state.step_in_epoch) == (1, 1)
    trainer.optimize()
    answer = np.load("answer.npz")
    logits = trainer.session.run(trainer.model.getOutput(), {trainer.x: answer["images"]})
    np.testing.assert_allclose(logits, answer["logits"], atol=1e-4)
    assert [entry["loss"] for entry in trainer.history] == pytest.approx(answer["losses"].tolist(), abs=1e-5)


def test_nothing_to_resume(few_images):
    with pytest.raises(InputError, match="checkpoint_dir: found no run with checkpoints in checkpoints/lenet5,"):
        Trainer(resume=True)
    shutil.copytree(os.path.join(FIXTURES, "tensorflow-2.21", "checkpoints"), "checkpoints/lenet5")
    with pytest.raises(
        InputError, match="found no checkpoint to resume in checkpoints/lenet5 .checkpoint .*, expected one that this"
    ):
        Trainer(resume=True)


def test_a_new_run_takes_nothing_from_an_old_one(few_images, capsys):
    first = Trainer(**few_images)
    first.optimize(1)
    graph = load_graph(first.export())
    for path in ("lenet5.tflite", "lenet5-int8.tflite", "lenet5.onnx"):
        open(f"weights/lenet5/{path}", "w").close()
    os.makedirs("weights/lenet5/lenet5-savedmodel/1")
    before = read_weights("checkpoint", first.last_checkpoint)
    second = Trainer(**dict(few_images, seed=1))
    second.optimize(1)
    second.export()
    name = os.path.basename(first.run_folder)
    assert f"moved the previous graph, which is of another run, to weights/lenet5/{name}" in capsys.readouterr().out
    assert sorted(os.listdir("weights/lenet5")) == sorted([name, "labels.txt", "lenet5.json", "lenet5.pb"])
    assert sorted(os.listdir(f"weights/lenet5/{name}")) == [
        "labels.txt", "lenet5-int8.tflite", "lenet5-savedmodel", "lenet5.json", "lenet5.onnx", "lenet5.pb",
        "lenet5.tflite",
    ]  # fmt: skip
    assert load_graph(f"weights/lenet5/{name}/lenet5.pb") == graph
    after = read_weights("checkpoint", first.last_checkpoint)
    assert all(np.array_equal(before[variable], after[variable]) for variable in before)
    assert tf.train.latest_checkpoint("checkpoints/lenet5") == second.last_checkpoint
    assert find_checkpoint("x", "checkpoints/lenet5") == second.last_checkpoint

    assert run.main(["runs"]) == 0
    heading, one, two = capsys.readouterr().out.splitlines()
    assert heading.split()[:4] == ["run", "model", "images", "epochs"]
    assert one.split()[:2] == [name, "lenet5"] and one.endswith(f"  weights/lenet5/{name}/lenet5.pb")
    assert one.split()[3:6] == ["1", "of", "1"] and one.split()[6] == f"{first.history[0]['val_acc']:.4f}"
    assert two.endswith("  weights/lenet5/lenet5.pb")

    export_checkpoint(run=name)
    assert load_graph("weights/lenet5/lenet5.pb") == graph
    assert os.path.exists(f"weights/lenet5/{os.path.basename(second.run_folder)}/lenet5.pb")
    with pytest.raises(InputError, match=f"--run: found no run 2020 with checkpoints in .*, expected one of {name}, "):
        export_checkpoint(run="2020")


def test_as_many_old_runs_are_kept_as_is_said(few_images, capsys):
    trainers = [Trainer(**dict(few_images, keep_runs=keep)) for keep in (None, None, None, 1)]
    for trainer in trainers:
        trainer.optimize(1)
    names = [os.path.basename(trainer.run_folder) for trainer in trainers]
    assert sorted(set(os.listdir("checkpoints/lenet5")) - {"lock", "checkpoint"}) == names[2:]
    assert (
        f"deleted the checkpoints in checkpoints/lenet5/{names[0]}, because keep_runs is 1" in capsys.readouterr().out
    )
    assert sorted(os.listdir("graphs/lenet5")) == names


def test_a_second_training_into_the_same_folder_is_refused(few_images, monkeypatch):
    refused = []

    def begin_another(trainer, data):
        with pytest.raises(InputError) as caught:
            Trainer(**few_images).optimize(1)
        refused.append(str(caught.value))
        done = python("-c", "from trainer import Trainer; Trainer(resume=True).optimize()", cwd=os.getcwd())
        refused.append(done.stderr)
        return 1.0, 0.5

    trainer = Trainer(**few_images)
    trainer.optimize(1)
    monkeypatch.setattr(Trainer, "evaluate", begin_another)
    trainer.optimize(1)
    expected = f"checkpoint_dir: found checkpoints/lenet5, which another training is using (process {os.getpid()});"
    assert len(refused) == 2 and all(expected in text for text in refused)


def test_training_works_in_another_thread(few_images):
    results = []
    thread = threading.Thread(target=lambda: results.append(Trainer(**few_images).optimize(1)))
    thread.start()
    thread.join()
    assert len(results[0]) == 1


def test_the_first_signal_waits_and_the_second_does_not():
    with pytest.raises(KeyboardInterrupt), HeldSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
        signals.check()
        reached = False
    assert reached
    with pytest.raises(KeyboardInterrupt), HeldSignals():
        os.kill(os.getpid(), signal.SIGINT)
        reached = False
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
    assert not reached
    with pytest.raises(SystemExit) as ended, HeldSignals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # as it was before


def signal_after_step(monkeypatch, step, *signals):
    """Let signals come when session.run of that step has returned, before it is counted."""
    run_session, steps = tf.Session.run, []

    def run_and_signal(session, fetches, *arguments, **options):
        result = run_session(session, fetches, *arguments, **options)
        if isinstance(fetches, list) and len(fetches) == 4:
            steps.append(fetches)
            if len(steps) == step:
                for number in signals:
                    os.kill(os.getpid(), number)
        return result

    monkeypatch.setattr(tf.Session, "run", run_and_signal)


def test_a_signal_comes_between_two_steps(few_images, monkeypatch):
    """So that the checkpoint holds all of a step or nothing of it."""
    trainer = Trainer(**few_images)
    signal_after_step(monkeypatch, 3, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer.optimize()
    assert (trainer.step, trainer.state.step_in_epoch, trainer.state.running_sums["steps"]) == (3, 3, 3)
    assert trainer.last_checkpoint.endswith("lenet5-3")


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


def test_ctrl_c_names_the_command_that_goes_on(few_images, monkeypatch, capsys):
    given = ["--train_path", few_images["train_path"], "--img_size", "16", "--batch_size", "8", "--num_epoch", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(run.sys, "executable", "/nowhere/python")
        interrupt_at(patch, 7)
        assert run.main([*given, "--checkpoint_dir", "my checkpoints"]) == 130
    output = capsys.readouterr().out
    assert re.search(r"to go on:     python run.py --resume --run 2\S+ --checkpoint_dir 'my checkpoints'\n", output)
    assert run.main(["--resume", "--checkpoint_dir", "my checkpoints"]) == 0
    output = capsys.readouterr().out
    assert "lenet5-7: 1 of 2 epochs are done" in output and "epoch 2/2: " in output
    assert run.main(["--resume", "--checkpoint_dir", "my checkpoints"]) == 0  # there is nothing left but to export
    assert "2 of 2 epochs are done" in capsys.readouterr().out


def test_a_copied_folder_of_checkpoints_is_that_of_the_copy(in_tmp_path):
    """TensorFlow's list in it may hold absolute paths, which lead to the original."""
    for name in ("original", "copy"):
        shutil.copytree(os.path.join(FIXTURES, "tensorflow-2.21", "checkpoints"), name)
        with open(os.path.join(name, "checkpoint"), "w") as file:
            file.write(f'model_checkpoint_path: "{os.path.abspath("original")}/lenet5-3"\n')
    assert find_checkpoint("x", "copy") == "copy/lenet5-3"


def test_broken_weights_are_neither_saved_nor_exported(few_images):
    trainer = Trainer(**few_images)
    trainer.optimize(1)
    good = trainer.last_checkpoint
    (bias,) = [variable for variable in trainer.variables if variable.op.name == "fc3/bias"]
    assign(trainer.session, [bias], {"fc3/bias": [np.nan, 1.0]})
    with pytest.raises(FloatingPointError, match=f"found nan at step 6, learning rate 0.01, .* checkpoint: {good};"):
        trainer.optimize(1)
    with pytest.raises(FloatingPointError, match="found NaN or Inf at step 6"):
        trainer.save()
    assert find_run("checkpoints/lenet5").newest() == good
    with pytest.raises(InputError, match="weights: found some in conv1/kernel that are no finite numbers"):
        trainer.export(last=True)
    trainer.export()
    with open("weights/lenet5/lenet5.json") as file:
        assert json.load(file)["run"]["checkpoint"] == good


# run.py, which tells when it has been read: a busy machine may take long to do so.
BEGINS = f"""
import sys
sys.path.insert(0, {REPOSITORY!r})
import run
print("begins", flush=True)
run.end_process(run.main())
"""


@pytest.mark.parametrize("sent, delays", [(signal.SIGINT, (0.3, 1.2, 2.4)), (signal.SIGTERM, (0.7, 1.8))])
def test_a_signal_at_any_moment_of_the_start_ends_in_its_exit_code(few_images, sent, delays):
    """Also while TensorFlow is imported and the graph is built. Before run.py is read it is Python's own affair."""
    for delay in delays:
        process = subprocess.Popen(
            [sys.executable, "-c", BEGINS, "--train_path", few_images["train_path"], "--batch_size", "8", "--num_epoch",
             "100000"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        assert process.stdout.readline() == "begins\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(delay)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == ({signal.SIGINT: 130, signal.SIGTERM: 143}[sent], "")


def test_a_second_ctrl_c_does_no_harm(few_images):
    process = subprocess.Popen(
        [sys.executable, os.path.join(REPOSITORY, "run.py"), "--train_path", few_images["train_path"], "--batch_size",
         "8", "--num_epoch", "100000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not process.stdout.readline().startswith("epoch 3"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert run.main(["--resume", "--num_epoch", "4"]) == 0


def test_the_newest_run_is_the_one_that_was_saved_last_whatever_its_folder_is_called(few_images):
    first = Trainer(**few_images)
    first.optimize(1)
    os.rename(first.checkpoints.folder, "checkpoints/lenet5/zzz")
    second = Trainer(**dict(few_images, keep_runs=0))
    second.optimize(1)
    assert find_run("checkpoints/lenet5").folder == second.checkpoints.folder
    assert sorted(set(os.listdir("checkpoints/lenet5")) - {"lock", "checkpoint"}) == [
        os.path.basename(second.run_folder)
    ]


def test_only_checkpoints_are_deleted_where_logs_are_beside_them(few_images):
    given = dict(few_images, checkpoint_dir="all", weight_dir="all", tensorboard_dir="all", keep_runs=0)
    first, second = Trainer(**given), Trainer(**given)
    for trainer in (first, second):
        trainer.optimize(1)
        trainer.export()
    left = os.listdir(first.checkpoints.folder)
    assert "history.csv" in left and "curves.png" in left and "run.json" not in left
    assert not [name for name in left if name.startswith("lenet5-")]
    assert os.path.exists(f"{first.run_folder}-2/lenet5.pb")  # as the folder of that name has the log


def test_a_run_folder_may_have_the_name_of_a_conversion(few_images):
    first = Trainer(**few_images)
    first.optimize(1)
    os.rename(first.checkpoints.folder, "checkpoints/lenet5/lenet5-best")
    resumed = Trainer(resume=True, num_epoch=2)
    resumed.optimize()
    graph = load_graph(resumed.export())
    for seed in (1, 2):
        trainer = Trainer(**dict(few_images, seed=seed))
        trainer.optimize(1)
        trainer.export()
    assert load_graph("weights/lenet5/lenet5-best/lenet5.pb") == graph
    assert sorted(os.listdir("weights/lenet5/lenet5-best")) == ["labels.txt", "lenet5.json", "lenet5.pb"]


def test_exports_back_and_forth_make_no_copies(few_images):
    names = []
    for seed in (1, 2):
        trainer = Trainer(**dict(few_images, seed=seed))
        trainer.optimize(1)
        trainer.export()
        names.append(os.path.basename(trainer.run_folder))
    for name in names + names:
        export_checkpoint(run=name)
    assert sorted(os.listdir("weights/lenet5")) == sorted([*names, "labels.txt", "lenet5.json", "lenet5.pb"])


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


def test_a_trainer_that_another_has_overtaken_deletes_nothing(one_epoch):
    first, second = Trainer(resume=True, num_epoch=3), Trainer(resume=True, num_epoch=4)
    first.optimize()
    with pytest.raises(InputError, match="another training has gone on with checkpoints/lenet5/.*; resume it again"):
        second.optimize()
    assert find_run("checkpoints/lenet5").newest() == first.last_checkpoint


def test_a_run_that_was_killed_before_its_first_checkpoint_is_not_taken_for_the_one_before(few_images):
    first = Trainer(**few_images)
    first.optimize(1)
    code = (
        "import os, signal, trainer\n"
        "trainer.Trainer._train_step = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"trainer.Trainer(train_path={few_images['train_path']!r}, img_size=16, batch_size=8).optimize(1)\n"
    )
    assert python("-c", code, cwd=os.getcwd()).returncode == -signal.SIGKILL
    with pytest.raises(InputError, match="found no checkpoint in checkpoints/lenet5/.*, the newest run, .* --run 2"):
        Trainer(resume=True)
    resumed = Trainer(resume=os.path.basename(first.run_folder), num_epoch=2)
    resumed.optimize()
    assert resumed.epoch == 2
    assert Trainer(resume=True).epoch == 2  # now it is the newest


def test_a_run_that_learned_nothing_leaves_no_folder_of_checkpoints(few_images, monkeypatch):
    trainer = Trainer(**few_images)
    monkeypatch.setattr(trainer, "_train_step", lambda *_: os.kill(os.getpid(), signal.SIGINT) or Requests(0, 0))
    with pytest.raises(KeyboardInterrupt):
        trainer.optimize()
    assert os.listdir("checkpoints/lenet5") == ["lock"]


def test_a_second_signal_right_after_a_step_does_not_make_a_wrong_history(few_images, monkeypatch):
    """The step's loss is lost then, so the run is resumed from the checkpoint before it."""
    trainer = Trainer(**few_images)
    with monkeypatch.context() as patch:
        signal_after_step(patch, 7, signal.SIGINT, signal.SIGTERM)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            trainer.optimize()
    assert Trainer(resume=True).step == 5


WRONG_RECORDS = [
    lambda record, entry: record.update(history=[1]),
    lambda record, entry: record.update(history=[{}]),
    lambda record, entry: record.update(history="none"),
    lambda record, entry: record["history"][0].update(val_loss="x"),
    lambda record, entry: record["history"][0].update(val_acc=None),
    lambda record, entry: record["history"][0].pop("loss"),
    lambda record, entry: entry["progress"].update(position=-1),
    lambda record, entry: entry["progress"].update(position=10**40),
    lambda record, entry: entry["progress"].update(position=True),
    lambda record, entry: entry["progress"].update(epoch=-1),
    lambda record, entry: entry["progress"].update(epoch=7),
    lambda record, entry: entry["progress"].update(window=[1]),
    lambda record, entry: entry["progress"].update(window={"train_loss": "x"}),
    lambda record, entry: entry["progress"].update(sums=[0.0]),
    lambda record, entry: entry["progress"].pop("fingerprint"),
    lambda record, entry: entry.update(run_folder="a\0/b"),
    lambda record, entry: entry.update(progress=None),
]


@pytest.mark.parametrize("number", range(len(WRONG_RECORDS)))
def test_a_record_from_elsewhere_is_refused_in_one_line(one_epoch, number):
    with open(run_file("run.json")) as file:
        record = json.load(file)
    WRONG_RECORDS[number](record, record["lenet5-5"])
    with open(run_file("run.json"), "w") as file:
        json.dump(record, file)
    with pytest.raises(InputError) as refused:
        Trainer(resume=True, num_epoch=3)
    assert "checkpoint" in str(refused.value) and "\n" not in str(refused.value)
