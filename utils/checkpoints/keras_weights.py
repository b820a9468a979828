"""Finds the MobileNetV2 in a file from Keras: its weights under the names of our variables, and its settings."""

import itertools
import re
from collections import Counter, namedtuple

from models.mobilenetv2 import BOTTLENECKS, FIRST_DEPTH, HEAD, LAST_DEPTH, rounded
from src.errors import InputError
from utils.checkpoints.keras_config import all_layers, input_settings, network_names
from utils.checkpoints.keras_file import PUBLISHED_NAME, check_exists
from utils.checkpoints.keras_layers import keras_layers, read_arrays

DEPTHS = [depth for _, depth, n in BOTTLENECKS for _ in range(n)]  # of the blocks, for width 1
PARTS = [f"block{block + 1}/{part}" for block in range(len(DEPTHS)) for part in ("expand", "depthwise", "project")]
SCOPES = ["first", *(part for part in PARTS if part != "block1/expand"), "last"]
VARIABLES = ("kernel", "gamma", "beta", "moving_mean", "moving_variance")  # of each of these scopes
WIDTHS = [0.35, 0.5, 0.75, 1.0, 1.3, 1.4]  # those that Keras publishes; if none fits, one with few digits
WIDTHS += [number / 10 for number in range(1, 101)] + [number / 100 for number in range(1, 1001)]
HALF = [0.5, 0.5, 0.5]
DEFAULTS = {"image_normalize_mean": HALF, "image_normalize_std": HALF, "channel_order": "rgb"}  # x / 127.5 - 1

# Classes of the layers from out_relu to the end.
HEAD_CLASSES = {"ReLU", "GlobalAveragePooling2D", "Dropout", "Flatten", "Dense", "Softmax", "Activation"}

# weights: {variable name: array}, with those of the head if the file has nothing else beside the MobileNetV2.
# settings: DEFAULTS, and those that the file or its name says.
# text: what it is, such as "MobileNetV2 of width 0.35 for 96 px inside a Sequential model".
# unused: names of layers beside the MobileNetV2 that have no counterpart in ours.
# unread: classes of layers before it that may change pixels in ways that `settings` does not say.
KerasNetwork = namedtuple("KerasNetwork", "weights settings text unused unread")


def read_keras_network(what, path):
    """The KerasNetwork in a file. Raises InputError, naming `what`, unless it has exactly one complete MobileNetV2."""
    check_exists(what, path)
    with keras_layers(what, path) as (layers, config):
        backbone = find_backbone(what, path, layers, config)
        datasets, used = by_variable(backbone), [layer[:2] for _, layer in backbone]
        others = [layer for layer in layers if layer.weights and layer[:2] not in used]
        if len(others) == 1 and is_our_head(others[0], datasets["last/beta"].shape, layers, config):
            datasets.update(by_variable([(HEAD, others.pop())]))
        for name, dataset in datasets.items():
            if dataset.dtype not in ("float16", "float32", "float64"):
                kind = dataset.attrs.get("dtype", dataset.dtype)  # Keras stores bfloat16 as bytes, and says so
                raise InputError(what, f"{path} with {kind} numbers in {name}", "float32 or float16, not quantized")
        settings, unread = input_settings(layers_before(config))
        published = PUBLISHED_NAME.search(path)
        if published:
            settings.setdefault("img_size", int(published.group(2)))
        settings["width"] = width_of(what, path, datasets)
        text = describe(settings, config, backbone[0][1].networks, datasets["first/kernel"].dtype)
        unused = [layer.name for layer in others]
        return KerasNetwork(read_arrays(datasets), dict(DEFAULTS, **settings), text, unused, unread)


def by_variable(scoped_layers):
    """{name of our variable: dataset} of [(scope, Layer), ...]."""
    return {f"{scope}/{name}": dataset for scope, layer in scoped_layers for name, dataset in layer.weights.items()}


def find_backbone(what, path, layers, config):
    """[(scope of our variables, Layer), ...] of the MobileNetV2, of which a file has exactly one."""
    networks = {}
    for layer in layers:
        networks.setdefault(layer.networks, []).append(layer)
    found = {name: backbone for name, backbone in zip(networks, map(scoped, networks.values())) if backbone}
    if len(found) != 1:
        names = ", ".join("/".join(name) for name in found)
        held = f"{len(found)} MobileNetV2 ({names})" if found else other_network(layers, config)
        raise InputError(what, f"{path} with {held}", "one MobileNetV2 from Keras")
    (backbone,) = found.values()
    expected, names = [f"{scope}/{name}" for scope in SCOPES for name in VARIABLES], by_variable(backbone)
    missing = [name for name in expected if name not in names]
    if missing:
        raise InputError(what, f"{path} without {missing[0]}", "all weights of a MobileNetV2")
    return backbone


