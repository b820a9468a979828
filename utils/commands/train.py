"""The command train: train, then export the best epoch."""

import os
import shlex

from src.console import say
from src.errors import ExitCode
from src.settings import with_role
from trainer import Trainer
from utils.checkpoints import best_entry
from utils.command_line import program


def run(config, given, resume=False, run=None):
    """Train and export; returns the ExitCode.

    Args:
        given: settings that differ from src/config.py.
        resume: resume the latest run, or that with the name `run`.
    """
    trainer = Trainer(resume=resume and (run or True), **given)
    try:
        if trainer.epochs_left():
            trainer.optimize()
        graph = trainer.export()
    except (KeyboardInterrupt, SystemExit):
        if trainer.cluster.is_chief:
            print_stopped(trainer, given)
        raise
    finally:
        trainer.close()
    if trainer.cluster.is_chief:
        print_outputs(trainer, graph)
    return ExitCode.BAD_INPUT if trainer.log_error else ExitCode.OK


def print_outputs(trainer, graph):
    best = best_entry(trainer.history)
    say(f"best epoch       {best['epoch']}, validation accuracy {best['val_acc']:.4f}")
    say(f"graph            {graph}")
    say(f"checkpoints      {trainer.checkpoints.folder}")
    say(f"TensorBoard logs {trainer.run_folder}")
    default = trainer.config.tensorboard_dir == f"graphs/{trainer.config.model_arch}"
    logdir = "graphs" if default else trainer.config.tensorboard_dir
    say(f"to see the curves: {program('tensorboard')} --logdir {shlex.quote(logdir)}")


def print_stopped(trainer, given):
    """What is left of a training that was stopped, how to go on with it, and how to export it."""
    if not trainer.last_checkpoint:
        say("stopped; nothing was learned yet, so nothing is saved")
        return

    def options(*names):
        return "".join(f" --{name} {shlex.quote(str(given[name]))}" for name in names if name in given)

    say(f"stopped; saved {trainer.last_checkpoint}")
    name = os.path.basename(trainer.checkpoints.folder)
    launch = f"launch --workers {trainer.cluster.size} " if trainer.cluster.launcher else ""
    resumed = options("model_arch", *with_role("output_dir"))
    exported = options("model_arch", "checkpoint_dir", "weight_dir")
    say(f"to go on:     {program('python')} run.py {launch}--resume --run {name}{resumed}")
    say(f"to export it: {program('python')} run.py export --last --run {name}{exported}")
