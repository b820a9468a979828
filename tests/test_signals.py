"""Ctrl-C and SIGTERM: at any moment, once or twice, the run ends cleanly and is resumed from what it saved."""

import os
import re
import signal
import subprocess
import sys

import pytest

import run
from src.signals import HeldSignals
from src.tf1 import tf
from tests.conftest import REPOSITORY
from tests.helpers.short_runs import interrupt_at
from trainer import Trainer


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
        if isinstance(fetches, list) and len(fetches) == 5:  # those of TrainGraph.step
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


def test_ctrl_c_names_the_command_that_goes_on(few_images, monkeypatch, capsys):
    given = ["--train_path", few_images["train_path"], "--img_size", "16", "--batch_size", "8", "--num_epoch", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(run.sys, "executable", "/nowhere/python")
        interrupt_at(patch, 7)
        assert run.main([*given, "--checkpoint_dir", "my checkpoints"]) == 130
    output = capsys.readouterr().out
    assert re.search(r"to resume:    python run.py --resume --run 2\S+ --checkpoint_dir 'my checkpoints'\n", output)
    assert run.main(["--resume", "--checkpoint_dir", "my checkpoints"]) == 0
    output = capsys.readouterr().out
    assert "lenet5-7: 1 of 2 epochs done" in output and "epoch 2/2: " in output
    assert run.main(["--resume", "--checkpoint_dir", "my checkpoints"]) == 0  # there is nothing left but to export
    assert "2 of 2 epochs done" in capsys.readouterr().out


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
        assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[sent]
        assert errors in ("", "interrupted before it had started\n")


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


def test_a_second_signal_right_after_a_step_does_not_make_a_wrong_history(few_images, monkeypatch):
    """The step's loss is lost then, so the run is resumed from the checkpoint before it."""
    trainer = Trainer(**few_images)
    with monkeypatch.context() as patch:
        signal_after_step(patch, 7, signal.SIGINT, signal.SIGTERM)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            trainer.optimize()
    assert Trainer(resume=True).step == 5
