"""Reading a frozen graph, and judging it before any of it runs: what it can do, and what it takes of the machine."""

import hashlib
import itertools
from collections import defaultdict

from src.errors import InputError, first_line
from src.tf1 import tf
from utils.files import read_file

# A graph is a program. These operations of TensorFlow calculate tensors from tensors; they know no files, no network,
# no other program, and no state.
SAFE_OPS = set(
    """
    Abs Add AddN AddV2 ArgMax AvgPool BatchMatMul BatchMatMulV2 BiasAdd Cast Concat ConcatV2 Const Conv2D
    DepthwiseConv2dNative Elu Equal Exp ExpandDims Fill Floor FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 GatherV2
    Greater GreaterEqual Identity IdentityN LRN LeakyRelu Less LessEqual Log LogSoftmax LogicalAnd LogicalNot LogicalOr
    MatMul Max MaxPool MaxPoolV2 Maximum Mean Merge Min Minimum MirrorPad Mul Neg NoOp Pack Pad PadV2 Placeholder
    PlaceholderWithDefault Pow Prod Range Rank RealDiv Reciprocal Relu Relu6 Reshape ResizeBilinear
    ResizeNearestNeighbor Round
    Rsqrt Select Selu Shape Sigmoid Size Slice Softmax Softplus Softsign Split SplitV Sqrt Square
    SquaredDifference Squeeze StopGradient StridedSlice Sub Sum Switch Tanh Tile Transpose Unpack ZerosLike
    """.split()  # noqa: SIM905
)
# What a graph may take of the machine unless it is trusted. ResNet-152 and EfficientNet-B7 have some 10,000 nodes, up
# to 2,000 of them in a row, and tensors of 1.5 GB at a time.
MAX_NODES = 30000
MAX_DEPTH = 10000  # nodes in a row; 50,000 overflow the stack of either TensorFlow
MAX_BYTES = 4 * 2**30  # of tensors in memory at the same time, for a batch
MAX_SHAPE = 1000  # elements; what says a shape has fewer than a hundred
STRING_BYTES = 32  # of an element, which may be longer
TRUST = "--trust_graph runs it all the same"


def read_graph(path, trusted=False):
    """(GraphDef, SHA-256 in hexadecimal) of a .pb file.

    Args:
        trusted: take it whatever operations it has.

    Raises:
        InputError: it is no graph, or one that does more than calculate.
    """
    content = read_file("graph", path, "; training and python run.py export write one")
    graph_def = tf.GraphDef()
    try:
        graph_def.ParseFromString(content)
    except Exception as error:  # protobuf's DecodeError is another class in each of its versions
        raise InputError(
            f"graph {path}: found a file that is damaged, cut short or no graph, expected an exported graph"
        ) from error
    for node in [node for node in graph_def.node if node.op == "Const"]:
        shape = constant_shape(node)
        if len(shape) > 1 and 0 in shape:  # TensorFlow 1.14 dies of them, in convolutions
            raise InputError(f"graph {path}: found {node.name} of shape {shape}, expected weights that are not empty")
    unknown = sorted({node.op for node in graph_def.node} - SAFE_OPS)
    # A graph can bring functions, which go by the names of operations.
    functions = [value.function for field, value in graph_def.ListFields() if field.name == "library"]
    unknown += sorted(function.signature.name for group in functions for function in group)
    if unknown and not trusted:
        found = f"found {', '.join(unknown[:5])} in it, expected operations that calculate logits and do nothing else"
        raise InputError(f"graph {path}: {found}; {TRUST}")
    return graph_def, hashlib.sha256(content).hexdigest()


def constant_shape(node):
    """The shape that a Const node declares; the values of the file may be fewer, as the last of them is repeated."""
    return [dimension.size for dimension in node.attr["value"].tensor.tensor_shape.dim]


def check_resources(graph_def, metadata, source, batch):
    """Raise InputError if a graph takes more of the machine than a network does, or cannot be built for a batch.

    Tensors in memory at the same time are those that do not depend on the image, and of the others those of one step
    of the longest way through the graph, as if the machine had a processor for each node.

    Args:
        graph_def: the graph.
        metadata: its JSON, as a dict, with names that are in the graph.
        source: its name in errors.
        batch: images that it is to be run on at once.
    """
    waves = in_waves(graph_def, source)
    last_use = {name: number for number, wave in enumerate(waves) for node in wave for name, _ in inputs_of(node)}
    changes = [0] * (len(waves) + 1)  # in the bytes that are in memory, at each wave
    constant = 0
    for number, node, size, is_constant in sizes(waves, metadata, source, batch):
        if is_constant:
            constant += size
        else:
            changes[number] += size
            changes[max(number, last_use.get(node.name, 0)) + 1] -= size
        if max(size, constant) > MAX_BYTES:
            raise too_large(source, f"found that {node.name} makes it {in_gb(max(size, constant))}", batch)
    most = constant + max(itertools.accumulate(changes))
    if most > MAX_BYTES:
        raise too_large(source, f"found tensors of {in_gb(most)} at the same time", batch)


def too_large(source, found, batch):
    expected = f"expected at most {in_gb(MAX_BYTES)}"
    return InputError(f"graph {source}: {found} for {batch} images, {expected}; {TRUST}")


def in_gb(size):
    return f"{size / 1e9:.1f} GB" if size < 1e15 else "a million GB or more"


