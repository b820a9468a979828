"""What the configuration that Keras stores with a network says of its input: its size, and how pixels are scaled."""

import numpy as np

# A layer that computes a * x + b, by its class in Keras 3 or its function in Keras 2: (a, b) for its constant.
ARITHMETIC = {
    "TrueDivide": lambda constant: (1 / constant, 0),
    "Multiply": lambda constant: (constant, 0),
    "Add": lambda constant: (1, constant),
    "Subtract": lambda constant: (1, -constant),
}
FUNCTIONS = {
    "math.truediv": "TrueDivide",
    "math.multiply": "Multiply",
    "__operators__.add": "Add",
    "math.subtract": "Subtract",
}


def all_layers(config):
    """The layers in a network's configuration, in order, with those of nested networks in their place; none of None."""
    for layer in config["config"].get("layers", []) if config else []:
        yield from (all_layers(layer) if "layers" in layer["config"] else [layer])


def network_names(config):
    """The names of a network and of those nested in it."""
    nested = [layer for layer in config["config"].get("layers", []) if "layers" in layer["config"]]
    return [config["config"].get("name", "")] + [name for network in nested for name in network_names(network)]


def input_settings(layers):
    """What the layers before the MobileNetV2 say: (settings, classes of layers that are not understood)."""
    size, steps, others = {}, [], []
    for layer in layers:
        kind, step = layer["class_name"], arithmetic(layer)
        if kind == "InputLayer":  # the last is that of the MobileNetV2
            shape = layer["config"].get("batch_shape") or layer["config"].get("batch_input_shape") or ()
            size = {"img_size": shape[1]} if len(shape) == 4 and shape[1] and shape[1] == shape[2] else {}
        elif step:
            steps.append(step)
        elif (
            not kind.startswith("Random") and layer["config"].get("name") != "Conv1_pad"
        ):  # augmentation, Keras 2's padding
            others.append(kind)
    return dict(size, **(normalization(steps) if steps and not others else {})), others


def arithmetic(layer):
    """(a, b) of a layer that computes a * x + b; None if it is another."""
    settings, nodes = layer["config"], layer.get("inbound_nodes") or []
    if layer["class_name"] == "Rescaling":
        return settings["scale"], settings["offset"]
    kind = FUNCTIONS.get(str(settings.get("function")), layer["class_name"])  # a Lambda's is a dict
    if kind not in ARITHMETIC or len(nodes) != 1:
        return None
    if isinstance(nodes[0], dict):  # Keras 3: {"args": [tensor, constant]}
        operands = nodes[0]["args"][1:] if isinstance(nodes[0]["args"][0], dict) else []
    else:  # Keras 2: [layer, 0, 0, {"y": constant}]
        operands = [nodes[0][-1].get("y")] if isinstance(nodes[0][-1], dict) else []
    return ARITHMETIC[kind](operands[0]) if len(operands) == 1 and isinstance(operands[0], (int, float)) else None


def normalization(steps):
    """The settings for the steps [(a, b), ...], each a * x + b, as together they are (level / 255 - mean) / std."""
    scale, offset = 1.0, 0.0
    for a, b in steps:
        scale, offset = scale * np.array(a), offset * np.array(a) + np.array(b)
    with np.errstate(all="ignore"):  # infinite ones are refused as settings
        std = 1 / (255 * np.float64(scale))
        values = {"image_normalize_mean": -offset * std, "image_normalize_std": std}
    return {name: np.broadcast_to(np.round(value, 9) + 0.0, 3).tolist() for name, value in values.items()}
