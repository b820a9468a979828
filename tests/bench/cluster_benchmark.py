"""What training together costs: the time of a step, and of the message in it, with 1, 2 and 4 processes.

make bench, or alone: python tests/bench/cluster_benchmark.py

All workers share this machine and its processors, so that the time of a step with several of them tells nothing of
clusters of several machines; what a message takes does, and a table at the end says what would follow from it.
"""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, REPOSITORY)

from utils.cluster.launch import free_addresses  # noqa: E402
from utils.commands.prepare import prepare_digits  # noqa: E402

NETWORKS = {"lenet5": {"model_arch": "lenet5"}, "mobilenetv2 96 px": {"model_arch": "mobilenetv2", "img_size": 96}}
STEPS = {"lenet5": 300, "mobilenetv2 96 px": 8}
MESSAGES = (4, 1000, 250000, 9000000)  # bytes
WORKER = """
import json, sys, time
import numpy as np
from src.tf1 import tf
from trainer import Trainer
from utils.training.graph import Requests
given, steps, messages = json.loads(sys.argv[1])
trainer = Trainer(**given)
cluster, session = trainer.cluster, trainer.session
batch = trainer.data.train.next_batch(32)

def milliseconds(run, times):
    run(), run()
    start = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - start) / times * 1000

took = {"step": milliseconds(lambda: trainer.train_graph.step(session, batch, Requests(0, 0)), steps)}
trained = [variable for variable in trainer.graph.get_collection("trainable_variables")]
moving = [variable for variable in trainer.variables if variable not in trained]
took["bytes"] = 4 * (sum(variable.shape.num_elements() for variable in trained + moving) + 4)
if messages:
    with tf.Graph().as_default(), cluster.open_session("cpu") as session:
        for size in messages:
            message = cluster.all_reduce_mean(tf.zeros([size // 4]) + 1).op
            took[str(size)] = milliseconds(lambda: session.run(message), 20)
        parts = [cluster.all_reduce_mean(tf.zeros(variable.shape) + 1).op for variable in trained]
        took["one by one"] = milliseconds(lambda: session.run(parts), 20)
        whole = [part.op for part in cluster.all_reduce_mean([tf.zeros(variable.shape) + 1 for variable in trained])]
        took["together"] = milliseconds(lambda: session.run(whole), 20)
print("TOOK " + json.dumps(took))
"""


def measure(workers, network, data, messages=()):
    """{what: milliseconds} in the chief of a cluster with so many workers; one is a process alone."""
    given = dict(NETWORKS[network], train_path=data, device="cpu")
    hosts = free_addresses(workers)
    processes = []
    for rank in range(workers):
        environment = dict(os.environ, PYTHONPATH=REPOSITORY, TF_NUM_INTRAOP_THREADS="1")
        task = {"type": "worker" if rank else "chief", "index": max(0, rank - 1)}
        cluster = {"chief": hosts[:1], "worker": hosts[1:]}
        environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
        arguments = json.dumps([given, STEPS[network], messages])
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER, arguments], env=environment, cwd=os.path.dirname(data),
                stdout=subprocess.PIPE, universal_newlines=True,
            )
        )  # fmt: skip
    outputs = [process.communicate()[0] for process in processes]
    return json.loads(outputs[0].split("TOOK ")[1])


def predict(compute, size, took_2, took_4):
    """A table for clusters of other sizes, in which each worker has a processor core like this one for itself.

    A ring sends 2 (N - 1) messages one after the other, with 2 (N - 1) / N times all bytes. What a message takes beside
    its bytes is measured with 4 workers, what a byte takes in the programs, beside the network, with 2.

    Args:
        compute: milliseconds of a step without others.
        size: bytes all-reduced in it.
        took_2, took_4: milliseconds of messages of MESSAGES bytes, with 2 and with 4 workers.
    """
    small, large = str(MESSAGES[1]), str(MESSAGES[-1])
    latency = took_4[small] / 6
    own = (took_2[large] - 2 * latency) / MESSAGES[-1]
    print(f"predicted from {compute:.0f} ms, {latency:.2f} ms a message, {1e-6 / own:.2f} GB/s without a network:")
    print("| workers | 10 Gbit/s: ms a step | speed, of one | 100 Gbit/s: ms a step | speed, of one |")
    print("|---|---|---|---|---|")
    for workers in (8, 16, 32, 64, 128, 256):
        row = [str(workers)]
        for gigabits in (10, 100):
            sent = 2 * (workers - 1) / workers * size
            step = compute + sent * (own + 8 / (gigabits * 1e6)) + 2 * (workers - 1) * latency
            row += [f"{step:.0f}", f"{workers * compute / step:.1f}"]
        print("| " + " | ".join(row) + " |", flush=True)


def main():
    with tempfile.TemporaryDirectory() as work:
        prepare_digits(os.path.join(work, "digitspng"))
        data = os.path.join(work, "digitspng", "train")
        for network in NETWORKS:
            alone = [measure(1, network, data)["step"] for _ in range(3)]
            print(f"{network}: ms a step, one process: {', '.join(f'{step:.2f}' for step in alone)}", flush=True)
            took = {workers: measure(workers, network, data, MESSAGES) for workers in (2, 4)}
            for workers in took:
                size = took[workers].pop("bytes")
                times = ", ".join(f"{what}: {value:.2f}" for what, value in took[workers].items())
                print(f"{network}: {workers} workers, {size} bytes a step; ms: {times}", flush=True)
            predict(np.median(alone), size, took[2], took[4])


if __name__ == "__main__":
    main()
