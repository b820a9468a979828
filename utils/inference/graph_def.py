"""Reading a frozen graph, and checking its operations and its use of resources before any of it runs."""

import hashlib
import itertools
from collections import defaultdict

from src.errors import InputError, first_line
from src.tf1 import tf
from utils.files import read_file

# A graph is a program. These are TensorFlow's pure computations: no files, no network, no other program, no state.
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
# Limits for graphs that are not trusted. ResNet-152 and EfficientNet-B7 have about 10,000 nodes, up to 2,000 of them in
# a row, and need 1.5 GB for tensors.
MAX_NODES = 30000
MAX_DEPTH = 10000  # nodes in a row; 50,000 overflow the stack of either TensorFlow
MAX_BYTES = 4 * 2**30  # of tensors in memory at the same time, for a batch
MAX_SHAPE = 1000  # elements of a constant that may be a shape, which has fewer than a hundred
STRING_BYTES = 32  # per element, which may be longer
TRUST = "--trust_graph runs it anyway"


def read_graph(path, trusted=False):
    """(GraphDef, SHA-256 in hexadecimal) of a .pb file.

    Args:
        trusted: allow operations outside SAFE_OPS.

    Raises:
        InputError: it is not a graph, or has operations outside SAFE_OPS.
    """
    content = read_file("graph", path, "training and python run.py export write one")
    graph_def = tf.GraphDef()
    try:
        graph_def.ParseFromString(content)
    except Exception as error:  # the class of protobuf's DecodeError depends on its version
        found = "a file that is corrupt, truncated or not a graph"
        raise InputError(f"graph {path}", found, "an exported graph") from error
    for node in [node for node in graph_def.node if node.op == "Const"]:
        shape = constant_shape(node)
        if len(shape) > 1 and 0 in shape:  # which crashes TensorFlow 1.14 in convolutions
            raise InputError(f"graph {path}", f"{node.name} of shape {shape}", "weights that are not empty")
    unknown = sorted({node.op for node in graph_def.node} - SAFE_OPS)
    # A graph can define functions, which can have the names of operations.
    functions = [value.function for field, value in graph_def.ListFields() if field.name == "library"]
    unknown += sorted(function.signature.name for group in functions for function in group)
    if unknown and not trusted:
        expected = "operations that calculate logits and do nothing else"
        raise InputError(f"graph {path}", f"{', '.join(unknown[:5])} in it", expected, TRUST)
    return graph_def, hashlib.sha256(content).hexdigest()


def constant_shape(node):
    """The shape that a Const node declares; the file may hold fewer values, as the last one is repeated."""
    return [dimension.size for dimension in node.attr["value"].tensor.tensor_shape.dim]


def check_resources(graph_def, metadata, source, batch):
    """Raise InputError if a graph needs more resources than a network would, or cannot be built for a batch.

    Memory is estimated level by level, as if all nodes of a level ran in parallel: constants, and the tensors of
    the level and of earlier ones that are still to be used.

    Args:
        graph_def: the graph.
        metadata: its JSON, as a dict, with names that are in the graph.
        source: its name in errors.
        batch: batch size that it is to be run with.
    """
    levels = topological_levels(graph_def, source)
    last_use = {name: number for number, level in enumerate(levels) for node in level for name, _ in inputs_of(node)}
    changes = [0] * (len(levels) + 1)  # of the bytes in memory, at each level
    constant = 0
    for number, node, size, is_constant in node_sizes(levels, metadata, source, batch):
        if is_constant:
            constant += size
        else:
            changes[number] += size
            changes[max(number, last_use.get(node.name, 0)) + 1] -= size
        if max(size, constant) > MAX_BYTES:
            raise too_large(source, f"that {node.name} makes it {in_gb(max(size, constant))}", batch)
    most = constant + max(itertools.accumulate(changes))
    if most > MAX_BYTES:
        raise too_large(source, f"tensors of {in_gb(most)} at the same time", batch)


def too_large(source, found, batch):
    return InputError(f"graph {source}", f"{found} for {batch} images", f"at most {in_gb(MAX_BYTES)}", TRUST)


def in_gb(size):
    return f"{size / 1e9:.1f} GB" if size < 1e15 else "a million GB or more"


def topological_levels(graph_def, source):
    """The nodes in lists: those without inputs, those that need only these, and so on. Raises InputError."""
    count = sum(max(1, declared_outputs(node)) for node in graph_def.node)
    if count > MAX_NODES:
        raise InputError(f"graph {source}", f"{count} nodes and outputs of nodes", f"at most {MAX_NODES}", TRUST)
    nodes = {node.name: node for node in graph_def.node}
    needs, users = {}, defaultdict(list)
    for node in graph_def.node:
        names = {name for name, _ in inputs_of(node)}
        if not names <= set(nodes):
            raise InputError(f"graph {source}", f"an input of {node.name} that is not in it", "a complete graph")
        needs[node.name] = len(names)
        for name in names:
            users[name].append(node)
    levels, level = [], [node for node in graph_def.node if not needs[node.name]]
    while level:
        levels.append(level)
        level = []
        for user in [user for node in levels[-1] for user in users[node.name]]:
            needs[user.name] -= 1
            if not needs[user.name]:
                level.append(user)
    if sum(map(len, levels)) < len(graph_def.node):
        raise InputError(f"graph {source}", "a cycle, or two nodes of one name", "an acyclic graph of different names")
    if len(levels) > MAX_DEPTH:
        raise InputError(f"graph {source}", f"{len(levels)} nodes in a row", f"at most {MAX_DEPTH}", TRUST)
    return levels


