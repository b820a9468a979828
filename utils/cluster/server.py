"""TensorFlow's server in this process, through which the workers of a cluster exchange tensors."""

import atexit
import os
import time

from src.console import quiet, say
from src.errors import InputError, first_line
from src.tf1 import session_options, tf
from utils.cluster.probe import probe_all
from utils.cluster.tf_config import TF_CONFIG, host_of
from utils.cluster.watchdog import PRINT_SECONDS, exit_without_saving

FIRST_PRINT_SECONDS = 5  # until the missing workers are printed; then every PRINT_SECONDS
STRANGER_SECONDS = 10  # for another program, such as a worker of an earlier run, to leave the port of a worker

EXIT_LINGER_SECONDS = 1  # before it ends, so that others can still fetch what this worker has sent


class Server:
    """Listens at the port of the worker of that rank until the process ends.

    Args:
        device: "gpu" or "cpu"; all its sessions share its devices. The attribute `device` is its name in TensorFlow.

    Raises:
        InputError: the port is not free.
    """

    def __init__(self, addresses, rank, device):
        self._addresses, self._name = addresses, list(addresses)[rank]
        exempt_from_proxies(addresses.values())
        jobs = {}
        for name, address in addresses.items():
            jobs.setdefault(name.split()[0], []).append(address)
        job, index = self._name.split()
        self.device = f"/job:{job}/task:{index}"
        try:
            with quiet():  # gRPC prints its own lines about a port that is not free
                options = self._options(device)
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
        """Wait until every other worker answers; after so many seconds, end the process.

        Raises:
            InputError: another program answers at the address of a worker, and still does after STRANGER_SECONDS.
        """
        missing, strangers = self._others(), {}
        start = time.monotonic()
        next_print = start + FIRST_PRINT_SECONDS
        while True:
            answers = probe_all(missing)
            missing = {name: missing[name] for name, answer in answers.items() if not answer.is_worker}
            if not missing:
                return
            now = time.monotonic()
            strangers = {name: strangers.get(name, now) for name in missing if answers[name].is_stranger}
            for name, since in strangers.items():
                if now - since > STRANGER_SECONDS:
                    found = f"{name} ({missing[name]}): {answers[name].text}"
                    raise InputError(TF_CONFIG, found, f"{name} of this cluster, and a port of its own for it")
            names = described(missing, answers)
            if now - start > seconds:
                exit_without_saving(f"waited {seconds:g} s for {names}")
            if now > next_print:
                next_print = now + PRINT_SECONDS
                say(f"waiting for {names}")
            time.sleep(0.2)

    def _others(self):
        return {name: address for name, address in self._addresses.items() if name != self._name}

    def suspects(self):
        """Which other workers may hold this one up, with their addresses, for a message."""
        others = self._others()
        answers = probe_all(others)
        lost = {name: others[name] for name, answer in answers.items() if not answer.is_worker}
        if lost:
            return described(lost, answers)
        names = ", ".join(f"{name} ({address})" for name, address in others.items())
        return f"{names}: running, but late" if len(others) == 1 else f"one of these is late: {names}"


def described(addresses, answers):
    return ", ".join(f"{name} ({address}: {answers[name].text})" for name, address in addresses.items())


def exempt_from_proxies(addresses):
    """Let this process and those that it starts reach these addresses directly: gRPC sends even what goes to 127.0.0.1
    to the proxy of http_proxy. gRPC of 2.x prefers no_grpc_proxy, which that of 1.14 does not know."""
    hosts = list(dict.fromkeys(host_of(address) for address in addresses))
    general = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    for name in ("no_grpc_proxy", "no_proxy"):
        exempted = os.environ.get(name) or general
        os.environ[name] = ",".join([*filter(None, [exempted]), *hosts])
