"""What memory a training takes, what a process may have, and trainings that are refused."""

import argparse
import glob
import json
import resource

import numpy as np
import pytest

from src.errors import InputError
from src.settings import settings
from src.tf1 import IS_1_14, tf
from tests.conftest import make_folders, python
from trainer import Trainer
from utils.cluster.collectives import SingleProcess
from utils.training import memory
from utils.training.graph import TrainGraph

MB = 2**20


# Megabytes of two steps, validation and export, as the kernel counted them, of a process of its own: (when the graph
# was built, at most) on TensorFlow 1.14, and on 2.21.
MEASURED = {
    ("lenet5", 32): {32: ((264, 317), (582, 630)), 512: ((264, 422), (582, 678))},
    ("lenet5", 256): {32: ((264, 769), (582, 1180)), 128: ((264, 1416), (582, 1895))},
    ("lenet5", 1024): {4: ((264, 5681), (582, 6921)), 32: ((264, 6021), (582, 9147))},
    ("mobilenetv2", 32): {32: ((341, 590), (619, 866))},
    ("mobilenetv2", 96): {32: ((341, 912), (619, 1151)), 128: ((341, 1879), (619, 2152))},
    ("mobilenetv2", 224): {8: ((341, 967), (619, 1278)), 32: ((341, 2217), (619, 2637))},
}


def learning_graph(model_arch, size):
    config = settings(model_arch=model_arch, img_size=size, classes=["a", "b"], total_class=2)
    with tf.Graph().as_default():
        return config, TrainGraph(config, None, 1, SingleProcess(None))


def resized_graph(learning, size):
    """The same graph for images of another size, without the seconds that building it takes."""
    definition = learning.x.graph.as_graph_def()
    (image,) = [node for node in definition.node if node.name == "Image"]
    for dimension in image.attr["shape"].shape.dim[1:3]:
        dimension.size = size
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
    for variable in learning.x.graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES):
        graph.add_to_collection(tf.GraphKeys.GLOBAL_VARIABLES, variable)
    return argparse.Namespace(x=graph.get_tensor_by_name("Image:0"), variables=learning.variables)


@pytest.fixture(scope="module")
def mobilenetv2():
    return learning_graph("mobilenetv2", 96)


def images_for(batch):
    """As many as the measured trainings had, for two steps and validation."""
    return 2 * (int(np.ceil((2 * batch + 1) / 0.84 / 2)) + 1)


@pytest.mark.parametrize("model_arch, size", MEASURED)
def test_the_estimate_is_within_a_factor_of_1_5_of_what_was_measured(model_arch, size, mobilenetv2):
    if model_arch == "mobilenetv2":
        config, learning = mobilenetv2
        config, learning = argparse.Namespace(**dict(vars(config), img_size=size)), resized_graph(learning, size)
    else:
        config, learning = learning_graph(model_arch, size)
    for batch, runtimes in MEASURED[model_arch, size].items():
        before, measured = runtimes[0 if IS_1_14 else 1]
        estimate = before + memory.memory_needed(config, learning, images_for(batch), batch) / MB
        assert 1 / 1.5 < estimate / measured < 1.5, batch


CHILD = """
import json, resource, sys
import run, trainer
from utils.training import memory

found = {}
def spy(of):
    status = memory.numbers_in("/proc/self/status")
    count = of.data.train.num_examples + of.data.valid.num_examples
    needed = memory.memory_needed(of.config, of.train_graph, count, of.config.batch_size)
    found["estimate"] = 1024 * status["VmRSS"] + needed
trainer.check_memory, check = spy, trainer.check_memory
arguments = ["--img_size", "160", "--device", "cpu", "--test_path", "few", "--train_path"]
found["first"] = run.main(arguments + ["few", "--batch_size", "64"])
found["peak"] = 1024 * memory.numbers_in("/proc/self/status")["VmHWM"]  # ru_maxrss would begin at pytest's

trainer.check_memory = check
def limit(megabytes):
    size = 1024 * memory.numbers_in("/proc/self/status")["VmSize"] + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
limit(600)
found["second"] = run.main(arguments + ["many", "--batch_size", "800"])
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

optimize = trainer.Trainer.optimize
def limited(self):
    limit(30)
    try:
        return optimize(self)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
trainer.Trainer.optimize = limited
found["third"] = run.main(arguments + ["many", "--batch_size", "800"])
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    """(what a process of its own found, its errors): a training, one over ulimit, and one that meets ulimit."""
    folder = tmp_path_factory.mktemp("child")
    make_folders(str(folder / "few"), {"cat": 40, "dog": 40}, size=8)
    make_folders(str(folder / "many"), {"cat": 500, "dog": 500}, size=8)
    done = python("-c", CHILD, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]  # noise teaches nothing
    return json.loads(done.stdout.split("FOUND")[1]), errors, folder


def test_the_estimate_is_within_a_factor_of_1_5_of_a_training_on_this_machine(child):
    found = child[0]
    assert found["first"] == 0
    assert 1 / 1.5 < found["estimate"] / found["peak"] < 1.5


def test_a_training_over_the_limit_of_ulimit_is_refused_in_one_line(child):
    found, errors, _ = child
    assert found["second"] == 2
    assert errors[0].startswith("error: setting batch_size: found 800 at img_size 160, which needs about ")
    assert errors[0].endswith(
        "of available memory; a smaller batch_size or img_size needs less; --memory_check off trains anyway"
    )


def test_a_training_that_meets_the_limit_of_ulimit_ends_in_one_line(child):
    found, errors, folder = child
    assert found["third"] == 2
    assert len(errors) == 2
    assert errors[1].startswith("error: setting batch_size: found 800 at img_size 160, when memory ran out (")
    assert len(glob.glob(str(folder / "checkpoints" / "lenet5" / "2*"))) == 1  # of the first training


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Write files of an imitated kernel, of which nothing else is there: system({"proc/meminfo": text})."""
    monkeypatch.setattr(memory, "PROC", str(tmp_path / "proc"))
    monkeypatch.setattr(memory, "CGROUPS", str(tmp_path / "cgroup"))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