def declared_outputs(node):
    """The number of outputs that a node declares, if its operation has a variable number of them; else 1."""
    return max([node.attr[name].i for name in ("num", "num_split") if name in node.attr], default=1)


def inputs_of(node):
    """[(name of a node, number of its output; None for a control dependency)] for the inputs of a node."""
    parts = [text.partition(":") for text in node.input]
    return [(name[1:], None) if name.startswith("^") else (name, number) for name, _, number in parts]


def node_sizes(levels, metadata, source, batch):
    """Yield (number of its level, node, bytes of its outputs, whether they are constant) of each node.

    TensorFlow infers the shapes, in a graph that is not run. In doing so it evaluates tensors that hold shapes, which
    could be huge; so each node is added only after the caller has checked the sizes of its inputs.
    """
    image, output = metadata["input"]["name"], metadata["output"]["name"]
    needed = ancestors(output, image, levels)
    tensors, varying = {}, set()
    with tf.Graph().as_default() as graph:
        for number, node in [(number, node) for number, level in enumerate(levels) for node in level]:
            try:
                outputs = tensors[node.name] = add_node(graph, node, tensors)
            except Exception as error:  # TensorFlow raises all kinds of errors on a corrupt graph
                message = f"cannot be built for {batch} images ({first_line(error)})"
                raise InputError(f"graph {source}: {message}") from error
            if node.name == image:
                check_tensor(outputs[0], metadata["input"], source)
                outputs[0] = tf.placeholder(tf.float32, [batch] + metadata["input"]["shape"][1:])
            is_fed = node.name == image or "Placeholder" in node.op
            shape_only = node.op in ("Shape", "Size", "Rank")
            if is_fed or not shape_only and any(name in varying for name, _ in inputs_of(node)):
                varying.add(node.name)
            size = bytes_of(outputs)
            if size is None and (node.name in needed or node.name not in varying):
                found = f"that the size of {node.name} depends on the content of the images"
                raise InputError(f"graph {source}", found, "sizes that are known before it runs", TRUST)
            yield number, node, size or 0, node.name not in varying


def ancestors(output, image, levels):
    """Names of the nodes that are run to compute one from another, and their own."""
    nodes = {node.name: node for level in levels for node in level}
    found, waiting = {output, image}, [output]
    while waiting:
        new = {name for name, _ in inputs_of(nodes[waiting.pop()])} - found
        found |= new
        waiting += new
    return found


def add_node(graph, node, tensors):
    """Add a node to a graph, a large constant without its values; returns its outputs.

    Args:
        tensors: {name of a node added before: its outputs}.
    """
    if node.op == "Const":
        shape = tf.TensorShape(constant_shape(node))
        if shape.num_elements() > MAX_SHAPE:
            return [tf.placeholder(node.attr["dtype"].type, shape)]
    inputs = [tensors[name][int(number or 0)] for name, number in inputs_of(node) if number is not None]
    attributes = {name: value for name, value in node.attr.items() if not name.startswith("_")}
    operation = graph.create_op(node.op, inputs, [], name="node", attrs=attributes, compute_device=False)
    # The sixth output of FusedBatchNormV3 serves gradients: it is empty, but its shape is unknown.
    return list(operation.outputs)[: 5 if node.op == "FusedBatchNormV3" else None]


def bytes_of(tensors):
    """The size of tensors in memory; None if a shape is unknown."""
    result = 0
    for tensor in tensors:
        elements = tensor.shape.num_elements()
        if elements is None:
            return None
        result += elements * (STRING_BYTES if tensor.dtype == tf.string else tensor.dtype.size)
    return result


def check_names(graph_def, metadata, source):
    """Raise InputError unless a graph has the input and the output that its metadata name."""
    for role in ("input", "output"):
        name = metadata[role]["name"]
        if name not in {node.name for node in graph_def.node if node.op != "NoOp"}:
            placeholders = " ".join(node.name for node in graph_def.node if node.op == "Placeholder")
            last = graph_def.node[-1].name if graph_def.node else ""
            hint = f"its placeholders are: {placeholders}; its last operation: {last}"
            raise InputError(f"graph {source}", f"no operation {name!r} in it", f"its {role}", hint)


def check_tensor(tensor, described, source):
    """Return the tensor; InputError if its shape or type is not that of its metadata."""
    name, shape = described["name"], described["shape"]
    if tensor.dtype != tf.float32:
        raise InputError(f"graph {source}", f"{tensor.dtype.name} for {name}", "float32")
    if not tensor.shape.is_compatible_with([None] + shape[1:]):
        raise InputError(f"graph {source}", f"shape {tensor.shape} for {name}", f"{shape} as in its metadata")
    return tensor
