"""Runs of 5 steps an epoch, and an interruption after any of these."""

from src.settings import settings
from trainer import Trainer

COUNTS = {"cat": 25, "dog": 25}


def few(path):
    """Settings for a run of 5 steps an epoch, with augmentation, whose checkpoints are often in the middle of one."""
    return vars(settings(train_path=path, img_size=16, batch_size=8, augment="crop+flip", num_epoch=4, cache_mb=0))


def interrupt_at(monkeypatch, step, error=KeyboardInterrupt):
    """Let the training end with an error when it has done a step."""
    train_step = Trainer._train_step

    def interrupted(trainer, batch, monitor):
        requests = train_step(trainer, batch, monitor)
        if trainer.step == step:
            raise error
        return requests

    monkeypatch.setattr(Trainer, "_train_step", interrupted)
