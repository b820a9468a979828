"""What may stand between workers: a proxy, other programs at their ports; and who is named when one is late."""

import contextlib
import http.server
import os
import re
import signal
import socketserver
import sys
import threading
import time
import urllib.request

import pytest

from src.errors import InputError
from src.tf1 import tf
from tests.helpers.cluster_launch import RUN_PY, of_digits
from tests.helpers.cluster_workers import environment, run_main, start_workers
from tests.helpers.processes import Started
from utils.cluster import server, watchdog
from utils.cluster.launch import free_addresses
from utils.cluster.probe import probe
from utils.cluster.server import Server, exempt_from_proxies
from utils.cluster.watchdog import Watchdog


def test_workers_reach_each_other_whatever_the_proxy(folders, in_tmp_path, monkeypatch):
    """One that cannot be reached, at a port where nobody listens."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    data = ["--train_path", folders({"cat": 20, "dog": 20}), "--img_size", "16", "--batch_size", "4"]
    ends = ["--num_epoch", "1", "--step_timeout", "10", "--cluster_timeout", "20"]
    for worker in start_workers(2, run_main, *data, *ends):
        code, errors = worker.end(100)
        assert code == 0, errors


@pytest.mark.parametrize("before, others", [({}, []), ({"no_proxy": "a.de,b.de"}, ["a.de", "b.de"]),
                                            ({"NO_PROXY": "c.de"}, ["c.de"])])  # fmt: skip
def test_addresses_are_exempted_beside_those_that_were(monkeypatch, before, others):
    """As Python's own reader of these variables finds, which most programs have."""
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"no_grpc_proxy": "d.de", **before}.items():
        monkeypatch.setenv(name, value)
    exempt_from_proxies(["127.0.0.1:2222", "host1:2222", "[::1]:3333"])
    for host in ("127.0.0.1", "host1", *others):
        assert urllib.request.proxy_bypass_environment(host), host
    assert not urllib.request.proxy_bypass_environment("host2")
    found = [os.environ[name] for name in ("no_grpc_proxy", "no_proxy")]
    assert found == [",".join([*names, "127.0.0.1", "host1", "::1"]) for names in (["d.de"], others)]


class Silent(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.recv(1000)
        time.sleep(5)


class Closing(socketserver.BaseRequestHandler):
    def handle(self):
        pass


class Greeting(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


class OtherHttp2(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))  # no settings


class Web(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def listening(handler):
    """The address of a server of this process."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as listener:
        listener.daemon_threads = True
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{listener.server_address[1]}"
        listener.shutdown()


@pytest.mark.parametrize("handler, is_stranger, text", [
    (Silent, False, "something listens there, but does not answer"),
    (Closing, False, "something listens there, but does not answer"),
    (Greeting, True, "another program listens there, which answers 'SSH-2.0-OpenSSH_9.2'"),
    (OtherHttp2, True, "another program listens there, which answers over HTTP/2, but not as TensorFlow does"),
    (Web, True, "another program listens there, which answers .*(HTTP|DOCTYPE).*"),
])  # fmt: skip
def test_other_programs_are_told_from_a_worker(handler, is_stranger, text):
    with listening(handler) as address:
        found = probe("worker 0", address)
    assert (found.is_worker, found.is_stranger) == (False, is_stranger)
    assert re.fullmatch(text, found.text), found.text


def test_a_worker_is_told_from_the_others():
    hosts = free_addresses(2)
    tf.train.Server(tf.train.ClusterSpec({"chief": hosts[:1], "worker": hosts[1:]}), "worker", 0)
    assert probe("worker 0", hosts[1]) == (True, False, "answers")
    assert probe("worker 1", hosts[1]) == (False, True, "worker 0 of a cluster listens there")
    assert probe("chief 0", hosts[0]) == (False, False, "cannot be reached (Connection refused)")


def test_another_program_at_the_address_of_a_worker_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(server, "FIRST_PRINT_SECONDS", 0)
    monkeypatch.setattr(server, "PRINT_SECONDS", 0.5)
    monkeypatch.setattr(server, "STRANGER_SECONDS", 1.2)
    with listening(Greeting) as address:
        addresses = {"chief 0": free_addresses(1)[0], "worker 0": address}
        with pytest.raises(InputError) as refused:
            Server(addresses, 0, "cpu").wait_for_others(60)
    found = f"worker 0 ({address}): another program listens there, which answers 'SSH-2.0-OpenSSH_9.2'"
    assert str(refused.value).startswith(f"environment variable TF_CONFIG: found {found}, expected worker 0 of this")
    waiting = f"waiting for worker 0 ({address}: another program listens there, which answers 'SSH-2.0-OpenSSH_9.2')\n"
    assert capsys.readouterr().out in (2 * waiting, 3 * waiting)


def test_it_is_printed_again_and_again_who_is_late(monkeypatch, capsys):
    monkeypatch.setattr(watchdog, "PRINT_SECONDS", 1)
    made = []
    thread = threading.Thread(target=lambda: made.append(Watchdog(None, lambda: "worker 0 (a:1): late")))
    thread.start()  # in a thread of its own, it leaves signals alone
    thread.join()
    with made[0].deadline("step 7", 100):
        time.sleep(2.7)
    time.sleep(1.5)  # it is done by now
    expected = [f"step 7: {seconds} of 100 s; worker 0 (a:1): late" for seconds in (1, 2)]
    assert capsys.readouterr().out.splitlines() == expected


def test_a_worker_that_died_is_named(digits, in_tmp_path):
    command = [sys.executable, RUN_PY, *of_digits(digits, 1000), "--step_timeout", "15", "--cluster_timeout", "30"]
    hosts = free_addresses(2)
    chief, worker = [Started(command, environment(hosts, rank), f"output{rank}") for rank in range(2)]
    chief.wait_for("epoch 1/1000")
    worker.process.send_signal(signal.SIGKILL)
    code, output = chief.end()
    assert code == 138, output
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    named = re.escape(f"worker 0 ({hosts[1]}: cannot be reached (Connection refused)); exiting without saving")
    assert re.search(rf"(timed out|failed \(\w+\)); {named}", error), error


@pytest.mark.parametrize("count, expected", [
    (2, r"worker 0 \(\S+\): running, but late"),
    (3, r"one of these is late: worker 0 \(\S+\), worker 1 \(\S+\)"),
])  # fmt: skip
def test_who_answers_may_still_be_late(count, expected):
    """Its Python may be stuck, in reading an image for one."""
    names = ["chief 0", "worker 0", "worker 1"][:count]
    addresses = dict(zip(names, free_addresses(count)))
    servers = [Server(addresses, rank, "cpu") for rank in range(count)]
    assert re.fullmatch(expected, servers[0].suspects())
