"""The rules of CONTRIBUTING.md on the code: its map, the limits on length, and who may ask which TensorFlow it is."""

import ast
import glob
import os
import re

import pytest

from tests.conftest import REPOSITORY, python

PACKAGES = ("src", "models", "utils", "convert")
MAX_FILE, MAX_FUNCTION = 340, 40  # lines


def python_files(*folders):
    """Paths from REPOSITORY: those at the top level, and below these folders."""
    found = [name for name in os.listdir(REPOSITORY) if name.endswith(".py")]
    for folder in folders:
        paths = glob.glob(os.path.join(REPOSITORY, folder, "**", "*.py"), recursive=True)
        found += [os.path.relpath(path, REPOSITORY) for path in paths]
    return sorted(found)


CODE, ALL = python_files(*PACKAGES), python_files(*PACKAGES, "tests", "docs")


def parse(path):
    with open(os.path.join(REPOSITORY, path), encoding="utf-8") as file:
        return ast.parse(file.read(), path)


def floors():
    """The rows of the map: the paths in the first column of each, from top to bottom."""
    with open(os.path.join(REPOSITORY, "CONTRIBUTING.md"), encoding="utf-8") as file:
        table = file.read().split("## Architecture")[1].split("\n\n| ")[1].split("\n\n")[0]
    return [re.findall(r"`([^`]+)`", line.split("|")[1]) for line in f"| {table}".splitlines()[2:]]


def floor_of(path):
    (found,) = [number for number, paths in enumerate(floors()) if path.startswith(tuple(paths))]
    return found


def imported(path):
    """The files of this project that a file imports, also within functions."""
    names = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update([node.module] + [f"{node.module}.{alias.name}" for alias in node.names])
    return sorted({f"{name.replace('.', '/')}.py" for name in names}.intersection(CODE) - {path})


@pytest.mark.parametrize("path", CODE)
def test_imports_run_down_the_map(path):
    assert [other for other in imported(path) if floor_of(other) < floor_of(path)] == []


def test_there_is_no_circle_of_imports():
    waiting = {path: set(imported(path)) for path in CODE}
    while waiting:
        free = [path for path, others in waiting.items() if not others & set(waiting)]
        assert free, f"these import each other: {sorted(waiting)}"
        for path in free:
            del waiting[path]


@pytest.mark.parametrize("path", ALL)
def test_files_and_functions_are_short(path):
    with open(os.path.join(REPOSITORY, path), encoding="utf-8") as file:
        assert len(file.readlines()) <= MAX_FILE
    functions = [node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in functions if last_line(node) - first_line(node) >= MAX_FUNCTION] == []


def first_line(function):
    """Below its decorators, whose first line Python 3.6 gives; near enough."""
    decorators = [getattr(node, "lineno", 0) for decorator in function.decorator_list for node in ast.walk(decorator)]
    return max([function.lineno, *decorators])


def last_line(function):
    """Without the attribute end_lineno, which Python 3.6 has not; near enough."""
    return max(getattr(node, "lineno", 0) for node in ast.walk(function))


@pytest.mark.parametrize("path", [path for path in CODE if path != os.path.join("src", "tf1.py")])
def test_one_file_asks_which_tensorflow_it_is(path):
    with open(os.path.join(REPOSITORY, path), encoding="utf-8") as file:
        assert re.findall(r"IS_1_14|tf\.__version__(?!})", file.read()) == []  # it may be printed: {tf.__version__}


SYSTEMS = (
    r"import (fcntl|msvcrt|resource|psutil|winreg|pwd)|sys\.platform|os\.(name|uname)\b|platform\.system"
    r"|hasattr\((os|signal)|O_(NONBLOCK|NOFOLLOW|BINARY)|signal\.SIG(KILL|PIPE|HUP)|os\.(kill|killpg|fork|pread|pwrite|geteuid|getppid)\b"
    r"|sched_getaffinity|os\.(rename|replace|symlink)\(|shlex|commonpath"
)


@pytest.mark.parametrize("path", [path for path in CODE if path != os.path.join("src", "system.py")])
def test_one_file_asks_which_operating_system_it_is(path):
    """Nor does any other use what one of them lacks, or does differently."""
    with open(os.path.join(REPOSITORY, path), encoding="utf-8") as file:
        assert re.search(SYSTEMS, file.read()) is None


def test_predict_imports_no_network_and_nothing_of_training(tmp_path):
    done = python("-c", "import sys, utils.commands.predict; print(*sys.modules)", cwd=tmp_path)
    loaded = done.stdout.split()
    assert "utils.inference.predictor" in loaded, done.stderr
    others = ("models", "trainer", "convert", "dataset", "utils.checkpoints", "utils.training", "sklearn")
    assert [name for name in loaded if name.startswith(others)] == []
