"""Several processes that train one network together, on TensorFlow's own servers and its all-reduce.

The environment variable TF_CONFIG says which they are, and which of them this one is; without it, it is alone. Member
0, the chief, is the one that reads and writes checkpoints, the log and the graph.
"""

import atexit
import contextlib
import json
import os
import re
import select
import signal
import socket
import sys
import threading
import time

import numpy as np

from src.console import print_error, quiet, say
from src.errors import ExitCode, InputError, first_line, is_out_of_memory
from src.tf1 import collective_ops, open_session, session_options, tf

GROUP = 1  # TensorFlow's number for all members together
GRACE = 20  # seconds that a step may take on when the process is asked to end
SHOWN = 80  # characters of a wrong TF_CONFIG
FAREWELL = 1  # seconds in which the others may still fetch what this member has sent, before it ends

joined = {}  # the Cluster of each TF_CONFIG: a process can open its port only once


def join_cluster(config):
    """The Cluster of TF_CONFIG, when all of its members are there.

    Args:
        config: settings of a Trainer, of which cluster_timeout and step_timeout count.

    Raises:
        InputError: TF_CONFIG is wrong.
    """
    text = os.environ.get("TF_CONFIG", "")
    if text not in joined:
        joined[text] = Cluster(*read_tf_config(text), config)
    joined[text].config = config
    return joined[text]


def read_tf_config(text):
    """(addresses, member, launcher), as Cluster takes them; without a cluster in the text, ({}, 0, None).

    It is JSON such as {"cluster": {"chief": ["host1:2222"], "worker": ["host2:2222"]}, "task": {"type": "worker",
    "index": 0}}. Without a chief, worker 0 is it.
    """
    try:
        tf_config = json.loads(text or "{}")
    except (ValueError, RecursionError):
        tf_config = None
    if not isinstance(tf_config, dict):
        refuse(repr(text[:SHOWN]), "a JSON object")
    jobs, task = tf_config.get("cluster"), tf_config.get("task")
    if not jobs:
        return {}, 0, None
    if not isinstance(jobs, dict) or not all(isinstance(hosts, list) for hosts in jobs.values()):
        refuse(f"the cluster {jobs!r}", 'one such as {"chief": ["host1:2222"], "worker": ["host2:2222"]}')
    if not isinstance(task, dict) or not {"type", "index"} <= set(task):
        refuse(f"the task {task!r}", 'one such as {"type": "worker", "index": 0}')
    for job in [*jobs, task["type"]]:
        if job not in ("chief", "worker"):
            refuse(f"a task of type {job}", "chief and worker only, which all do the same work")
    addresses = {f"{job} {index}": host for job in sorted(jobs) for index, host in enumerate(jobs[job])}
    check_addresses(addresses)
    name = f"{task['type']} {task['index']}"
    if name not in addresses:
        refuse(f"the task {name}", f"one of {', '.join(addresses)}")
    return addresses, list(addresses).index(name), tf_config.get("launcher")


def check_addresses(addresses):
    for name, host in addresses.items():
        if not isinstance(host, str) or not re.fullmatch(r"\S+:\d{1,5}", host) or not can_be_asked(host):
            refuse(f"{host!r} for {name}", "a host and a port, such as host1:2222")
    if not addresses or "chief 1" in addresses or len(set(addresses.values())) < len(addresses):
        refuse(f"the members {', '.join(addresses.values())}", "some, one chief at most, and no address twice")


def can_be_asked(address):
    """Whether its port is one, and its host a name that can be looked up."""
    try:
        host_of(address).encode("idna")
    except UnicodeError:  # an empty label, for one
        return False
    return 0 < port_of(address) < 65536


def host_of(address):
    return address.rsplit(":", 1)[0].strip("[]")


def port_of(address):
    return int(address.rsplit(":", 1)[1])


def refuse(found, expected):
    raise InputError(f"environment variable TF_CONFIG: found {found}, expected {expected}")


