"""Which processes train together, and which of them this one is: the environment variable TF_CONFIG."""

import json
import re

from src.errors import InputError

SHOWN = 80  # characters of a wrong TF_CONFIG


def read_tf_config(text):
    """(addresses, rank, launcher) of the text of TF_CONFIG; ({}, 0, None) if there is no cluster in it.

    It is JSON such as {"cluster": {"chief": ["host1:2222"], "worker": ["host2:2222"]}, "task": {"type": "worker",
    "index": 0}}. Without a chief, worker 0 is it. Addresses are {"chief 0": host and port, "worker 0": ...}, the chief
    first; the launcher is the process that this one is to end with, or None.
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
        if not isinstance(host, str) or not re.fullmatch(r"\S+:\d{1,5}", host) or not is_valid_address(host):
            refuse(f"{host!r} for {name}", "a host and a port, such as host1:2222")
    if not addresses or "chief 1" in addresses or len(set(addresses.values())) < len(addresses):
        refuse(f"the workers {', '.join(addresses.values())}", "some, one chief at most, and no address twice")


def is_valid_address(address):
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
