"""The command find_lr: find a learning rate with a short training that nothing is kept of but a figure."""

import itertools
import os
import tempfile

import numpy as np

from src.console import escape_control_characters, say
from src.errors import ExitCode, InputError
from src.settings import with_role
from src.signals import HeldSignals
from src.system import quote
from trainer import Trainer
from utils.command_line import program, to_argv
from utils.images.plots import check_output, draw_range_test
from utils.progress import progress
from utils.training.graph import Requests
from utils.training.range_test import RATES, choose_rate, has_diverged, smooth


def run(config, overrides, output="learning_rate.png"):
    """Print a learning rate and the command to train with it, and draw the losses; returns the ExitCode."""
    check_figure(output, config)
    try:
        # A Trainer makes its output folders; in a temporary one, no run is touched.
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(**{**overrides, **dict.fromkeys(with_role("output_dir"), folder)})
            try:
                losses = range_test(trainer)
            finally:
                trainer.close()
    except (KeyboardInterrupt, SystemExit):
        say(escape_control_characters(f"interrupted; {output} was not written"))
        raise
    choice = choose_rate(losses)
    draw_range_test(output, RATES[: len(losses)], losses, smooth(losses), choice, config.model_arch)
    return report(choice, losses, overrides, output)


def check_figure(output, config):
    """Raise InputError if the figure would replace a file that is not a PNG, or become an image of a data set."""
    check_output(output, [])
    above = os.path.realpath(os.path.join(os.path.dirname(output), os.pardir))
    for name in ("train_path", "valid_path", "test_path"):
        if getattr(config, name) and os.path.realpath(getattr(config, name)) == above:
            raise InputError("--output", f"{output}, a file among the images of {name}", "another folder")


def range_test(trainer):
    """The loss of each step with the learning rates RATES, up to divergence: float [n].

    Raises:
        FloatingPointError: the first loss is NaN or Inf.
    """
    losses, train = [], trainer.data.train
    batches = itertools.chain.from_iterable(train.epoch(trainer.train_batch_size) for _ in itertools.count())
    with HeldSignals() as signals, progress(len(RATES), "learning-rate range test", unit="steps") as bar:
        for rate, batch in zip(RATES, batches):
            loss = trainer.train_graph.step(trainer.session, batch, Requests(stop=0, save=0), rate)[0]
            signals.check()
            losses.append(loss)
            bar.set_postfix_str(f"learning rate {rate:.2g}, loss {loss:.3f}", refresh=False)
            bar.update()
            if has_diverged(losses):
                break
    finite = [loss for loss in losses if np.isfinite(loss)]
    if not finite:
        raise FloatingPointError(f"loss: found {loss} before the first update, expected a finite number")
    return np.array(finite)


def report(choice, losses, overrides, output):
    """Print what was found; returns the ExitCode."""
    smoothed = smooth(losses)
    end = "" if len(losses) == len(RATES) else f"; diverged at {RATES[len(losses) - 1]:.2g}"
    say(f"smoothed loss {smoothed[0]:.3f} at first, {smoothed.min():.3f} at the learning rate {choice.lowest:.2g}{end}")
    say(escape_control_characters(f"figure        {output}"))
    if choice.rate is None:
        noise = f"the loss of a step varies by {choice.noise:.2g}"
        say(f"learning rate none found: the smoothed loss fell by only {choice.fall:.2g}, and {noise}")
        return ExitCode.PROBLEMS_FOUND
    middle = f"in the middle between the steepest fall, at {choice.steepest:.2g}, and the lowest loss"
    say(f"learning rate {choice.rate:g}, {middle}")
    words = to_argv(dict(overrides, lr=choice.rate))
    say(f"to train with it: {program('python')} run.py {' '.join(map(quote, words))}")
    return ExitCode.OK
