"""The converters in this process, and their files."""

import os
import runpy
import sys
import warnings

import pytest

from convert.compare import Comparison

GRAPH = "weights/lenet5/lenet5.pb"


def files():
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk("weights") for name in names)


def convert(monkeypatch, module, *arguments):
    """What `python -m module` does, but in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", [module] + list(arguments))
    with pytest.raises(SystemExit) as stopped, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the module was imported before
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    return stopped.value.code


def line(**changed):
    """A Comparison without a failure, but for what is changed."""
    return Comparison("x", "x", 1000, 0.0, 1.0, [0.8, 0.8], [1, 1], [1.0, 1.0], None)._replace(**changed)
