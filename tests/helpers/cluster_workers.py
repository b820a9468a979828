"""Workers of a cluster for test_cluster.py, forked from a process that has imported TensorFlow, which takes seconds.

It has computed nothing there yet, so a worker does all else as one that was started by itself; test_cluster.py has
those as well.
"""

import atexit
import json
import multiprocessing
import os
import signal
import sys
import time
from unittest import mock

import numpy as np

import run
from models import mobilenetv2
from src.settings import settings
from tests.conftest import REPOSITORY
from trainer import Trainer
from utils.cluster import launch
from utils.cluster.launch import free_addresses

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.helpers.cluster_workers"])


def environment(hosts, rank):
    """That of a worker of a cluster with a chief, with as many threads as it has if it is launched."""
    task = {"type": "worker" if rank else "chief", "index": max(0, rank - 1)}
    tf_config = {"cluster": {"chief": hosts[:1], "worker": hosts[1:]}, "task": task}
    launched = next(launch.environments(settings(), len(hosts)))
    return dict(launched, PYTHONPATH=REPOSITORY, TF_CONFIG=json.dumps(tf_config))


class Worker:
    """A process that works in the folder of this one; what it prints is in the files out0 and err0 there, if it is the
    chief. It ends with the exit code that function(rank, *arguments) returns.
    """

    def __init__(self, hosts, rank, function, arguments):
        self._files = [os.path.abspath(f"{name}{rank}") for name in ("out", "err")]
        given = (self._files, environment(hosts, rank), function, rank, *arguments)
        self._process = FORKED.Process(target=be_worker, args=given, daemon=True)
        with mock.patch.dict(os.environ, PYTHONPATH=REPOSITORY):  # where the process to fork from finds this module
            self._process.start()

    def wait_for(self, text):
        """Until it has printed the text."""
        until = time.monotonic() + 100
        while not os.path.exists(self._files[0]) or text not in read(self._files[0]):
            assert self._process.is_alive() and time.monotonic() < until, read(self._files[1])
            time.sleep(0.05)

    def end(self, seconds):
        """Wait so long for its end; (exit code, None if it has not ended, and what it has said is wrong)."""
        self._process.join(seconds)
        return self._process.exitcode, read(self._files[1])

    def send_signal(self, number):
        os.kill(self._process.pid, number)


def read(path):
    with open(path) as file:
        return file.read()


def be_worker(files, environment, function, rank, *arguments):
    multiprocessing.set_start_method("fork", force=True)  # the usual one: what tqdm makes locks with
    os.environ.update(environment)
    for descriptor, path in enumerate(files, 1):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), descriptor)
    code = function(rank, *arguments) or 0  # in Python 3.7, None would be 1
    atexit._run_exitfuncs()  # multiprocessing leaves them out
    sys.exit(code)


def run_main(rank, *arguments):
    """run.py with these arguments, in which RANK stands for that of the worker."""
    return run.main([argument.replace("RANK", str(rank)) for argument in arguments])


def start_workers(count, function, *arguments):
    hosts = free_addresses(count)
    return [Worker(hosts, rank, function, arguments) for rank in range(count)]


def train_together(count, given):
    """Train in so many processes; returns for each of them ({variable: value}, what it noted)."""
    workers = start_workers(count, note_steps, given)
    for worker in workers:
        code, errors = worker.end(200)
        if code is None:
            worker.send_signal(signal.SIGKILL)
        assert code == 0, (code, errors)
    results = []
    for rank in range(count):
        with np.load(f"{rank}.npz") as file:
            weights = {name: file[name] for name in file.files}
        results.append((weights, json.loads(str(weights.pop("notes")))))
    return results


def note_deadlines(rank, given, timeouts):
    """Trainers with these as step_timeout, and with twice as much as cluster_timeout, train for an epoch each, and the
    first for another. Note, in deadlines0.json and so on, the seconds that each step of an epoch may take, and a wait.
    """
    trainers = [Trainer(step_timeout=seconds, cluster_timeout=2 * seconds, **given) for seconds in timeouts]

    def train(trainer):
        watchdog, step, found = trainer.cluster._watchdog, trainer.train_graph.step, []

        def noting_step(*arguments):
            found.append(watchdog._running.end - time.monotonic())
            return step(*arguments)

        trainer.train_graph.step = noting_step
        trainer.optimize(1)
        assert watchdog._running is None
        with trainer.cluster.exit_if_peer_lost("waiting"):
            trainer.cluster.barrier()  # whose own deadline does not lift that one
            return list(found), watchdog._running.end - time.monotonic()

    notes = [train(trainer) for trainer in (*trainers, trainers[0])]
    with open(f"deadlines{rank}.json", "w") as file:
        json.dump(notes, file)


def note_steps(rank, given):
    """Train with these settings, and note what train_together returns; and, in states0.npz and so on, the value of
    each variable before every fourth step, as "step name". MobileNetV2 is that of the fixture shallow.
    """
    mobilenetv2.BOTTLENECKS = mobilenetv2.BOTTLENECKS[:2]
    trainer = Trainer(**given)
    costs, trained, validated, states = [], [], [], {}
    step, batches = trainer.train_graph.step, trainer.data.valid.batches
    variables = {variable.op.name: variable for variable in trainer.graph.get_collection("variables")}

    def noting_step(session, batch, requests):
        if trainer.step % 4 == 0:
            states.update((f"{trainer.step} {name}", value) for name, value in session.run(variables).items())
        result = step(session, batch, requests)
        costs.append(float(result[0]))
        trained.extend(batch.ids)
        return result

    def noting_batches(*arguments):
        for batch in batches(*arguments):
            validated.extend(batch.ids)
            yield batch

    trainer.train_graph.step, trainer.data.valid.batches = noting_step, noting_batches
    history = trainer.optimize()
    notes = {"costs": costs, "trained": trained, "validated": validated, "history": history}
    np.savez(f"{rank}.npz", notes=json.dumps(notes), **trainer.session.run(variables))
    np.savez(f"states{rank}.npz", **states)
