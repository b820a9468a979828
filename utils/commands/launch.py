"""The command launch: train in several processes on this machine."""

import os

from utils.cluster.launch import launch
from utils.command_line import to_argv

RUN_PY = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "run.py")


def run(config, overrides, workers, max_restarts=3, resume=False, run=None):
    """Run run.py in each of the processes; returns the exit code."""
    options = overrides if run is None else dict(overrides, run=run)
    command = [RUN_PY] + ["--resume"] * resume + to_argv(options)
    return launch(command, config, workers, max_restarts)
