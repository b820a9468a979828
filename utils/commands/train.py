"""The command train: train a network, then export its best epoch."""

import os

from src.console import say
from src.errors import ExitCode
from src.settings import with_role
from src.system import quote
from trainer import Trainer
from utils.command_line import program
from utils.training.state import best_entry

BEFORE_THE_FIRST_STEP = "interrupted before the first step; no checkpoint was written"


def run(config, overrides, resume=False, run=None):
    """Train and export; returns the ExitCode.

    Args:
        overrides: settings that differ from src/config.py.
        resume: resume the latest run, or the one named `run`.
    """
    try:
        trainer = Trainer(resume=resume and (run or True), **overrides)
    except (KeyboardInterrupt, SystemExit):
        say(BEFORE_THE_FIRST_STEP)
        raise
    try:
        if trainer.epochs_left():
            trainer.optimize()
        graph = trainer.export()
    except (KeyboardInterrupt, SystemExit):
        if trainer.cluster.is_chief:
            print_interrupted(trainer, overrides)
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
    say(f"to see the curves: {program('tensorboard')} --logdir {quote(logdir)}")


def print_interrupted(trainer, overrides):
    """Print the last checkpoint of an interrupted training, and the commands to resume and to export it."""
    if not trainer.last_checkpoint:
        say(BEFORE_THE_FIRST_STEP)
        return

    def options(*names):
        return "".join(f" --{name} {quote(str(overrides[name]))}" for name in names if name in overrides)

    say(f"stopped; saved {trainer.last_checkpoint}")
    name = os.path.basename(trainer.checkpoints.folder)
    launch = f"launch --workers {trainer.cluster.world_size} " if trainer.cluster.launcher else ""
    resumed = options("model_arch", *with_role("output_dir"))
    exported = options("model_arch", "checkpoint_dir", "weight_dir")
    say(f"to resume:    {program('python')} run.py {launch}--resume --run {name}{resumed}")
    say(f"to export it: {program('python')} run.py export --last --run {name}{exported}")
