"""A cluster on this machine: run.py in several processes, which train one network together."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple

from src.console import print_error, say, say_error
from src.errors import ExitCode, InputError

# After these, nothing is started again.
FINAL = (ExitCode.OK, ExitCode.BAD_INPUT, ExitCode.INTERRUPTED, ExitCode.TERMINATED)
AFTER_FAILURE = 3  # seconds in which the others may say what is wrong, and end
AFTER_SIGNAL = 60  # seconds in which all may finish their step, and save
POLL = 0.1  # seconds between two looks at the members

Member = namedtuple("Member", "name process readers")


def launch(command, config, workers, max_restarts):
    """Train in so many processes. When one of them dies, all are started again from the newest checkpoint.

    Args:
        command: run.py and its arguments.
        config: the settings that it has with them, of which device and checkpoint_dir count.
        workers: processes, the chief included.
        max_restarts: how often all are started again.

    Returns:
        The exit code: 0, or that of the first member that failed.
    """
    asked, begun = [], time.time()
    previous = {number: signal.signal(number, lambda number, _: asked.append(number))
                for number in (signal.SIGINT, signal.SIGTERM)}  # fmt: skip
    say(f"starting {workers} process{'es' * (workers > 1)}")
    try:
        for restarts in range(max_restarts + 1):
            has_saved = restarts and is_newer(os.path.join(config.checkpoint_dir, "checkpoint"), begun)
            resume = ["--resume"] if has_saved and "--resume" not in command else []
            name, code = wait(start(command + resume, environments(config, workers)), asked)
            if asked:
                return code and 128 + asked[0]
            if code in FINAL:
                return code
            what = f"starting all again, {restarts + 1} of {max_restarts}" if restarts < max_restarts else "giving up"
            print_error(f"{name} has ended with exit code {code}; {what}")
        return code
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def is_newer(path, seconds):
    return os.path.exists(path) and os.path.getmtime(path) > seconds


def environments(config, workers):
    """The environment variables of each member: its place in the cluster, its GPU, its share of the processors."""
    gpus = find_gpus() if config.device == "gpu" else []
    if 0 < len(gpus) < workers:
        raise InputError(f"--workers: found {workers}, expected at most {len(gpus)}, one for each GPU, or --device cpu")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    hosts = free_addresses(workers)
    for number in range(workers):
        task = {"type": "worker", "index": number - 1} if number else {"type": "chief", "index": 0}
        cluster = {"chief": hosts[:1], "worker": hosts[1:]}
        tf_config = json.dumps({"cluster": cluster, "task": task, "launcher": os.getpid()})
        gpu = {"CUDA_VISIBLE_DEVICES": gpus[number]} if gpus else {}
        threads = {"TF_NUM_INTRAOP_THREADS": str(max(1, cores // workers))}
        yield {**threads, **os.environ, "TF_CONFIG": tf_config, **gpu}


def find_gpus():
    """The numbers of the GPUs that may be used, as CUDA_VISIBLE_DEVICES takes them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [number for number in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if number not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    return subprocess.run(query, stdout=subprocess.PIPE, universal_newlines=True).stdout.split()


def free_addresses(count):
    """Addresses that no other machine can name, with ports that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{free.getsockname()[1]}" for free in sockets]


def start(command, environments):
    """Start the members; returns the list of them, the chief first."""
    members = []
    for number, environment in enumerate(environments):
        try:
            members.append(start_member(command, environment, f"worker {number - 1}" if number else "chief"))
        except OSError as error:
            tell(members, signal.SIGKILL)
            expected = f"expected fewer, for this machine could start no more than {number}"
            raise InputError(f"--workers: found too many processes ({error}), {expected}") from error
    return members


def start_member(command, environment, name):
    process = subprocess.Popen(
        [sys.executable, *command], env=environment, stdin=subprocess.DEVNULL, universal_newlines=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, errors="backslashreplace",
        start_new_session=True,  # or Ctrl-C in a terminal would reach it twice
    )  # fmt: skip
    streams = (process.stdout, say), (process.stderr, say_error)
    readers = [threading.Thread(target=relay, args=(name, *stream), daemon=True) for stream in streams]
    for reader in readers:
        reader.start()
    return Member(name, process, readers)


def relay(name, source, print_line):
    """Print each line that a member prints, after its name."""
    for line in source:
        print_line(f"{name}: {line}".rstrip("\n"))


def wait(members, asked):
    """Until all have ended; returns (name, exit code) of the first that failed, or of the chief.

    Signals that come in the meantime are passed on. When a member dies, the others are ended.

    Args:
        asked: the list of the signals that have come.
    """
    failed, told, end = None, 0, None
    while any(member.process.poll() is None for member in members):
        time.sleep(POLL)
        for number in asked[told:]:
            tell(members, number)
            told, end = told + 1, time.monotonic() + AFTER_SIGNAL
        failed = failed or first_failed(members)
        if failed and end is None:
            was_asked = failed[1] in (ExitCode.INTERRUPTED, ExitCode.TERMINATED)
            end = time.monotonic() + (AFTER_SIGNAL if was_asked else AFTER_FAILURE)
        if end is not None and time.monotonic() > end:
            tell(members, signal.SIGKILL)
    for member in members:
        for reader in member.readers:
            reader.join()
    return failed or first_failed(members) or (members[0].name, ExitCode.OK)


def first_failed(members):
    """(name, exit code) of a member that has failed, rather not of one that has only lost another; or None."""
    codes = [(member.name, member.process.poll()) for member in members]
    codes = [(name, 128 - code if code < 0 else code) for name, code in codes if code]
    return min(codes, key=lambda member: member[1] == ExitCode.PEER_LOST, default=None)


def tell(members, number):
    """Send a signal to those that are there."""
    for member in members:
        if member.process.poll() is None:
            member.process.send_signal(number)
