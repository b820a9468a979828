"""Initial weights: those of a checkpoint, or of Keras' MobileNetV2."""

import os

import numpy as np

from models import in_head
from models.mobilenetv2 import HEAD
from src import config
from src.console import print_note, say
from src.errors import InputError
from src.settings import as_list, for_channels, settings, with_role
from utils.checkpoints.keras_file import is_keras_file
from utils.checkpoints.keras_weights import depths, read_keras_network
from utils.checkpoints.manager import CheckpointManager, assign, find_checkpoint

PRETRAINED_SETTINGS = with_role("preprocessing", "architecture")


def inherit_settings(overrides):
    """The settings of a run: PRETRAINED_SETTINGS without overrides are those of its initial weights."""
    now, network = settings(**overrides), None
    if now.pretrained is None:
        if now.train_layers == "head":
            print_note("setting train_layers: found head without pretrained, so the frozen backbone has random weights")
        return now
    if is_keras_file(now.pretrained):
        network = read_keras_network("setting pretrained", now.pretrained)
        recorded = dict(network.settings, model_arch="mobilenetv2")
    else:
        prefix = find_checkpoint("setting pretrained", now.pretrained)
        recorded = (CheckpointManager(os.path.dirname(prefix)).entry(prefix) or {}).get("settings", {})
    if recorded.get("model_arch") != now.model_arch:
        return now
    channels = overrides.get("numchannels", recorded.get("numchannels"))
    if channels != recorded.get("numchannels", channels):
        found = f"weights for numchannels {recorded['numchannels']} in {now.pretrained}"
        raise InputError("setting pretrained", found, f"for numchannels {channels}, as given")
    inherited = {name: recorded[name] for name in PRETRAINED_SETTINGS if name in recorded}
    if vars(config)["img_size"] is not None:
        inherited.pop("img_size", None)
    result = settings(**dict(inherited, **overrides))
    if network:
        check_settings(result, network)
    return result


def check_settings(config, network):
    """Raise InputError where a network from Keras does not fit the settings; print a note where they differ."""
    path, recorded = config.pretrained, network.settings
    if depths(config.width) != depths(recorded["width"]):
        raise InputError("setting width", config.width, f"{recorded['width']}, that of {path}")
    channels = network.weights["first/kernel"].shape[2]
    if channels != config.numchannels:
        found = f"{path}, whose first kernel has {channels} input channel{'s' * (channels != 1)}"
        raise InputError("setting pretrained", found, f"{config.numchannels}, as in setting numchannels")
    recorded = for_channels(dict(recorded, numchannels=config.numchannels))
    for name in sorted(set(recorded) - {"width", "numchannels"}):
        if as_list(getattr(config, name)) != as_list(recorded[name]):
            print_note(f"setting {name} is {getattr(config, name)}; {path} alone would set it to {recorded[name]}")
    if network.unread:
        names = "image_normalize_mean and image_normalize_std"
        print_note(f"{path}: not read what {', '.join(network.unread)} does to images first; set {names} to match")


def describe_head(network, total_class):
    """What becomes of the layers beside the MobileNetV2 in a file from Keras."""
    if network.unused:
        return f"other layers not loaded: {', '.join(network.unused)}"
    if f"{HEAD}/bias" not in network.weights:
        return "no head"
    classes = len(network.weights[f"{HEAD}/bias"])
    result = "loaded: as many are trained, which must be in the same order"
    if classes != total_class:
        result = f"not loaded: {total_class} are trained"
    return f"head of {classes} classes, {result}"


def load_pretrained(session, variables, config):
    """Assign the weights in config.pretrained to the variables whose name and shape match; print the others."""
    subject, path = "setting pretrained", config.pretrained
    if is_keras_file(path):
        network = read_keras_network(subject, path)
        source, weights = path, network.weights
        say(f"pretrained {path}: {network.text}, {describe_head(network, config.total_class)}")
    else:
        source = find_checkpoint(subject, path)
        weights = CheckpointManager(os.path.dirname(source)).read(source, subject)
    matching, others = [], []
    for variable in variables:
        matches = np.shape(weights.get(variable.op.name)) == tuple(variable.shape.as_list())
        (matching if matches else others).append(variable)
    if not matching:
        raise InputError(subject, f"no weights in {path} that match", f"weights of a {config.model_arch}")
    for variable in matching:
        if not np.isfinite(weights[variable.op.name]).all():
            raise InputError(subject, f"NaN or Inf in {variable.op.name} of {source}", "trained weights")
    if all(in_head(variable, config.model_arch) for variable in matching):
        expected = f"weights of a {config.model_arch} of this width"
        raise InputError(subject, f"only the classifier of {path} to match", expected)
    assign(session, matching, weights)
    names = [variable.op.name for variable in others]
    rest = f", all but {', '.join(names[:4])}{' and others' if len(names) > 4 else ''}" if names else ""
    say(f"weights of {source}: loaded {len(matching)} of {len(variables)} variables{rest}")
    values = [f"{name} {getattr(config, name)}" for name in PRETRAINED_SETTINGS]
    say(f"preprocessing and architecture: {', '.join(values)}")
