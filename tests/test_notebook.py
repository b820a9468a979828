"""docs/notebook.ipynb, run in Jupyter's own kernel."""

import os
import signal

import pytest

from tests.conftest import REPOSITORY

nbformat = pytest.importorskip("nbformat", reason="Jupyter's kernel is only installed with the current TensorFlow")
NOTEBOOK = os.path.join(REPOSITORY, "docs", "notebook.ipynb")


def run_notebook(cells, folder, **options):
    """Run a notebook of these sources of cells in a folder; returns it, with the outputs."""
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}, **options)
    client.execute()
    return notebook


def text_of(cell):
    return "".join(output.get("text", "") + str(output.get("data", "")) for output in cell.outputs)


@pytest.fixture
def project(tmp_path):
    """A folder that has the program, but no data and results."""
    for name in os.listdir(REPOSITORY):
        if name not in ("data", "checkpoints", "graphs", "weights", ".git", ".venv"):
            os.symlink(os.path.join(REPOSITORY, name), str(tmp_path / name))
    return tmp_path


def test_the_notebook_trains_draws_predicts_and_explains(project):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    start, train, curves, evaluate, predict, explain, _ = run_notebook(sources, project).cells
    assert "data set: data/digitspng" in text_of(start)
    assert "epoch 8/8: loss " in text_of(train) and "<Trainer of lenet5: 8 epochs, " in text_of(train)
    assert "epoch 1/8:   0%" in text_of(train)  # the progress bar
    assert "image/png" in text_of(curves) and "image/png" in text_of(explain)
    assert float(text_of(evaluate).split("accuracy ")[1]) > 0.9
    assert "data/digitspng/test/9/" in text_of(predict) and "<Predictor of weights/lenet5/lenet5.pb: " in text_of(
        predict
    )


def test_the_interrupt_button_says_what_is_saved(project, digits):
    """Jupyter interrupts by SIGINT."""
    cells = [
        f"import os, sys, threading\nsys.path.insert(0, {REPOSITORY!r})\nfrom trainer import Trainer\n"
        f"T = Trainer(train_path={digits + '/train'!r})",
        f"threading.Timer(2, os.kill, (os.getpid(), {int(signal.SIGINT)})).start()\nT.optimize(100000)",
        "done = T.epoch\nprint('then', T.step > 0, T.optimize(1)[-1]['epoch'] - done)",
    ]
    _, stopped, after = run_notebook(cells, project, allow_errors=True).cells
    assert "stopped; saved checkpoints/lenet5/" in text_of(stopped) and "optimize() continues from" in text_of(stopped)
    assert stopped.outputs[-1].ename == "KeyboardInterrupt"
    assert "then True 1\n" in text_of(after)


def test_tensorflow_in_use_before_is_told_that_graph_mode_begins(project):
    cells = [
        "import tensorflow as tf\nprint(tf.executing_eagerly())",
        f"import sys\nsys.path.insert(0, {REPOSITORY!r})\nimport trainer\nprint(tf.executing_eagerly())",
    ]
    first, second = map(text_of, run_notebook(cells, project).cells)
    assert "True" in first and "False" in second
    assert "note: TensorFlow was imported before: from here on, this process is in graph mode" in second
