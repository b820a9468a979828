"""Collective operations of the workers of a cluster, with TensorFlow's all-reduce.

Collective methods must be called by every worker, in the same order.
"""

import contextlib
import copy
import itertools
import json
import os

import numpy as np

from src.console import say
from src.errors import ExitCode, InputError, is_out_of_memory
from src.tf1 import collective_ops, open_session, tf
from utils.cluster.server import Server
from utils.cluster.tf_config import TF_CONFIG, read_tf_config
from utils.cluster.watchdog import Watchdog, exit_without_saving

GROUP_KEY = 1  # of the group of all workers, in TensorFlow

joined = {}  # {TF_CONFIG: cluster}, because a process can open its port only once


def join_cluster(config):
    """Wait for all workers in the environment variable TF_CONFIG; returns the Cluster, or a SingleProcess without one.

    Each call returns a copy with its own cluster_timeout, on the same server, which has the device of the first call.
    Raises InputError if TF_CONFIG is invalid.
    """
    text = os.environ.get("TF_CONFIG", "")
    if text not in joined:
        addresses, rank, launcher = read_tf_config(text)
        joined[text] = Cluster(addresses, rank, launcher, config) if len(addresses) > 1 else SingleProcess(launcher)
    cluster = copy.copy(joined[text])
    cluster.timeout = config.cluster_timeout
    return cluster


class SingleProcess:
    """The interface of Cluster for a process that trains alone."""

    rank, world_size, is_chief = 0, 1, True
    open_session, say = staticmethod(open_session), staticmethod(say)
    exit_if_peer_lost = staticmethod(lambda doing, seconds=None: contextlib.ExitStack())
    check_signals = staticmethod(lambda signals, stop=False: signals.check())
    all_reduce_mean = staticmethod(lambda structure: structure)
    all_reduce_sum = staticmethod(lambda numbers: np.array(numbers, np.float64))
    barrier = staticmethod(lambda: None)
    broadcast_object = staticmethod(lambda value: value)
    broadcast_variables = staticmethod(lambda variables: lambda session: None)
    all_or_none = staticmethod(lambda work: work())

    def __init__(self, launcher):
        self.launcher = launcher
        if launcher:
            Watchdog(launcher)


