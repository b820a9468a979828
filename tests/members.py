"""Members of a cluster for test_cluster.py, forked from a process that has imported TensorFlow, which takes seconds.

It has computed nothing there yet, so a member does all else as one that was started by itself; test_cluster.py has
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
from utils import launch
from utils.launch import free_addresses

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.members"])


def environment(hosts, member):
    """That of a member of a cluster with a chief, with as many threads as it has if it is launched."""
    task = {"type": "worker" if member else "chief", "index": max(0, member - 1)}
    tf_config = {"cluster": {"chief": hosts[:1], "worker": hosts[1:]}, "task": task}
    launched = next(launch.environments(settings(), len(hosts)))
    return dict(launched, PYTHONPATH=REPOSITORY, TF_CONFIG=json.dumps(tf_config))


class Member:
    """A process that works in the folder of this one; what it prints is in the files out0 and err0 there, if it is the
    chief. It ends with the exit code that function(number, *arguments) returns.
    """

    def __init__(self, hosts, number, function, arguments):
        self._files = [os.path.abspath(f"{name}{number}") for name in ("out", "err")]
        given = (self._files, environment(hosts, number), function, number, *arguments)
        self._process = FORKED.Process(target=be_member, args=given, daemon=True)
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


def be_member(files, environment, function, number, *arguments):
    multiprocessing.set_start_method("fork", force=True)  # the usual one: what tqdm makes locks with
    os.environ.update(environment)
    for descriptor, path in enumerate(files, 1):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), descriptor)
    code = function(number, *arguments) or 0  # in Python 3.7, None would be 1
    atexit._run_exitfuncs()  # multiprocessing leaves them out
    sys.exit(code)


def run_main(member, *arguments):
    """run.py with these arguments, in which MEMBER stands for the number of the member."""
    return run.main([argument.replace("MEMBER", str(member)) for argument in arguments])


def start_members(count, function, *arguments):
    hosts = free_addresses(count)
    return [Member(hosts, number, function, arguments) for number in range(count)]


def train_together(count, given):
    """Train in so many processes; returns for each of them ({variable: value}, what it noted)."""
    members = start_members(count, note_steps, given)
    for member in members:
        code, errors = member.end(200)
        if code is None:
            member.send_signal(signal.SIGKILL)
        assert code == 0, (code, errors)
    results = []
    for member in range(count):
        with np.load(f"{member}.npz") as file:
            weights = {name: file[name] for name in file.files}
        results.append((weights, json.loads(str(weights.pop("notes")))))
    return results


def note_steps(member, given):
    """Train with these settings, and note what train_together returns; and, in states0.npz and so on, the value of
    each variable before every fourth step, as "step name". MobileNetV2 is that of the fixture shallow.
    """
    mobilenetv2.BOTTLENECKS = mobilenetv2.BOTTLENECKS[:2]
    trainer = Trainer(**given)
    costs, trained, validated, states = [], [], [], {}
    step, batches = trainer.learning.step, trainer.data.valid.batches
    variables = {variable.op.name: variable for variable in trainer.graph.get_collection("variables")}

    def noting_step(session, batch, wishes):
        if trainer.step % 4 == 0:
            states.update((f"{trainer.step} {name}", value) for name, value in session.run(variables).items())
        result = step(session, batch, wishes)
        costs.append(float(result[0]))
        trained.extend(batch.ids)
        return result

    def noting_batches(*arguments):
        for batch in batches(*arguments):
            validated.extend(batch.ids)
            yield batch

    trainer.learning.step, trainer.data.valid.batches = noting_step, noting_batches
    history = trainer.optimize()
    notes = {"costs": costs, "trained": trained, "validated": validated, "history": history}
    np.savez(f"{member}.npz", notes=json.dumps(notes), **trainer.session.run(variables))
    np.savez(f"states{member}.npz", **states)
