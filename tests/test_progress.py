"""Progress of long work: lines where there is no terminal; what optimize says when it is interrupted at a prompt."""

import sys

import pytest

from utils import progress
from utils.progress import ProgressLines


@pytest.fixture
def clock(monkeypatch):
    """A list whose last number is the time."""
    times = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: times[-1])
    return times


def test_without_a_terminal_a_line_comes_every_half_minute(clock, capsys):
    with progress.progress(50000, "epoch 2/3", initial=2000) as bar:
        for second in range(1, 101):
            clock.append(1000.0 + second)
            bar.set_postfix_str("loss 0.512 acc 0.900", refresh=False)
            bar.update(200)
    # After 30 s 6,000 of 48,000 are done, at 200 a second: 42,000 are left, 210 s.
    assert capsys.readouterr().err.splitlines() == [
        "epoch 2/3: 16 % of 50000 images, loss 0.512 acc 0.900, 200 images/s, 0:03:30 left",
        "epoch 2/3: 28 % of 50000 images, loss 0.512 acc 0.900, 200 images/s, 0:03:00 left",
        "epoch 2/3: 40 % of 50000 images, loss 0.512 acc 0.900, 200 images/s, 0:02:30 left",
    ]


def test_a_download_of_unknown_size(clock, capsys):
    bar = ProgressLines(0, "download", 0, "B")
    clock.append(1060.0)
    bar.update(120 * 10**6)
    assert capsys.readouterr().err == "download: 100 % of 120M B, 2.00M B/s, 0:00:00 left\n"


def test_short_work_prints_nothing(capsys):
    with progress.progress(3) as bar:
        bar.update(3)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("at_prompt", [True, False])
def test_an_interruption_at_a_prompt_says_what_is_saved_and_how_to_go_on(trainer, monkeypatch, capsys, at_prompt):
    if at_prompt:
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    step, calls = trainer.train_graph.step, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(trainer.train_graph, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.optimize(2)
    said = (
        f"stopped; saved {trainer.last_checkpoint}; optimize() continues from here, in another session Trainer(resume"
    )
    assert (said in capsys.readouterr().out) == at_prompt
    assert trainer.last_checkpoint.endswith("lenet5-2")
    trainer.optimize()  # with no number, for the epochs that remained
    assert trainer.step == 8  # two epochs of four steps
