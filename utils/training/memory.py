"""Memory: what a training takes, what this process may have, and what to say when it runs out.

A process that takes too much is ended by the kernel, or by C++, which no Python can catch. So a training is judged
before its first weight gets memory. docs/benchmarks.md compares the estimate with what was measured.
"""

import functools
import os
import resource

import numpy as np

from src.errors import InputError, OutOfMemoryError, first_line, is_out_of_memory
from src.tf1 import tf
from utils.images.loader import inference_batch, prefetch_bytes

PROC, CGROUPS = "/proc", "/sys/fs/cgroup"
EXPORT_COPIES = 9  # of the weights while they are frozen: arrays, constants, and graphs that are made of graphs
LARGEST_GRAPH = 2**31 - 2**20  # bytes of weights in a frozen graph: its format, protobuf, ends at 2 GB
SESSION_BYTES = 64 * 2**20  # TensorFlow's own when it runs a graph: threads, and copies of the graph
SHAPES = ("Shape", "ShapeN", "Size", "Rank")  # operations that look at no numbers
# Files of a cgroup, of version 2 and of version 1: its limit, its usage, and what memory.stat calls the part of it that
# is only a copy of files.
CGROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def check_memory(trainer):
    """Raise InputError if a training would take more memory than there is, or make a graph too large to export.

    On a GPU, only the latter: its memory is another. TensorFlow says when that is not enough.

    Args:
        trainer: a Trainer with config, data, learning and session, whose variables have no values yet.
    """
    config = trainer.config
    size, batch = config.img_size, config.batch_size
    weights = sum(map(variable_bytes, trainer.learning.variables))
    if weights > LARGEST_GRAPH:
        found = f"found {size}, with which {config.model_arch} has weights of {gigabytes(weights)}"
        raise InputError(f"setting img_size: {found}, expected less than 2 GB, as more cannot be exported")
    left = memory_left()
    on_gpu = any(device.device_type == "GPU" for device in trainer.session.list_devices())
    if config.memory_check == "off" or on_gpu or left is None:
        return
    images = trainer.data.train.num_examples + trainer.data.valid.num_examples
    needed, least = (memory_needed(config, trainer.learning, images, count) for count in (batch, 1))
    processes = (
        trainer.cluster.world_size if trainer.cluster.launcher else 1
    )  # on this machine, and so share its memory
    if processes * needed > left:
        found = f"setting batch_size: found {batch} at img_size {size}"
        advice = "a smaller batch_size or img_size takes less"
        if processes * least > left:
            found, advice = f"setting img_size: found {size} at batch_size {batch}", "a smaller img_size takes less"
        found += f", which takes some {gigabytes(needed)}" + f" in each of {processes} processes" * (processes > 1)
        expected = f"expected at most the {gigabytes(left)} of memory that are left"
        raise InputError(f"{found}, {expected}; {advice}; --memory_check off trains all the same")


def memory_needed(config, learning, images, batch_size):
    """Bytes that a training takes, beside what the process has when the graph is built.

    Weights, Adam's two moments of each that learns, and decoded images in memory; and the largest of: a training step,
    validation, each with batches read ahead, and the export.
    """
    graph = learning.x.graph
    operations = graph.get_operations()
    backward = {operation for operation in operations if operation.name.startswith("gradients/")}
    read = {tensor for operation in backward if operation.type not in SHAPES for tensor in operation.inputs}
    kept = sum(bytes_of_one(tensor) for tensor in read if tensor.op not in backward)  # of the forward pass, by an image
    flow = max(sum(map(bytes_of_one, [*operation.inputs, *operation.outputs])) for operation in operations)

    weights = sum(map(variable_bytes, learning.variables))
    variables = sum(map(variable_bytes, graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)))
    gradients = (variables - weights) / 2  # as many as moments
    all_images = images * config.img_size**2 * 3  # of 8 bits
    cache = min(config.cache_mb * 2**20, all_images)
    ahead = min(prefetch_bytes(config.img_size, batch_size), 4 * all_images)  # of 32 bits
    step = gradients + batch_size * (kept + flow)  # at its peak it has the gradients of the largest layer as well
    validation = inference_batch(config.img_size) * flow
    return SESSION_BYTES + variables + cache + max(max(step, validation) + ahead, EXPORT_COPIES * weights)


def variable_bytes(variable):
    return variable.shape.num_elements() * variable.dtype.base_dtype.size


def bytes_of_one(tensor):
    """What an image's part of a tensor [None, ...] takes; 0 for one of another shape."""
    shape = tensor.shape.as_list() if tensor.shape.ndims else [0]
    if shape[0] is not None or None in shape[1:]:
        return 0
    return int(np.prod(shape[1:])) * tensor.dtype.base_dtype.size


def memory_left():
    """Bytes that this process can still take: of the machine, of its cgroups, and of ulimit; None if unknown."""
    status = numbers_in(os.path.join(PROC, "self", "status"))
    left = [1024 * value for value in [numbers_in(os.path.join(PROC, "meminfo")).get("MemAvailable")] if value]
    for kind, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY and name in status:
            left.append(limit - 1024 * status[name])
    for folder in cgroups():
        for limit, usage, cache in CGROUP_FILES:
            limit, usage = (read_number(os.path.join(folder, name)) for name in (limit, usage))
            if None not in (limit, usage):
                left.append(limit - usage + numbers_in(os.path.join(folder, "memory.stat")).get(cache, 0))
    return max(0, min(left)) if left else None


def cgroups():
    """The folders of the cgroups that this process is in, and of those around them, which limit it as well."""
    for line in read_lines(os.path.join(PROC, "self", "cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            root, parts = os.path.join(CGROUPS, controllers), path.strip("/").split("/")
            for count in range(len(parts) + 1):
                yield os.path.join(root, *parts[:count])


def numbers_in(path):
    """{name: number} of a file with lines such as "VmSize:  1024 kB" or "inactive_file 4096"."""
    words = [line.replace(":", " ").split() for line in read_lines(path)]
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdigit()}


def read_number(path):
    lines = read_lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None  # "max": no limit


def read_lines(path):
    """Those of a file of the kernel; none if it has no such file."""
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []


def gigabytes(number):
    return f"{number / 1e9:.1f} GB"


def explaining_memory(trainer_class):
    """Running out of memory in a Trainer becomes an InputError that says what to make smaller."""
    for name in ("__init__", "optimize", "evaluate", "export"):
        setattr(trainer_class, name, explained(getattr(trainer_class, name)))
    return trainer_class


def explained(method):
    """That method, with such an error."""

    @functools.wraps(method)
    def call(self, *arguments, **options):
        try:
            return method(self, *arguments, **options)
        except Exception as error:
            config, last = getattr(self, "config", None), getattr(self, "last_checkpoint", None)
            if config is None or not is_out_of_memory(error):
                raise
            found = f"found {config.batch_size} at img_size {config.img_size}, when memory ran out"
            expected = f"expected a smaller batch_size or img_size; last checkpoint: {last or 'none yet'}"
            raise OutOfMemoryError(f"setting batch_size: {found} ({first_line(error)}), {expected}") from error

    return call
