"""Reads which processes form the cluster, and which of them this is, from the environment variable TF_CONFIG."""

import json
import re

from src.errors import InputError

TF_CONFIG = "environment variable TF_CONFIG"
MAX_SHOWN = 80  # characters of an invalid TF_CONFIG


def read_tf_config(text):
    """(addresses, rank, launcher) in the text of TF_CONFIG; ({}, 0, None) if it has no cluster.

    The text is JSON like {"cluster": {"chief": ["host1:2222"], "worker": ["host2:2222"]}, "task": {"type": "worker",
    "index": 0}}. Without a chief, worker 0 is the chief. Addresses are {"chief 0": "host1:2222", "worker 0": ...}, the
    chief first. The launcher is the ID of the process that started this one, or None.

    Raises:
        InputError: the text is invalid.
    """
    try:
        tf_config = json.loads(text or "{}")
    except (ValueError, RecursionError):
        tf_config = None
    if not isinstance(tf_config, dict):
        raise InputError(TF_CONFIG, repr(text[:MAX_SHOWN]), "a JSON object")
    jobs, task = tf_config.get("cluster"), tf_config.get("task")
    if not jobs:
        return {}, 0, None
    if not isinstance(jobs, dict) or not all(isinstance(hosts, list) for hosts in jobs.values()):
        expected = 'one such as {"chief": ["host1:2222"], "worker": ["host2:2222"]}'
        raise InputError(TF_CONFIG, f"the cluster {jobs!r}", expected)
    if not isinstance(task, dict) or not {"type", "index"} <= set(task):
        raise InputError(TF_CONFIG, f"the task {task!r}", 'one such as {"type": "worker", "index": 0}')
    for job in [*jobs, task["type"]]:
        if job not in ("chief", "worker"):
            raise InputError(TF_CONFIG, f"a task of type {job}", "only chief and worker, which do the same work")
    addresses = {f"{job} {index}": host for job in sorted(jobs) for index, host in enumerate(jobs[job])}
    check_addresses(addresses)
    name = f"{task['type']} {task['index']}"
    if name not in addresses:
        raise InputError(TF_CONFIG, f"the task {name}", f"one of {', '.join(addresses)}")
    return addresses, list(addresses).index(name), tf_config.get("launcher")


def check_addresses(addresses):
    for name, host in addresses.items():
        if not isinstance(host, str) or not re.fullmatch(r"\S+:\d{1,5}", host) or not is_valid_address(host):
            raise InputError(TF_CONFIG, f"{host!r} for {name}", "a host and a port, such as host1:2222")
    if not addresses or "chief 1" in addresses or len(set(addresses.values())) < len(addresses):
        expected = "at least one, at most one chief, and no duplicate address"
        raise InputError(TF_CONFIG, f"the workers {', '.join(addresses.values())}", expected)


def is_valid_address(address):
    """Whether the port is valid and the host is a name that can be looked up."""
    try:
        host_of(address).encode("idna")
    except UnicodeError:  # such as an empty label
        return False
    return 0 < port_of(address) < 65536


def host_of(address):
    return address.rsplit(":", 1)[0].strip("[]")


def port_of(address):
    return int(address.rsplit(":", 1)[1])
