"""The command launch: train in several processes of this machine."""

import os

from utils.command_line import to_argv
from utils.launch import launch

RUN_PY = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "run.py")


def run(config, given, workers, max_restarts=3, resume=False, run=None):
    """Run run.py so many times; returns the exit code."""
    options = given if run is None else dict(given, run=run)
    command = [RUN_PY] + ["--resume"] * resume + to_argv(options)
    return launch(command, config, workers, max_restarts)
