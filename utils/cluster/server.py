"""TensorFlow's server in this process, through which the workers of a cluster exchange tensors."""

import atexit
import socket
import time

from src.console import quiet, say
from src.errors import InputError, first_line
from src.tf1 import session_options, tf
from utils.cluster.tf_config import TF_CONFIG, host_of, port_of
from utils.cluster.watchdog import exit_without_saving

EXIT_LINGER_SECONDS = 1  # before it ends, so that others can still fetch what this worker has sent


class Server:
    """Listens at the port of the worker of that rank until the process ends; `device` is its name in TensorFlow.

    Raises:
        InputError: the port is not free.
    """

    def __init__(self, addresses, rank):
        self._addresses, self._name = addresses, list(addresses)[rank]
        jobs = {}
        for name, address in addresses.items():
            jobs.setdefault(name.split()[0], []).append(address)
        job, index = self._name.split()
        self.device = f"/job:{job}/task:{index}"
        try:
            with quiet():  # gRPC prints its own lines about a port that is not free
                options = self._options("gpu")
                self._server = tf.train.Server(tf.train.ClusterSpec(jobs), job, int(index), config=options)
        except tf.errors.OpError as error:
            expected = f"a free port of this machine ({first_line(error)})"
            raise InputError(TF_CONFIG, f"{addresses[self._name]} for {self._name}", expected) from error
        atexit.register(time.sleep, EXIT_LINGER_SECONDS)  # else they would consider this worker lost

    def _options(self, device):
        options = session_options(device)
        options.isolate_session_state = True
        options.device_filters.append(self.device)
        leader = next(iter(self._addresses)).split()[0]
        options.experimental.collective_group_leader = f"/job:{leader}/replica:0/task:0"
        return options

    def open_session(self, device):
        """Open a session on this server, with the default graph."""
        return tf.Session(self._server.target, config=self._options(device))

    def wait_for_others(self, seconds):
        """Wait until every worker has opened its port; after so many seconds, end the process."""
        missing = [name for name in self._addresses if name != self._name]
        start = printed = time.monotonic()
        while True:
            missing = [name for name in missing if not is_open(self._addresses[name])]
            if not missing:
                return
            names = ", ".join(f"{name} ({self._addresses[name]})" for name in missing)
            now = time.monotonic()
            if now - start > seconds:
                exit_without_saving(f"waited {seconds:g} s for {names}")
            if now - printed > 5:
                printed = now
                say(f"waiting for {names}")
            time.sleep(0.2)


def is_open(address):
    """Whether a process listens there."""
    try:
        socket.create_connection((host_of(address), port_of(address)), timeout=1).close()
        return True
    except OSError:
        return False
