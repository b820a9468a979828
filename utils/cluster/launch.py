"""Launches a cluster on this machine: several processes of run.py that train one network together."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple

from src.console import print_error, say, say_error
from src.errors import ExitCode, InputError
from src.gpu import find_gpus
from src.system import cores, forward

NO_RESTART = (ExitCode.OK, ExitCode.BAD_INPUT, ExitCode.INTERRUPTED, ExitCode.TERMINATED)
AFTER_FAILURE = 3  # seconds for the other workers to report errors and exit, before they are killed
AFTER_SIGNAL = 60  # seconds for all workers to finish their step and save, before they are killed
POLL_INTERVAL = 0.1  # seconds

Worker = namedtuple("Worker", "name process readers")


def launch(command, config, workers, max_restarts):
    """Train in several processes. If one of them dies, all are restarted from the latest checkpoint.

    Args:
        command: run.py and its arguments.
        config: the settings, of which device and checkpoint_dir are used.
        workers: number of processes, including the chief.
        max_restarts: how often all are restarted at most.

    Returns:
        The exit code: 0, or that of the first worker that failed.
    """
    received_signals, begun = [], time.time()

    def remember(number, frame):
        received_signals.append(number)

    previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    say(f"starting {workers} process{'es' * (workers > 1)}")
    try:
        for restarts in range(max_restarts + 1):
            has_saved = restarts and is_newer(os.path.join(config.checkpoint_dir, "checkpoint"), begun)
            resume = ["--resume"] if has_saved and "--resume" not in command else []
            name, code = wait(start(command + resume, environments(config, workers)), received_signals)
            if received_signals:
                return code and 128 + received_signals[0]
            if code in NO_RESTART:
                return code
            restart = f"restarting all workers ({restarts + 1} of {max_restarts})"
            print_error(f"{name} exited with code {code}; {restart if restarts < max_restarts else 'giving up'}")
        return code
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def is_newer(path, seconds):
    return os.path.exists(path) and os.path.getmtime(path) > seconds


def environments(config, workers):
    """The environment variables of each worker, with its task in the cluster, its GPU, and its number of threads."""
    gpus = find_gpus() if config.device == "gpu" else []
    if 0 < len(gpus) < workers:
        raise InputError("--workers", workers, f"at most {len(gpus)}, one for each GPU, or --device cpu")
    hosts = free_addresses(workers)
    for number in range(workers):
        task = {"type": "worker", "index": number - 1} if number else {"type": "chief", "index": 0}
        cluster = {"chief": hosts[:1], "worker": hosts[1:]}
        tf_config = json.dumps({"cluster": cluster, "task": task, "launcher": os.getpid()})
        gpu = {"CUDA_VISIBLE_DEVICES": gpus[number]} if gpus else {}
        threads = {"TF_NUM_INTRAOP_THREADS": str(max(1, cores() // workers))}
        yield {**threads, **os.environ, "TF_CONFIG": tf_config, **gpu}


def free_addresses(count):
    """Addresses that only this machine can reach, with ports that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{free.getsockname()[1]}" for free in sockets]


def start(command, environments):
    """Start the workers; returns the list of them, the chief first."""
    workers = []
    for number, environment in enumerate(environments):
        try:
            workers.append(start_worker(command, environment, f"worker {number - 1}" if number else "chief"))
        except OSError as error:
            kill_all(workers)
            raise InputError("--workers", f"too many processes ({error})", f"at most {number} here") from error
    return workers


def start_worker(command, environment, name):
    process = subprocess.Popen(
        [sys.executable, *command], env=environment, stdin=subprocess.DEVNULL, universal_newlines=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, errors="backslashreplace",
        start_new_session=True,  # else Ctrl-C in a terminal would reach it twice
    )  # fmt: skip
    streams = (process.stdout, say), (process.stderr, say_error)
    readers = [threading.Thread(target=relay, args=(name, *stream), daemon=True) for stream in streams]
    for reader in readers:
        reader.start()
    return Worker(name, process, readers)


def relay(name, source, print_line):
    """Print each line of a worker's output, prefixed with its name."""
    for line in source:
        print_line(f"{name}: {line}".rstrip("\n"))


def wait(workers, received_signals):
    """Wait until all workers have ended; returns (name, exit code) of the first that failed, or of the chief.

    Signals are forwarded to the workers. If a worker dies, the others are killed.

    Args:
        received_signals: a list to which the signal handler appends.
    """
    failed, end, sent = None, None, 0  # `sent`: how many of the signals were forwarded
    while any(worker.process.poll() is None for worker in workers):
        time.sleep(POLL_INTERVAL)
        for number in received_signals[sent:]:
            send_signal_to_all(workers, number)
            sent += 1
            end = time.monotonic() + AFTER_SIGNAL
        failed = failed or first_failed(workers)
        if failed and end is None:
            was_asked = failed[1] in (ExitCode.INTERRUPTED, ExitCode.TERMINATED)
            end = time.monotonic() + (AFTER_SIGNAL if was_asked else AFTER_FAILURE)
        if end is not None and time.monotonic() > end:
            kill_all(workers)
    for worker in workers:
        for reader in worker.readers:
            reader.join()
    return failed or first_failed(workers) or (workers[0].name, ExitCode.OK)


def first_failed(workers):
    """(name, exit code) of a failed worker, preferably not one that only lost its peers; None if none failed."""
    codes = [(worker.name, worker.process.poll()) for worker in workers]
    # Popen gives -9 for a process that SIGKILL ended, shells give 128 + 9.
    codes = [(name, 128 - code if code < 0 else code) for name, code in codes if code]
    return min(codes, key=lambda worker: worker[1] == ExitCode.PEER_LOST, default=None)


def send_signal_to_all(workers, number):
    """Send a signal to the workers that are still running."""
    for worker in workers:
        if worker.process.poll() is None:
            forward(worker.process, number)


def kill_all(workers):
    for worker in workers:
        worker.process.kill()  # unless it has ended
