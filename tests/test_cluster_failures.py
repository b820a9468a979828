"""Workers that are stuck, missing, ended or unlike the others end all, each with a line that says why."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from src.errors import InputError
from src.settings import settings
from tests.helpers.cluster_launch import RUN_PY, Launched, of_digits
from tests.helpers.cluster_workers import environment, run_main, start_workers
from tests.helpers.processes import Started, assert_gone
from utils.checkpoints.run_index import find_run
from utils.cluster import launch
from utils.cluster.launch import free_addresses


def test_a_worker_that_is_stuck_ends_the_others(digits, in_tmp_path):
    """Not forked: of a forked process that ends at once, Python 3.6 does not learn the exit code."""
    command = [sys.executable, RUN_PY, *of_digits(digits, 1000), "--step_timeout", "3", "--cluster_timeout", "10"]
    hosts = free_addresses(2)
    chief, worker = [Started(command, environment(hosts, rank), f"output{rank}") for rank in range(2)]
    chief.wait_for("epoch 2/1000")
    worker.process.send_signal(signal.SIGSTOP)
    code, output = chief.end()
    assert code == 138
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    late = re.escape(f"worker 0 ({hosts[1]}: something listens there, but does not answer)")
    assert re.fullmatch(rf"error: (step \d+|waiting for the others) timed out; {late}; .* .exit code 138., .*", error)
    run = find_run("checkpoints/lenet5")
    assert run.entry(run.latest())["progress"]["position"] == 0  # after an epoch: the end did not save


def test_a_cluster_that_cannot_form_says_who_is_missing(digits, in_tmp_path):
    hosts = free_addresses(3)
    done = subprocess.run(
        [sys.executable, RUN_PY, *of_digits(digits, 1), "--cluster_timeout", "1"], env=environment(hosts, 1),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 138
    found = "cannot be reached (Connection refused)"
    assert f"waited 1 s for chief 0 ({hosts[0]}: {found}), worker 1 ({hosts[2]}: {found})" in done.stderr


def test_a_port_that_is_taken(digits, in_tmp_path):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen(1)
        hosts = [f"127.0.0.1:{taken.getsockname()[1]}", *free_addresses(1)]
        done = subprocess.run(
            [sys.executable, RUN_PY, *of_digits(digits, 1)], env=environment(hosts, 0), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, universal_newlines=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*TF_CONFIG: found 127.0.0.1:\d+ for chief 0, expected a free port .*\n", done.stderr)


def test_what_one_worker_lacks_ends_all_at_once(digits, in_tmp_path):
    """Each on its own machine has its own images."""
    os.symlink(f"{digits}/train", "train0")
    workers = start_workers(2, run_main, "--train_path", "trainRANK", "--num_epoch", "1")
    codes, errors = zip(*[worker.end(60) for worker in workers])
    assert codes == (2, 2)
    assert re.fullmatch(r"error: .*TF_CONFIG: found 1 worker.s. that failed to start .*\n", errors[0])
    assert re.fullmatch(r"error: setting train_path: found no folder train1, .*\n", errors[1])
    assert os.listdir("checkpoints/lenet5") == ["lock"]


def test_workers_with_other_images_end_at_once(folders, in_tmp_path):
    folders({"cat": 20, "dog": 20}, "train0")
    folders({"cat": 20, "dog": 20}, "train1")
    os.rename("train1/cat/000.png", "train1/cat/100.png")
    workers = start_workers(2, run_main, "--train_path", "trainRANK", "--img_size", "16", "--batch_size", "4")
    codes, errors = zip(*[worker.end(60) for worker in workers])
    assert codes == (2, 2)
    assert re.fullmatch(r"error: setting train_path .* found other images than on the chief, .*\n", errors[1])


def test_a_worker_that_is_ended_while_it_starts_ends_all(digits, in_tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "AFTER_SIGNAL", 2)
    config = settings(train_path=f"{digits}/train")
    command = [RUN_PY, "--train_path", f"{digits}/train"]
    workers = launch.start(command, launch.environments(config, 2))
    time.sleep(0.5)
    workers[1].process.terminate()
    name, code = launch.wait(workers, [])
    assert name == "worker 0" and code in (130, 143)
    assert_gone([worker.process.pid for worker in workers])


def test_launch_refuses_what_is_wrong_at_once(digits, in_tmp_path, run_here):
    for arguments, expected in [
        (["--workers", "0"], "--workers: found 0, expected 1 or more"),
        (["--workers", "2", "--max_restarts", "-1"], "--max_restarts: found -1, expected 0 or more"),
        (["--workers", "2", "--lr", "-1"], "setting lr: found -1"),
    ]:
        launched = run_here("launch", *arguments, cwd=in_tmp_path)
        assert launched.returncode == 2 and launched.stderr.startswith(f"error: {expected}"), launched.stderr
        assert launched.stderr.count("\n") == 1
    code, output = Launched("--train_path", "none").end()
    lines = sorted(line for line in output.splitlines() if "error" in line)
    assert code == 2 and len(lines) == 2
    for name, line in zip(("chief", "worker 0"), lines):
        assert line.startswith(f"{name}: error: setting train_path: found no folder none, expected one with")
    assert "restarting all workers" not in output
    workers = start_workers(2, run_main, *of_digits(digits, 1), "--batch_size", "1000")
    codes, errors = zip(*[worker.end(60) for worker in workers])
    assert codes == (2, 2)
    assert "error: setting batch_size: found 1000, expected at most 603, the number of training images" in errors[0]


def test_more_workers_than_the_machine_can_start(monkeypatch):
    started = []

    def start_worker(command, environment, name):
        if started:
            raise OSError(24, "Too many open files")
        started.append(launch.Worker(name, subprocess.Popen(["sleep", "100"]), []))
        return started[0]

    monkeypatch.setattr(launch, "start_worker", start_worker)
    with pytest.raises(
        InputError, match="^--workers: found too many processes .*Too many open files.*, expected at most 1 here$"
    ):
        launch.start([], [{}, {}])
    assert started[0].process.wait(10) == -signal.SIGKILL