class Cluster:
    """The processes that train together, seen from one of them.

    Args:
        addresses, rank, launcher: as read_tf_config returns them.
        config: the settings, of which cluster_timeout and device are used.

    Attributes:
        rank, world_size: the index of this worker, and the number of workers.
        is_chief: whether this is the worker that reads and writes checkpoints, log and graph: that of rank 0.
        launcher, timeout.
    """

    def __init__(self, addresses, rank, launcher, config):
        self.rank, self.world_size, self.is_chief = rank, len(addresses), rank == 0
        self.launcher, self.timeout = launcher, config.cluster_timeout
        self._instance_keys = itertools.count(1)  # TensorFlow matches the collective operations of workers by key
        self._sums = {}
        self._server = Server(addresses, rank, config.device)
        self._watchdog = Watchdog(launcher, self._server.suspects)
        self._server.wait_for_others(self.timeout)

    def open_session(self, device):
        """Open a session with the default graph, as open_session of src/tf1.py."""
        return self._server.open_session(device)

    def say(self, text):
        """Print a line, if this is the chief."""
        if self.is_chief:
            say(text)

    @contextlib.contextmanager
    def exit_if_peer_lost(self, doing, seconds=None):
        """End the process if the body takes longer than `seconds` (None: the timeout) or raises an error of TensorFlow.

        It ends without saving, because it is out of step with the others. `doing` names the body in the message.
        """
        with self._watchdog.deadline(doing, seconds or self.timeout):
            try:
                yield
            except tf.errors.OpError as error:
                if is_out_of_memory(error):
                    raise
                exit_without_saving(f"{doing} failed ({type(error).__name__}); {self._server.suspects()}")

    def check_signals(self, signals, stop=False):
        """If any worker requested a stop, end this one: by its own held signal, or else as after SIGTERM.

        A single process acts on its signal at once.
        """
        if stop:
            signals.check()
            raise SystemExit(ExitCode.TERMINATED)

    def all_reduce_mean(self, structure):
        """Collective. A structure of float32 tensors -> the same structure of their means over all workers.

        All travel in a single message, which is faster than many small ones.
        """
        tensors = tf.nest.flatten(structure)
        with tf.device(self._server.device):
            means = unflatten(self._all_reduce(flatten(tensors), "Div"), tensors)
        return tf.nest.pack_sequence_as(structure, means)

    def _all_reduce(self, tensor, final_op):
        keys = GROUP_KEY, next(self._instance_keys)
        return collective_ops.all_reduce(tensor, self.world_size, *keys, "Add", final_op)

    def all_reduce_sum(self, numbers):
        """Collective. The sums over all workers of n numbers: float64 [n]."""
        numbers = np.array(numbers, np.float64)
        if len(numbers) not in self._sums:
            with tf.Graph().as_default(), tf.device(self._server.device):
                own = tf.placeholder(tf.float64, numbers.shape)
                self._sums[len(numbers)] = self.open_session("cpu"), own, self._all_reduce(own, "Id")
        session, own, total = self._sums[len(numbers)]
        with self.exit_if_peer_lost("waiting for the others"):
            return session.run(total, {own: numbers})

    def barrier(self):
        """Collective. Wait until all workers have called it."""
        self.all_reduce_sum([0])

    def broadcast_object(self, value):
        """Collective. Returns the chief's value, any JSON value, to all workers."""
        content = json.dumps(value).encode("ascii") if self.is_chief else b""
        numbers = np.zeros(int(self.all_reduce_sum([len(content)])[0]))
        numbers[: len(content)] = list(content)
        return json.loads(bytes(self.all_reduce_sum(numbers).astype(np.uint8)).decode("ascii"))

    def broadcast_variables(self, variables):
        """Build ops that set variables to their values in the chief's session.

        Returns:
            A collective function of the session that runs them.
        """
        updates = []
        with tf.device(self._server.device):
            for dtype in sorted({variable.dtype.base_dtype for variable in variables}, key=str):
                alike = [variable for variable in variables if variable.dtype.base_dtype == dtype]
                vector = flatten(alike)
                arguments = vector.shape, dtype, self.world_size, GROUP_KEY, next(self._instance_keys)
                if self.is_chief:
                    updates.append(collective_ops.broadcast_send(vector, *arguments))
                else:
                    values = unflatten(collective_ops.broadcast_recv(*arguments), alike)
                    updates += [tf.assign(variable, value) for variable, value in zip(alike, values)]
            update = tf.group(*updates)

        def broadcast(session):
            with self.exit_if_peer_lost("broadcasting the weights"):
                session.run(update)

        return broadcast

    def all_or_none(self, work):
        """Collective. Returns work(); if it raises InputError in one worker, all raise InputError.

        work() must not call collective methods, which a worker that fails would not reach.
        """
        result = error = None
        try:
            result = work()
        except InputError as caught:
            error = caught
        failed = int(self.all_reduce_sum([error is not None])[0])
        if error is not None:
            raise error
        if failed:
            raise InputError(TF_CONFIG, f"{failed} worker(s) that failed to start (see their output)", "none")
        return result


def check_same(cluster, data):
    """Collective. Raise InputError, in all workers, unless they have the same images."""
    theirs = cluster.broadcast_object(data.fingerprint)

    def check():
        if data.fingerprint != theirs:
            expected = "files of the same names in the same classes"
            raise InputError("setting train_path or valid_path", "other images than on the chief", expected)

    cluster.all_or_none(check)


def flatten(tensors):
    """The values of tensors of one dtype, concatenated to a vector."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)


def unflatten(vector, tensors):
    """The inverse of flatten: tensors with the shapes of `tensors`."""
    parts = tf.split(vector, [tensor.shape.num_elements() for tensor in tensors])
    return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors)]