def in_waves(graph_def, source):
    """The nodes in lists: those without inputs, those that need only these, and so on."""
    count = sum(max(1, declared_outputs(node)) for node in graph_def.node)
    if count > MAX_NODES:
        found = f"found {count} nodes and outputs of nodes in it"
        raise InputError(f"graph {source}: {found}, expected at most {MAX_NODES}; {TRUST}")
    nodes = {node.name: node for node in graph_def.node}
    needs, users = {}, defaultdict(list)
    for node in graph_def.node:
        names = {name for name, _ in inputs_of(node)}
        if not names <= set(nodes):
            raise InputError(f"graph {source}: cannot be built (an input of {node.name} is not in it)")
        needs[node.name] = len(names)
        for name in names:
            users[name].append(node)
    waves, wave = [], [node for node in graph_def.node if not needs[node.name]]
    while wave:
        waves.append(wave)
        wave = []
        for user in [user for node in waves[-1] for user in users[node.name]]:
            needs[user.name] -= 1
            if not needs[user.name]:
                wave.append(user)
    if sum(map(len, waves)) < len(graph_def.node):
        raise InputError(f"graph {source}: cannot be built (some of its nodes need each other, or have the same name)")
    if len(waves) > MAX_DEPTH:
        raise InputError(f"graph {source}: found {len(waves)} nodes in a row, expected at most {MAX_DEPTH}; {TRUST}")
    return waves


def declared_outputs(node):
    """How many outputs a node says it has, if it is of an operation that lets it say so."""
    return max([node.attr[name].i for name in ("num", "num_split") if name in node.attr], default=1)


def inputs_of(node):
    """[(name of the node, number of its output; None if this is only to wait for it)] of the inputs of a node."""
    parts = [text.partition(":") for text in node.input]
    return [(name[1:], None) if name.startswith("^") else (name, number) for name, _, number in parts]


def sizes(waves, metadata, source, batch):
    """Yield (number of its wave, node, bytes of its outputs, whether these do not depend on the image) of each node.

    Shapes are those that TensorFlow infers, in a graph that is not run. To do so it calculates tensors that say shapes,
    so that each node is added only when the sizes of those before it were judged.
    """
    image, output = metadata["input"]["name"], metadata["output"]["name"]
    needed = leading_to(output, image, waves)
    tensors, varying = {}, set()
    with tf.Graph().as_default() as graph:
        for number, node in [(number, node) for number, wave in enumerate(waves) for node in wave]:
            try:
                outputs = tensors[node.name] = add(graph, node, tensors)
            except Exception as error:  # TensorFlow raises all kinds of errors on a damaged graph
                reason = f"cannot be built for {batch} images ({first_line(error)})"
                raise InputError(f"graph {source}: {reason}") from error
            if node.name == image:
                check_tensor(outputs[0], metadata["input"], source)
                outputs[0] = tf.placeholder(tf.float32, [batch] + metadata["input"]["shape"][1:])
            is_fed = node.name == image or "Placeholder" in node.op
            shape_only = node.op in ("Shape", "Size", "Rank")
            if is_fed or not shape_only and any(name in varying for name, _ in inputs_of(node)):
                varying.add(node.name)
            size = bytes_of(outputs)
            if size is None and (node.name in needed or node.name not in varying):
                found = f"found that the size of {node.name} depends on what is in the images"
                raise InputError(f"graph {source}: {found}, expected sizes that are known before it runs; {TRUST}")
            yield number, node, size or 0, node.name not in varying


def leading_to(output, image, waves):
    """Names of the nodes that are run to get from one to another."""
    nodes = {node.name: node for wave in waves for node in wave}
    found, waiting = {output, image}, [output]
    while waiting:
        new = {name for name, _ in inputs_of(nodes[waiting.pop()])} - found
        found |= new
        waiting += new
    return found


def add(graph, node, tensors):
    """Add a node to a graph, without the values of a large constant; returns its outputs.

    Args:
        tensors: {name of a node that it gets inputs from: its outputs}.
    """
    if node.op == "Const":
        shape = tf.TensorShape(constant_shape(node))
        if shape.num_elements() > MAX_SHAPE:
            return [tf.placeholder(node.attr["dtype"].type, shape)]
    inputs = [tensors[name][int(number or 0)] for name, number in inputs_of(node) if number is not None]
    attributes = {name: value for name, value in node.attr.items() if not name.startswith("_")}
    operation = graph.create_op(node.op, inputs, [], name="node", attrs=attributes, compute_device=False)
    # The sixth output of this one is for gradients: empty, but of unknown size.
    return list(operation.outputs)[: 5 if node.op == "FusedBatchNormV3" else None]


def bytes_of(tensors):
    """How much memory tensors take; None if the shape of one is not known."""
    result = 0
    for tensor in tensors:
        elements = tensor.shape.num_elements()
        if elements is None:
            return None
        result += elements * (STRING_BYTES if tensor.dtype == tf.string else tensor.dtype.size)
    return result


def check_names(graph_def, metadata, source):
    """Raise InputError unless a graph has nodes with the names of its input and its output."""
    for role in ("input", "output"):
        name = metadata[role]["name"]
        if name not in {node.name for node in graph_def.node if node.op != "NoOp"}:
            placeholders = " ".join(node.name for node in graph_def.node if node.op == "Placeholder")
            last = graph_def.node[-1].name if graph_def.node else ""
            raise InputError(
                f"graph {source}: found no operation {name!r} in it; its placeholders are: {placeholders}; "
                f"its last operation: {last}"
            )


def check_tensor(tensor, described, source):
    """The tensor. Raises InputError if it has another shape or type than its metadata describe."""
    name, shape = described["name"], described["shape"]
    if tensor.dtype != tf.float32:
        raise InputError(f"graph {source}: found {tensor.dtype.name} for {name}, expected float32")
    if not tensor.shape.is_compatible_with([None] + shape[1:]):
        raise InputError(f"graph {source}: found shape {tensor.shape} for {name}, expected {shape} as in its metadata")
    return tensor
