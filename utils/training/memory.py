"""Memory: how much training needs, how much this process may use, and the error when it runs out.

The kernel, or C++, ends a process that takes too much, which Python cannot catch. So the need is estimated before the
variables are allocated; docs/benchmarks.md compares the estimate with measurements.
"""

import functools
import os

import numpy as np

from src.errors import InputError, OutOfMemoryError, first_line, gpu_memory_hint, is_out_of_memory
from src.system import free_memory, ulimits
from src.tf1 import tf
from utils.images.loader import inference_batch, prefetch_bytes

PROC, CGROUPS = "/proc", "/sys/fs/cgroup"
EXPORT_COPIES = 9  # of the weights while they are frozen: arrays, constants, and successive graphs
MAX_GRAPH_BYTES = 2**31 - 2**20  # weights in a frozen graph: its format, protobuf, is limited to 2 GB
SESSION_BYTES = 64 * 2**20  # TensorFlow's own when it runs a graph: threads, and copies of the graph
SHAPE_OPS = ("Shape", "ShapeN", "Size", "Rank")  # do not read the values of their inputs
# Files of a cgroup, version 2 and version 1: limit, usage, and the field of memory.stat with the cached files in it.
CGROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def check_memory(trainer):
    """Raise InputError if training needs more memory than there is, or its graph is too large to export.

    On a GPU, only the latter is checked: TensorFlow itself reports when GPU memory runs out.

    Args:
        trainer: a Trainer with config, data, train_graph and session, whose variables are not initialized yet.
    """
    config, cluster, train_graph = trainer.config, trainer.cluster, trainer.train_graph
    size, batch = config.img_size, config.batch_size
    weights = sum(map(variable_bytes, train_graph.variables))
    if weights > MAX_GRAPH_BYTES:
        found = f"{size}, with which {config.model_arch} has weights of {gigabytes(weights)}"
        raise InputError("setting img_size", found, "less than 2 GB, the most that can be exported")
    available = available_memory()
    on_gpu = any(device.device_type == "GPU" for device in trainer.session.list_devices())
    if config.memory_check == "off" or on_gpu or available is None:
        return
    images = trainer.data.train.num_examples + trainer.data.valid.num_examples
    needed, least = (memory_needed(config, train_graph, images, count) for count in (batch, 1))
    processes = cluster.world_size if cluster.launcher else 1  # launched processes share this machine's memory
    if processes * needed > available:
        setting, found, remedy = "batch_size", f"{batch} at img_size {size}", "batch_size or img_size"
        if processes * least > available:
            setting, found, remedy = "img_size", f"{size} at batch_size {batch}", "img_size"
        found += f", which needs about {gigabytes(needed)}" + f" in each of {processes} processes" * (processes > 1)
        expected = f"at most the {gigabytes(available)} of available memory"
        hint = f"a smaller {remedy} needs less; --memory_check off trains anyway"
        raise InputError(f"setting {setting}", found, expected, hint)


def memory_needed(config, train_graph, images, batch_size):
    """Bytes that training needs, beyond those of the process once the graph is built.

    Variables, among them Adam's two moments of each trained weight, and cached images; plus the largest of a training
    step and validation, both with prefetched batches, and export.
    """
    graph = train_graph.x.graph
    operations = graph.get_operations()
    backward = {operation for operation in operations if operation.name.startswith("gradients/")}
    read = {tensor for operation in backward if operation.type not in SHAPE_OPS for tensor in operation.inputs}
    kept = sum(bytes_per_image(tensor) for tensor in read if tensor.op not in backward)  # activations for backprop
    flow = max(sum(map(bytes_per_image, [*operation.inputs, *operation.outputs])) for operation in operations)

    weights = sum(map(variable_bytes, train_graph.variables))
    variables = sum(map(variable_bytes, graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)))
    gradients = (variables - weights) / 2  # as large as one of the two moments
    all_images = images * config.img_size**2 * config.numchannels  # uint8
    cache = min(config.cache_mb * 2**20, all_images)
    ahead = min(prefetch_bytes(config.img_size, batch_size), 4 * all_images)  # float32
    step = gradients + batch_size * (kept + flow)  # at its peak, with the activation gradients of the largest layer
    validation = inference_batch(config.img_size) * flow
    return SESSION_BYTES + variables + cache + max(max(step, validation) + ahead, EXPORT_COPIES * weights)


def variable_bytes(variable):
    return variable.shape.num_elements() * variable.dtype.base_dtype.size


def bytes_per_image(tensor):
    """Bytes of one image's part of a tensor [None, ...]; 0 for any other shape."""
    shape = tensor.shape.as_list() if tensor.shape.ndims else [0]
    if shape[0] is not None or None in shape[1:]:
        return 0
    return int(np.prod(shape[1:])) * tensor.dtype.base_dtype.size


def available_memory():
    """Bytes that this process can still allocate, limited by machine, cgroups and ulimit; None if unknown."""
    status = numbers_in(os.path.join(PROC, "self", "status"))
    available = 1024 * numbers_in(os.path.join(PROC, "meminfo")).get("MemAvailable", 0) or free_memory()
    limits = [available] if available else []
    limits += [limit - 1024 * status[name] for limit, name in ulimits() if name in status]
    for folder in cgroups():
        for limit, usage, cache in CGROUP_FILES:
            limit, usage = (read_number(os.path.join(folder, name)) for name in (limit, usage))
            if None not in (limit, usage):
                limits.append(limit - usage + numbers_in(os.path.join(folder, "memory.stat")).get(cache, 0))
    return max(0, min(limits)) if limits else None


def cgroups():
    """The folders of this process's cgroups and of their ancestors, which limit it as well."""
    for line in read_lines(os.path.join(PROC, "self", "cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            root, parts = os.path.join(CGROUPS, controllers), path.strip("/").split("/")
            for count in range(len(parts) + 1):
                yield os.path.join(root, *parts[:count])


def numbers_in(path):
    """{name: number} of a file with lines like "VmSize:  1024 kB" or "inactive_file 4096"."""
    words = [line.replace(":", " ").split() for line in read_lines(path)]
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdigit()}


def read_number(path):
    lines = read_lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None  # "max": no limit


def read_lines(path):
    """The lines of a kernel file; [] if it does not exist."""
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []


def gigabytes(number):
    return f"{number / 1e9:.1f} GB"


def explaining_memory(trainer_class):
    """Class decorator: running out of memory in a Trainer becomes an InputError that names what to reduce."""
    for name in ("__init__", "optimize", "evaluate", "export"):
        setattr(trainer_class, name, explaining_memory_in(getattr(trainer_class, name)))
    return trainer_class


def explaining_memory_in(method):
    """The same for one method."""

    @functools.wraps(method)
    def call(self, *arguments, **options):
        try:
            return method(self, *arguments, **options)
        except Exception as error:
            config, last = getattr(self, "config", None), getattr(self, "last_checkpoint", None)
            if config is None or not is_out_of_memory(error):
                raise
            found = f"{config.batch_size} at img_size {config.img_size}, when memory ran out ({first_line(error)})"
            hints = [f"last checkpoint: {last or 'none yet'}", gpu_memory_hint(error)]
            expected, hint = "a smaller batch_size or img_size", "; ".join(filter(None, hints))
            raise OutOfMemoryError("setting batch_size", found, expected, hint) from error

    return call