class Cluster:
    """The processes that train together. All that is said to be done by all members must be done by each of them.

    Args:
        addresses: {"chief 0": host and port, "worker 0": ...}, the chief first; {}: this process is alone.
        member: the number of this one.
        launcher: the process that this one is to end with; None: there is none.
        config: settings, of which cluster_timeout and step_timeout count.

    Attributes:
        size, member, name, is_chief, launcher; config: that of the Trainer that trains now, of several in a process.
    """

    def __init__(self, addresses, member, launcher, config):
        self._addresses, self.launcher, self.config = addresses, launcher, config
        self.size, self.member, self.is_chief = max(1, len(addresses)), member, member == 0
        self.name = list(addresses)[member] if addresses else "chief 0"
        self._instances = 0  # collective operations so far; TensorFlow knows them by their number
        self._sums = {}
        self._deadline = self._doing = self._server = None
        if addresses:
            self._server = self._start_server()
            self._signals, sender = socket.socketpair()
            sender.setblocking(False)
            if threading.current_thread() is threading.main_thread():  # which alone gets signals
                signal.set_wakeup_fd(sender.detach())
            threading.Thread(target=self._watch, daemon=True).start()
            atexit.register(time.sleep, FAREWELL)  # or they would take this one for lost
            self._wait_for_others()

    def _start_server(self):
        jobs = {}
        for name, address in self._addresses.items():
            jobs.setdefault(name.split()[0], []).append(address)
        job, index = self.name.split()
        self._device = f"/job:{job}/task:{index}"
        try:
            with quiet():  # gRPC has lines of its own about a port that is taken
                return tf.train.Server(tf.train.ClusterSpec(jobs), job, int(index), config=self._options("gpu"))
        except tf.errors.OpError as error:
            expected = f"expected a port of this machine that is free ({first_line(error)})"
            raise InputError(f"TF_CONFIG: found {self._addresses[self.name]} for {self.name}, {expected}") from error

    def _options(self, device):
        options = session_options(device)
        options.isolate_session_state = True
        options.device_filters.append(self._device)
        leader = next(iter(self._addresses)).split()[0]
        options.experimental.collective_group_leader = f"/job:{leader}/replica:0/task:0"
        return options

    def _wait_for_others(self):
        """Until each of the others has opened its port."""
        missing = [name for name in self._addresses if name != self.name]
        start = told = time.monotonic()
        while True:
            missing = [name for name in missing if not is_open(self._addresses[name])]
            if not missing:
                return
            names = ", ".join(f"{name} ({self._addresses[name]})" for name in missing)
            now = time.monotonic()
            if now - start > self.config.cluster_timeout:
                self._end(f"waited {self.config.cluster_timeout:g} s for {names}")
            if now - told > 5:
                told = now
                say(f"waiting for {names}")
            time.sleep(0.2)

    def open_session(self, device):
        """A session in the default graph, as open_session of src/tf1.py."""
        if not self._server:
            return open_session(device)
        return tf.Session(self._server.target, config=self._options(device))

    def allow(self, doing=None, seconds=None):
        """From now on, this member may be so long at what it is doing, or it is taken to be stuck; None: for ever."""
        seconds = seconds or self.config.cluster_timeout
        self._doing, self._deadline = doing, None if doing is None else time.monotonic() + seconds

    def allow_step(self, step):
        self.allow(f"step {step}", self.config.step_timeout)

    def _watch(self):
        """End the process when it is stuck: TensorFlow 1.14 waits for ever for a member that has died."""
        while True:
            asked = select.select([self._signals], [], [], 0.2)[0] and self._signals.recv(1)
            if self.launcher and os.getppid() != self.launcher:
                self._end("what launched it is gone")
            deadline = self._deadline
            if asked and deadline:  # Python tells of Ctrl-C when TensorFlow comes back, which it may never do
                deadline = self._deadline = min(deadline, time.monotonic() + GRACE)
            if deadline is not None and time.monotonic() > deadline:
                self._end(f"{self._doing} has taken too long, another member of the cluster is stuck or gone")

    def _end(self, what):
        """End the process at once, without saving anything: TensorFlow itself would wait for what is lost."""
        end = f"this one ends without saving, exit code {ExitCode.PEER_LOST}, to be started again with --resume"
        print_error(f"{what}; {end}")
        sys.stdout.flush()
        os._exit(ExitCode.PEER_LOST)

    @contextlib.contextmanager
    def losing(self, doing):
        """Within it, an error of TensorFlow's ends the process, if there are other members: they are out of step."""
        try:
            yield
        except tf.errors.OpError as error:
            if self.size == 1 or is_out_of_memory(error):
                raise
            self._end(f"{doing} has failed, another member of the cluster is gone ({type(error).__name__})")

    def average(self, tensors):
        """Ops for the means of float32 tensors over all members, done by all of them.

        In one message: many small ones take longer.
        """
        if self.size == 1:
            return tensors
        with tf.device(self._device):
            return cut(self._all_reduce(join(tensors), "Div"), tensors)

    def _all_reduce(self, tensor, final_op):
        return collective_ops.all_reduce(tensor, self.size, GROUP, self._next(), "Add", final_op)

    def _next(self):
        self._instances += 1
        return self._instances

    def sum(self, numbers):
        """The sums over all members of some numbers, done by all of them: float64 [n]."""
        numbers = np.array(numbers, np.float64)
        if self.size == 1:
            return numbers
        if len(numbers) not in self._sums:
            with tf.Graph().as_default(), tf.device(self._device):
                given = tf.placeholder(tf.float64, numbers.shape)
                self._sums[len(numbers)] = self.open_session("cpu"), given, self._all_reduce(given, "Id")
        session, given, total = self._sums[len(numbers)]
        self.allow("waiting for the others")
        with self.losing("waiting for the others"):
            result = session.run(total, {given: numbers})
        self.allow()
        return result

    def share(self, value):
        """What the chief gives, to all members: anything that JSON can hold."""
        if self.size == 1:
            return value
        content = json.dumps(value).encode("ascii") if self.is_chief else b""
        numbers = np.zeros(int(self.sum([len(content)])[0]))
        numbers[: len(content)] = list(content)
        return json.loads(bytes(self.sum(numbers).astype(np.uint8)).decode("ascii"))

    def broadcast(self, session, variables):
        """Give all members the values that variables have in the chief's session."""
        if self.size == 1:
            return
        updates = []
        with tf.device(self._device):
            for dtype in sorted({variable.dtype.base_dtype for variable in variables}, key=str):
                alike = [variable for variable in variables if variable.dtype.base_dtype == dtype]
                joined = join(alike)
                place = joined.shape, dtype, self.size, GROUP, self._next()
                if self.is_chief:
                    updates.append(collective_ops.broadcast_send(joined, *place))
                else:
                    values = cut(collective_ops.broadcast_recv(*place), alike)
                    updates += [tf.assign(variable, value) for variable, value in zip(alike, values)]
        self.allow("waiting for the weights")
        with self.losing("sharing the weights"):
            session.run(tf.group(*updates))
        self.allow()

    def all_or_none(self, work):
        """What work() returns. Where it raises InputError for one member, it does so for all.

        It may not use what all members do together: one of them may not come so far.
        """
        if self.size == 1:
            return work()
        result = error = None
        try:
            result = work()
        except InputError as caught:
            error = caught
        failed = int(self.sum([error is not None])[0])
        if error is not None:
            raise error
        if failed:
            members = "a member" if failed == 1 else f"{failed} members"
            raise InputError(
                f"environment variable TF_CONFIG: found {members} that cannot begin and say why, expected all"
            )
        return result


def check_same(cluster, data):
    """Raise InputError, for all members, unless they have the same images."""
    theirs = cluster.share(data.fingerprint)

    def check():
        if data.fingerprint != theirs:
            expected = "expected files of the same names in the same classes"
            raise InputError(f"setting train_path or valid_path: found other images than the chief has, {expected}")

    cluster.all_or_none(check)


def join(tensors):
    """All numbers of some tensors of one dtype, in a row."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)


def cut(row, tensors):
    """The tensors that join() would make such a row of."""
    parts = tf.split(row, [tensor.shape.num_elements() for tensor in tensors])
    return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors)]


def is_open(address):
    """Whether somebody listens there."""
    try:
        socket.create_connection((host_of(address), port_of(address)), timeout=1).close()
        return True
    except OSError:
        return False
