"""What training together costs: the time of a step, and of the message in it, with 1, 2 and 4 processes.

make bench, or alone: python tests/cluster_benchmark.py

All members share this machine and its processors, so that the time of a step with several of them tells nothing of
clusters of several machines; what a message takes does, and a table at the end says what would follow from it.
"""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, REPOSITORY)

from utils.commands.prepare import prepare_digits  # noqa: E402
from utils.launch import free_addresses  # noqa: E402

NETWORKS = {"lenet5": {"model_arch": "lenet5"}, "mobilenetv2 96 px": {"model_arch": "mobilenetv2", "img_size": 96}}
STEPS = {"lenet5": 300, "mobilenetv2 96 px": 8}
MESSAGES = (4, 1000, 250000, 9000000)  # bytes
MEMBER = """
import json, sys, time
import numpy as np
from src.tf1 import tf
from trainer import Trainer
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

took = {"step": milliseconds(lambda: trainer.learning.step(session, batch, [0, 0]), steps)}
trained = [variable for variable in trainer.graph.get_collection("trainable_variables")]
moving = [variable for variable in trainer.variables if variable not in trained]
took["bytes"] = 4 * (sum(variable.shape.num_elements() for variable in trained + moving) + 4)
with trainer.graph.as_default(), trainer.graph.device(getattr(cluster, "_device", None)):
    for size in messages if cluster.size > 1 else []:
        op = cluster.average([tf.zeros([size // 4]) + 1])[0].op
        took[str(size)] = milliseconds(lambda: session.run(op), 20)
    if messages and cluster.size > 1:
        parts = [cluster.average([tf.zeros(variable.shape) + 1])[0].op for variable in trained]
        took["one by one"] = milliseconds(lambda: session.run(parts), 20)
        whole = [part.op for part in cluster.average([tf.zeros(variable.shape) + 1 for variable in trained])]
        took["together"] = milliseconds(lambda: session.run(whole), 20)
print("TOOK " + json.dumps(took))
"""


def measure(members, network, data, messages=()):
    """{what: milliseconds} in the chief of a cluster with so many members; 0: without TF_CONFIG."""
    given = dict(NETWORKS[network], train_path=data, device="cpu")
    hosts = free_addresses(max(1, members))
    processes = []
    for member in range(max(1, members)):
        environment = dict(os.environ, PYTHONPATH=REPOSITORY, TF_NUM_INTRAOP_THREADS="1")
        if members:
            task = {"type": "worker" if member else "chief", "index": max(0, member - 1)}
            cluster = {"chief": hosts[:1], "worker": hosts[1:]}
            environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
        arguments = json.dumps([given, STEPS[network], messages])
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", MEMBER, arguments], env=environment, cwd=os.path.dirname(data),
                stdout=subprocess.PIPE, universal_newlines=True,
            )
        )  # fmt: skip
    outputs = [process.communicate()[0] for process in processes]
    return json.loads(outputs[0].split("TOOK ")[1])


def predict(compute, size, took_2, took_4):
    """A table for clusters of other sizes, in which each member has a processor core like this one for itself.

    A ring sends 2 (N - 1) messages one after the other, with 2 (N - 1) / N times all bytes. What a message takes beside
    its bytes is measured with 4 members, what a byte takes in the programs, beside the network, with 2.

    Args:
        compute: milliseconds of a step without others.
        size: bytes all-reduced in it.
        took_2, took_4: milliseconds of messages of MESSAGES bytes, with 2 and with 4 members.
    """
    small, large = str(MESSAGES[1]), str(MESSAGES[-1])
    latency = took_4[small] / 6
    own = (took_2[large] - 2 * latency) / MESSAGES[-1]
    print(f"predicted from {compute:.0f} ms, {latency:.2f} ms a message, {1e-6 / own:.2f} GB/s without a network:")
    print("| members | 10 Gbit/s: ms a step | speed, of one | 100 Gbit/s: ms a step | speed, of one |")
    print("|---|---|---|---|---|")
    for members in (8, 16, 32, 64, 128, 256):
        row = [str(members)]
        for gigabits in (10, 100):
            sent = 2 * (members - 1) / members * size
            step = compute + sent * (own + 8 / (gigabits * 1e6)) + 2 * (members - 1) * latency
            row += [f"{step:.0f}", f"{members * compute / step:.1f}"]
        print("| " + " | ".join(row) + " |", flush=True)


def main():
    with tempfile.TemporaryDirectory() as work:
        prepare_digits(os.path.join(work, "digitspng"))
        data = os.path.join(work, "digitspng", "train")
        for network in NETWORKS:
            pairs = [(measure(0, network, data)["step"], measure(1, network, data)["step"]) for _ in range(3)]
            ratio = np.median([alone / engine for alone, engine in pairs])
            rounds = ", ".join(f"{alone:.2f} / {engine:.2f}" for alone, engine in pairs)
            print(f"{network}: ms a step, alone / one member under TF_CONFIG: {rounds}; speed {ratio:.3f}", flush=True)
            took = {members: measure(members, network, data, MESSAGES) for members in (2, 4)}
            for members in took:
                size = took[members].pop("bytes")
                times = ", ".join(f"{what}: {value:.2f}" for what, value in took[members].items())
                print(f"{network}: {members} members, {size} bytes a step; ms: {times}", flush=True)
            predict(np.median([alone for alone, _ in pairs]), size, took[2], took[4])


if __name__ == "__main__":
    main()
