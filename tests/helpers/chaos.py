"""Kill a training again and again, resume it each time, and compare what comes of it with one that was never killed.

make chaos, or for example: python tests/helpers/chaos.py --kills 30 --model_arch mobilenetv2

A kill is SIGKILL: at a random moment, or while a checkpoint is being written, or, at the end, while the graph is
exported.
"""

import argparse
import collections
import logging
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, REPOSITORY)

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

from utils.checkpoints.manager import CheckpointManager, read_weights  # noqa: E402
from utils.checkpoints.run_index import find_run  # noqa: E402
from utils.commands.prepare import prepare_digits  # noqa: E402

EXPORTS = 2  # kills during the export
EPOCHS = {"lenet5": 24, "mobilenetv2": 16}  # enough for thirty kills
SETTINGS = {
    "lenet5": ["--augment", "crop+flip"],
    "mobilenetv2": ["--augment", "crop+flip", "--width", "0.35", "--img_size", "32", "--batch_size", "64"],
}


class Training:
    """run.py in a process of its own.

    Attributes:
        lines: what it has printed so far.
    """

    def __init__(self, folder, *arguments):
        command = [sys.executable, os.path.join(REPOSITORY, "run.py"), *arguments]
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True
        )
        self.lines = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout))
        self._reader.start()

    def wait_for(self, condition):
        """Until condition() is true; False if the process has ended before."""
        while self.process.poll() is None:
            if condition():
                return True
            time.sleep(0.0005)
        return False

    def epochs(self):
        """Epochs that are done; -1 before the first has begun."""
        epochs = [int(found) for found in re.findall(r"^epoch (\d+)/", "".join(self.lines), re.MULTILINE)]
        return max(epochs, default=0 if any("images to train on" in line for line in self.lines) else -1)

    def end(self):
        """Wait for its end; (exit code, what it printed)."""
        self.process.wait()
        self._reader.join()
        return self.process.returncode, "".join(self.lines)

    def kill(self):
        self.process.kill()
        return self.end()


def is_being_written(folder):
    """Whether there are files in it, or below, that are not complete yet."""
    return any(re.search("tempstate|partial-", name) for _, _, names in os.walk(folder) for name in names)


def chaos(folder, data, model_arch, kills, seed, epochs, exports):
    """Train in `folder`, with so many kills, `exports` of them at its end; returns [(kind of kill, whether it hit)]."""
    dice = random.Random(seed)
    settings = ["--model_arch", model_arch, *SETTINGS[model_arch], "--train_path", data, "--num_epoch", str(epochs)]
    done = []
    moments = sorted(dice.randrange(epochs - 4) for _ in range(kills - exports)) + [epochs] * exports
    for number, moment in enumerate(moments):
        begun = os.path.isfile(os.path.join(folder, "checkpoints", model_arch, "checkpoint"))
        arguments = ["--resume", "--model_arch", model_arch] if begun else settings
        training = Training(folder, *arguments, "--checkpoint_minutes", "0.005")
        kind = "export" if moment == epochs else dice.choice(["any moment", "checkpoint"])
        hit = strike(training, folder, kind, moment, dice)
        code, output = training.kill()
        if code not in (0, -9):
            raise SystemExit(f"a training ended with exit code {code}:\n{output}")
        done.append((kind, hit))
        print(f"kill {number + 1} of {kills}, {kind}, in epoch {moment + 1}: {'hit' if hit else 'missed'}", flush=True)
    code, output = Training(folder, "--resume", "--model_arch", model_arch).end()
    if code:
        raise SystemExit(f"the last training ended with exit code {code}:\n{output}")
    return done


def strike(training, folder, kind, moment, dice):
    """Wait for the moment; False if the training has ended before."""
    if kind == "export":  # of a training that may have nothing left to do but that
        return training.wait_for(lambda: is_being_written(os.path.join(folder, "weights")))
    if not training.wait_for(lambda: training.epochs() >= 0 and training.epochs() >= moment):
        return False
    if kind == "checkpoint":
        return training.wait_for(lambda: is_being_written(os.path.join(folder, "checkpoints")))
    later = time.monotonic() + dice.uniform(0, 0.5)
    return training.wait_for(lambda: time.monotonic() > later)


def differences(folder, other, model_arch):
    """What differs between the runs in two folders, in words; nothing but times may."""
    found = []
    graphs = [os.path.join(place, "weights", model_arch, f"{model_arch}.pb") for place in (folder, other)]
    if len({read(graph) for graph in graphs}) != 1:
        found.append("graph")
    runs = [find_run(os.path.join(place, "checkpoints", model_arch)) for place in (folder, other)]
    weights, others = [read_weights("checkpoint", run.latest()) for run in runs]
    found += [name for name in weights if not np.array_equal(weights[name], others.get(name))]
    found += ["variables"] if set(weights) != set(others) else []
    histories = [[dict(entry, seconds=0) for entry in CheckpointManager(run.folder).history] for run in runs]
    found += ["history"] if histories[0] != histories[1] else []
    logs = [os.path.join(place, "graphs", model_arch, os.path.basename(run.folder))
            for place, run in zip((folder, other), runs)]  # fmt: skip
    curves, other_curves = map(read_curves, logs)
    return found + [f"curve {tag}" for tag in sorted(set(curves) | set(other_curves))
                    if curves.get(tag) != other_curves.get(tag)]  # fmt: skip


def read(path):
    with open(path, "rb") as file:
        return file.read()


def read_curves(log):
    """{tag: [(step, value)]} as TensorBoard reads a run's log; of the speed the steps alone."""
    logging.getLogger("tensorboard").setLevel("ERROR")  # it tells of each resumption
    events = EventAccumulator(log, size_guidance={"scalars": 0, "histograms": 0})
    events.Reload()
    curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    curves["images_per_second"] = [step for step, _ in curves["images_per_second"]]
    for tag in events.Tags()["histograms"]:
        curves[tag] = [(event.step, event.histogram_value) for event in events.Histograms(tag)]
    return curves


def prove(model_arch, kills, seed, epochs, exports=EXPORTS):
    """Train twice, once with kills, and print a report; returns the differences."""
    work = tempfile.mkdtemp()
    try:
        data, straight, killed = [os.path.join(work, name) for name in ("digitspng", "straight", "killed")]
        prepare_digits(data)
        os.mkdir(straight)
        os.mkdir(killed)
        settings = ["--model_arch", model_arch, *SETTINGS[model_arch], "--num_epoch", str(epochs)]
        code, output = Training(straight, *settings, "--train_path", f"{data}/train").end()
        if code:
            raise SystemExit(output)
        done = chaos(killed, f"{data}/train", model_arch, kills, seed, epochs, exports)
        found = differences(straight, killed, model_arch)
    finally:
        shutil.rmtree(work)
    for kind, count in sorted(collections.Counter(kind for kind, hit in done if hit).items()):
        print(f"{model_arch}: {count} kills: {kind}")
    hits = sum(hit for _, hit in done)
    print(f"{model_arch}: {hits} kills in {epochs} epochs; differs: {found or 'nothing'}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("--model_arch", choices=sorted(EPOCHS), action="append", help="default: one after the other")
    options = parser.parse_args()
    found = []
    for model_arch in options.model_arch or sorted(EPOCHS):
        found += prove(model_arch, options.kills, options.seed, EPOCHS[model_arch])
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