MEMINFO = {"proc/meminfo": "MemTotal: 8000 kB\nMemFree: 1000 kB\nMemAvailable: 5000 kB\n"}


def test_a_system_that_says_nothing_of_its_memory_has_no_known_limit(system):
    assert memory.available_memory() is None


def test_a_process_may_have_what_is_available(system):
    system(MEMINFO)
    assert memory.available_memory() == 5000 * 1024


@pytest.mark.parametrize(
    "line, folder, names, cache",
    [
        ("0::/jobs/mine", "cgroup/jobs", ("memory.max", "memory.current"), "inactive_file"),
        (
            "4:memory:/jobs/mine",
            "cgroup/memory/jobs",
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            "total_inactive_file",
        ),
    ],
)
def test_a_process_may_have_what_the_cgroups_around_it_have_left(system, line, folder, names, cache):
    limit, usage = names
    system(MEMINFO)
    system({"proc/self/cgroup": f"1:cpu:/elsewhere\n{line}\n", f"{folder}/{limit}": "4000000\n"})
    system({f"{folder}/{usage}": "3000000\n", f"{folder}/memory.stat": f"anon 7\n{cache} 500000\n"})
    assert memory.available_memory() == 1500000  # files in memory give way
    system({f"{folder}/mine/{limit}": "2000000\n", f"{folder}/mine/{usage}": "1900000\n"})
    assert memory.available_memory() == 100000
    system({f"{folder}/mine/{limit}": "max\n", f"{folder}/{limit}": "9223372036854771712\n"})
    assert memory.available_memory() == 5000 * 1024


@pytest.mark.parametrize("kind, name", [(resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")])
def test_a_process_may_have_what_ulimit_leaves(system, monkeypatch, kind, name):
    system(MEMINFO)
    system({"proc/self/status": f"{name}:\t 100 kB\nVmRSS:\t 50 kB\n"})
    limits = {kind: 300 * 1024}
    monkeypatch.setattr(resource, "getrlimit", lambda asked: (limits.get(asked, resource.RLIM_INFINITY),) * 2)
    assert memory.available_memory() == 200 * 1024


def test_a_training_that_no_batch_size_saves_is_refused_for_its_img_size(two_classes, run_here, monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "available_memory", lambda: 10 * MB)
    done = run_here("--train_path", two_classes.train_path, "--img_size", "16", "--batch_size", "8", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: setting img_size: found 16 at batch_size 8, which needs about 0.1 GB, expected at ")
    assert glob.glob("checkpoints/lenet5/2*") == []


def test_memory_check_off_trains_all_the_same(two_classes, run_here, monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "available_memory", lambda: 10 * MB)
    monkeypatch.setattr(Trainer, "export", lambda self: "none")
    options = "--train_path", two_classes.train_path, "--img_size", "16", "--batch_size", "8", "--memory_check", "off"
    done = run_here(*options, cwd=tmp_path)
    assert done.returncode == 0 and "error" not in done.stderr and "epoch 1/1: " in done.stdout


def imitated_trainer(devices=("CPU",), world_size=1, launcher=None):
    config, learning = learning_graph("lenet5", 16)
    session = argparse.Namespace(list_devices=lambda: [argparse.Namespace(device_type=device) for device in devices])
    data = argparse.Namespace(train=argparse.Namespace(num_examples=80), valid=argparse.Namespace(num_examples=20))
    cluster = argparse.Namespace(world_size=world_size, launcher=launcher)
    return argparse.Namespace(config=config, train_graph=learning, session=session, data=data, cluster=cluster)


def test_nothing_is_refused_on_a_gpu_whose_memory_is_its_own(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 10 * MB)
    memory.check_memory(imitated_trainer(devices=("CPU", "GPU")))
    with pytest.raises(InputError, match="img_size"):
        memory.check_memory(imitated_trainer())


def test_processes_launched_on_one_machine_share_its_memory(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 160 * MB)
    memory.check_memory(imitated_trainer())
    memory.check_memory(imitated_trainer(world_size=3))  # on machines of their own
    with pytest.raises(InputError, match="in each of 3 processes"):
        memory.check_memory(imitated_trainer(world_size=3, launcher=1))


def test_weights_that_no_graph_can_hold_are_refused_whatever_the_memory(two_classes):
    with pytest.raises(InputError) as caught:
        Trainer(train_path=two_classes.train_path, img_size=4096, batch_size=1, cache_mb=0, memory_check="off")
    weights = 4 * (16 * 1021**2 * 120 + 120)  # fc1; the others have less than a megabyte
    assert f"setting img_size: found 4096, with which lenet5 has weights of {weights / 1e9:.1f} GB" in str(caught.value)