def scoped(layers):
    """[(scope, Layer), ...] of the layers of one network if it is a MobileNetV2, else []."""
    found = [(scope_of(layer.name), layer) for layer in layers if layer.weights]
    if "first" not in dict(found):
        found = scoped_by_number(layers)
    found = [(scope, layer) for scope, layer in found if scope]
    return found if "last" in dict(found) else []


def scope_of(name):
    """The scope of our variables for a layer of Keras' MobileNetV2, None if there is none."""
    fixed = {"Conv1": "first", "Conv_1": "last"}
    for known in (name, re.sub(r"_\d+$", "", name)):  # Keras 2 numbers the weights of a second network in a process
        known = re.sub("^bn_|_(BN|bn)$", "", known)
        block = re.fullmatch(r"(?:block_(\d+)|expanded_conv)_(expand|depthwise|project)", known)
        if block or known in fixed:
            return f"block{int(block.group(1) or 0) + 1}/{block.group(2)}" if block else fixed[known]
    return None


def scoped_by_number(layers):
    """The same where layers have numbers instead of names, if there are as many of each kind as in a MobileNetV2."""
    found, depthwise = [], [scope for scope in SCOPES if scope.endswith("depthwise")]
    for kind, scopes in (
        ("conv2d", [scope for scope in SCOPES if scope not in depthwise]),
        ("depthwise_conv2d", depthwise),
        ("batch_normalization", SCOPES),
    ):
        numbered = [layer for layer in layers if re.fullmatch(kind + r"(_\d+)?", layer.name)]
        if len(numbered) != len(scopes):
            return []
        found += zip(scopes, numbered)
    return found


def layers_before(config):
    """The configurations of the layers before the MobileNetV2."""
    return itertools.takewhile(lambda layer: scope_of(layer["config"].get("name", "")) != "first", all_layers(config))


def is_our_head(layer, depth, layers, config):
    """Whether the only other layer of a file is a dense one as ours: with a bias, on averages of shape `depth`."""
    if set(layer.weights) != {"kernel", "bias"} or layer.weights["kernel"].shape[:-1] != depth:
        return False
    last = itertools.dropwhile(lambda each: each["config"].get("name") != "out_relu", all_layers(config))
    known = {each["class_name"] for each in last} <= HEAD_CLASSES
    return known and not any(re.match("global_?max", other.name) for other in layers)


def depths(width):
    """Channels that a MobileNetV2 of that width leaves: of the first layer, each block, the last layer."""
    return [rounded(depth * width) for depth in (FIRST_DEPTH, *DEPTHS)] + [rounded(LAST_DEPTH * max(1.0, width))]


def width_of(what, path, datasets):
    """The width by the shapes of the kernels."""
    scopes = ["first", *(scope for scope in SCOPES if scope.endswith("project")), "last"]
    found = [datasets[f"{scope}/kernel"].shape[-1] for scope in scopes]
    if len(datasets["first/kernel"].shape) != 4:
        raise InputError(what, f"{path} with a first kernel of shape {list(datasets['first/kernel'].shape)}", "4 sizes")
    fitting = [width for width in WIDTHS if depths(width) == found]
    if not fitting:
        expected = "those of a width that this program has, from 0.1 to 10"
        raise InputError(what, f"{path} with a MobileNetV2 of {', '.join(map(str, found))} channels", expected)
    return fitting[0]


def describe(settings, config, networks, dtype):
    """What a file holds; `networks` are the names of those that the MobileNetV2 is in."""
    size = f" for {settings['img_size']} px" if "img_size" in settings else ""
    around = " inside another network" if networks else ""
    if networks and config:  # Keras 2 says Model for Functional
        around = f" inside a {config['class_name'].replace('Model', 'Functional')} model"
    converted = "" if dtype == "float32" else f", in {dtype}, which is converted to float32"
    return f"MobileNetV2 of width {settings['width']}{size}{around}{converted}"


def other_network(layers, config):
    """A name for a network that is no MobileNetV2: that of the author, or its layers."""
    if config:
        own = [
            name for name in network_names(config) if not re.fullmatch(r"(functional|sequential|model)(_\d+)?", name)
        ]
        kinds = Counter(layer["class_name"] for layer in all_layers(config))
        return ", ".join(own) or f"a {config['class_name']} of {' '.join(f'{n} {kind}' for kind, n in kinds.items())}"
    names = [layer.name for layer in layers]
    return f"layers {', '.join(names[:4])}{' and others' if len(names) > 4 else ''}" if names else "no layers"
