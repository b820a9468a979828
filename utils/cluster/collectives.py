"""What the workers of a cluster do together, by TensorFlow's own all-reduce.

A method that is called collective must be called by every worker, in the same order.
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
from utils.cluster.tf_config import read_tf_config, refuse
from utils.cluster.watchdog import Watchdog, exit_without_saving

GROUP = 1  # TensorFlow's number for all workers together

joined = {}  # the cluster of each TF_CONFIG: a process can open its port only once


def join_cluster(timeout):
    """The Cluster of the environment variable TF_CONFIG, when all of its workers are there; or a SingleProcess.

    Each call returns another, with that timeout, on the same server. Raises InputError if TF_CONFIG is wrong.
    """
    text = os.environ.get("TF_CONFIG", "")
    if text not in joined:
        addresses, rank, launcher = read_tf_config(text)
        joined[text] = Cluster(addresses, rank, launcher, timeout) if len(addresses) > 1 else SingleProcess(launcher)
    cluster = copy.copy(joined[text])
    cluster.timeout = timeout
    return cluster


class SingleProcess:
    """A process alone: what Cluster does, where there are no others."""

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
    """The processes that train together, of which this is one.

    Args:
        addresses, rank, launcher: as read_tf_config returns them.
        timeout: seconds to wait for other workers, but for steps.

    Attributes:
        rank, world_size: the place of this worker, and how many there are.
        is_chief: whether it is worker 0, which reads and writes checkpoints, the log and the graph.
        launcher, timeout.
    """

    def __init__(self, addresses, rank, launcher, timeout):
        self.rank, self.world_size, self.is_chief = rank, len(addresses), rank == 0
        self.launcher, self.timeout = launcher, timeout
        self._instances = itertools.count(1)  # TensorFlow knows collective operations by their number
        self._sums = {}
        self._server = Server(addresses, rank)
        self._watchdog = Watchdog(launcher)
        self._server.wait_for_others(timeout)

    def open_session(self, device):
        """A session in the default graph, as open_session of src/tf1.py."""
        return self._server.open_session(device)

    def say(self, text):
        """Print a line, if this is the chief."""
        if self.is_chief:
            say(text)

    @contextlib.contextmanager
    def exit_if_peer_lost(self, doing, seconds=None):
        """Within it, an error of TensorFlow's ends the process, or so many seconds (None: the timeout): without saving,
        for it is out of step with the others. `doing` says in the message what it did."""
        with self._watchdog.deadline(doing, seconds or self.timeout):
            try:
                yield
            except tf.errors.OpError as error:
                if is_out_of_memory(error):
                    raise
                exit_without_saving(f"{doing} failed, another worker of the cluster is gone ({type(error).__name__})")

    def check_signals(self, signals, stop=False):
        """Let HeldSignals act: in a process alone at once, in a cluster if a worker has asked all to stop, of which
        those without a signal end as after SIGTERM."""
        if stop:
            signals.check()
            raise SystemExit(ExitCode.TERMINATED)

    def all_reduce_mean(self, structure):
        """Collective. The same structure of ops for the means over all workers of its float32 tensors.

        In one message: many small ones take longer.
        """
        tensors = tf.nest.flatten(structure)
        with tf.device(self._server.device):
            means = unflatten(self._all_reduce(flatten(tensors), "Div"), tensors)
        return tf.nest.pack_sequence_as(structure, means)

    def _all_reduce(self, tensor, final_op):
        return collective_ops.all_reduce(tensor, self.world_size, GROUP, next(self._instances), "Add", final_op)

    def all_reduce_sum(self, numbers):
        """Collective. The sums over all workers of some numbers: float64 [n]."""
        numbers = np.array(numbers, np.float64)
        if len(numbers) not in self._sums:
            with tf.Graph().as_default(), tf.device(self._server.device):
                own = tf.placeholder(tf.float64, numbers.shape)
                self._sums[len(numbers)] = self.open_session("cpu"), own, self._all_reduce(own, "Id")
        session, own, total = self._sums[len(numbers)]
        with self.exit_if_peer_lost("waiting for the others"):
            return session.run(total, {own: numbers})

    def barrier(self):
        """Collective. Wait until all workers are here."""
        self.all_reduce_sum([0])

    def broadcast_object(self, value):
        """Collective. What the chief gives, to all workers: anything that JSON can hold."""
        content = json.dumps(value).encode("ascii") if self.is_chief else b""
        numbers = np.zeros(int(self.all_reduce_sum([len(content)])[0]))
        numbers[: len(content)] = list(content)
        return json.loads(bytes(self.all_reduce_sum(numbers).astype(np.uint8)).decode("ascii"))

    def broadcast_variables(self, variables):
        """Build into the default graph what gives all workers the values that variables have in the chief's session.

        Returns:
            A function of the session, collective, that does it.
        """
        updates = []
        with tf.device(self._server.device):
            for dtype in sorted({variable.dtype.base_dtype for variable in variables}, key=str):
                alike = [variable for variable in variables if variable.dtype.base_dtype == dtype]
                row = flatten(alike)
                place = row.shape, dtype, self.world_size, GROUP, next(self._instances)
                if self.is_chief:
                    updates.append(collective_ops.broadcast_send(row, *place))
                else:
                    values = unflatten(collective_ops.broadcast_recv(*place), alike)
                    updates += [tf.assign(variable, value) for variable, value in zip(alike, values)]
            update = tf.group(*updates)

        def broadcast(session):
            with self.exit_if_peer_lost("sharing the weights"):
                session.run(update)

        return broadcast

    def all_or_none(self, work):
        """Collective. What work() returns. Where it raises InputError for one worker, it does so for all.

        It may not use what is collective: one of the workers may not come so far.
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
            refuse(f"{failed} worker(s) that failed to start (see their output)", "none")
        return result


def check_same(cluster, data):
    """Collective. Raise InputError, for all workers, unless they have the same images."""
    theirs = cluster.broadcast_object(data.fingerprint)

    def check():
        if data.fingerprint != theirs:
            expected = "expected files of the same names in the same classes"
            raise InputError(f"setting train_path or valid_path: found other images than the chief has, {expected}")

    cluster.all_or_none(check)


def flatten(tensors):
    """All numbers of some tensors of one dtype, in a row."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)


def unflatten(row, tensors):
    """The tensors that flatten() would make such a row of."""
    parts = tf.split(row, [tensor.shape.num_elements() for tensor in tensors])
    return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors)]
