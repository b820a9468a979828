"""The table of settings, and how src/config.py and overrides become the validated settings of one run."""

import types
from collections import namedtuple

from src import config, rules
from src.errors import InputError, did_you_mean, in_config
from src.folders import class_folders

# `help` is its line in --help; `parse` to `choices` are those of a Rule; `roles` are keys of ROLES. Each
# setting has exactly one of the first three, which say whether it may differ when a run is resumed.
Setting = namedtuple("Setting", "help parse is_valid expected choices roles")
ROLES = {
    "learning": "changes what is learned: fixed for a run, and the same for all workers of a cluster (the chief's)",
    "duration": "how long to train: may differ when a run is resumed",
    "machine": "where and on what to train: may differ when a run is resumed, and between the machines of a cluster",
    "preprocessing": "how images are fed to the network: stored with pretrained weights and with an exported graph",
    "architecture": "a variant of the network: stored with pretrained weights",
    "derived": "None: derived from other settings",
    "output_dir": "an output folder",
}


def setting(roles, rule, help):
    return Setting(help, *rule, frozenset(roles.split()))


if not rules.are_networks(config.MODEL_ARCHS):
    raise InputError("MODEL_ARCHS", expected="names of networks, each with min_img_size, img_size and weight_decay")
# fmt: off
SETTINGS = {
    "model_arch": setting("learning", rules.one_of(*config.MODEL_ARCHS), "network architecture"),
    "img_size": setting("learning preprocessing derived", rules.integer(1, 4096),
        "images are resized to this width and height, in pixels; None: set by model_arch"),
    "numchannels": setting("learning preprocessing", rules.CHANNELS,
        "channels of the network's input: 3: colour; 1: grey"),
    "width": setting("learning architecture", rules.number(lambda x: 0 < x <= 10, "a number above 0, at most 10"),
        "mobilenetv2: width multiplier (alpha)"),
    "strides": setting("learning architecture", rules.one_of("paper", "small"),
        "mobilenetv2: paper: total stride 32; small: total stride 8, for images of about 32 pixels"),
    "batch_norm_momentum": setting("learning", rules.number(lambda x: 0 <= x < 1, "a number from 0 to below 1"),
        "mobilenetv2: momentum of batch norm: moving = momentum * moving + (1 - momentum) * batch"),
    "pretrained": setting("learning", rules.or_none(rules.CHECKPOINT),
        "initial weights: a checkpoint or a file from Keras, used where name and shape match; None: random"),
    "train_layers": setting("learning", rules.one_of("all", "head"),
        "all: train every layer; head: freeze the backbone and train only the classifier"),
    "train_path": setting("machine", rules.FOLDER,
        "training images, one folder per class; or a .zip or .tar of such folders"),
    "test_path": setting("machine", rules.FOLDER, "test images, one folder per class"),
    "classes": setting("learning derived", rules.CLASS_NAMES, "class folders to learn; None: all in train_path"),
    "total_class": setting("learning derived", rules.integer(0, rules.MOST_CLASSES),
        "number of classes; None: the length of classes"),
    "valid_path": setting("machine", rules.or_none(rules.FOLDER),
        "validation images, one folder per class; None: held out from the training images"),
    "validation_size": setting("learning", rules.number(lambda x: 0 < x < 1, "a fraction above 0 and below 1"),
        "fraction of the training images held out for validation"),
    "batch_size": setting("learning", rules.integer(1), "images per training step"),
    "image_normalize_mean": setting("learning preprocessing", rules.MEAN,
        "mean of each channel: x = (level / 255 - mean) / std"),
    "image_normalize_std": setting("learning preprocessing", rules.STD,
        "standard deviation of each channel: x = (level / 255 - mean) / std"),
    "channel_order": setting("learning preprocessing", rules.one_of("bgr", "rgb"),
        "bgr: as OpenCV reads images; rgb: swapped before normalization"),
    "resize": setting("learning preprocessing", rules.one_of("stretch", "crop", "pad"),
        "stretch: ignore the aspect ratio; crop: center crop; pad: borders in the mean colour"),
    "transparency": setting("learning preprocessing", rules.one_of("drop", "white", "black"),
        "drop: ignore it, as the file's colours are; white, black: put images on that background"),
    "augment": setting("learning", rules.one_of("none", "crop", "crop+flip"),
        "crop: random shifts; crop+flip: random shifts and horizontal flips"),
    "class_weights": setting("learning", rules.one_of("none", "balanced"),
        "balanced: weight the loss of each training image by n / (classes * images of its class)"),
    "bad_images": setting("learning", rules.one_of("stop", "skip"),
        "stop: end at a corrupt image; skip: leave corrupt images out and count them"),
    "cache_mb": setting("machine", rules.NOT_NEGATIVE, "megabytes of memory for the cache of decoded images"),
    "seed": setting("learning", rules.integer(0),
        "random seed of the split, batch order, augmentation and initial weights"),
    "num_epoch": setting("duration", rules.integer(1), "number of epochs to train for"),
    "lr": setting("learning", rules.POSITIVE, "initial learning rate"),
    "decay": setting("learning", rules.POSITIVE, "the learning rate is multiplied by this after every step_rate steps"),
    "step_rate": setting("learning", rules.integer(1), "steps between decays of the learning rate"),
    "epsilon": setting("learning", rules.POSITIVE, "Adam's epsilon, added to the denominator of each update"),
    "weight_decay": setting("learning derived", rules.NOT_NEGATIVE,
        "L2 regularization: adds weight_decay / 2 * sum(kernel ** 2) to the loss; None: set by model_arch"),
    "early_stopping": setting("duration", rules.or_none(rules.integer(1)),
        "patience: stop when the validation loss has not improved for this many epochs; None: never"),
    "device": setting("machine", rules.one_of("gpu", "cpu"),
        "gpu: the GPU if TensorFlow finds one, else the CPU; cpu: the CPU"),
    "deterministic": setting("machine", rules.BOOLEAN,
        "True: let a GPU give the same numbers each time, as far as TensorFlow can; slower"),
    "memory_check": setting("machine", rules.one_of("on", "off"),
        "on: refuse to train if the estimate exceeds the available memory; off: train anyway"),
    "step_timeout": setting("machine", rules.POSITIVE, "cluster: timeout of a training step, in seconds"),
    "cluster_timeout": setting("machine", rules.POSITIVE,
        "cluster: how long to wait for other workers between steps, in seconds"),
    "checkpoint_minutes": setting("machine", rules.POSITIVE,
        "minutes between checkpoints within an epoch; one is also written after each epoch"),
    "keep_runs": setting("machine", rules.or_none(rules.integer(0)),
        "number of earlier runs that keep their checkpoints; None: all"),
    "checkpoint_dir": setting("machine derived output_dir", rules.CHECKPOINT_FOLDER,
        "output folder for checkpoints; None: checkpoints/<model_arch>"),
    "weight_dir": setting("machine derived output_dir", rules.OUTPUT_FOLDER,
        "output folder for the exported graph; None: weights/<model_arch>"),
    "tensorboard_dir": setting("machine derived output_dir", rules.OUTPUT_FOLDER,
        "output folder for TensorBoard logs, one subfolder per run; None: graphs/<model_arch>"),
}
# fmt: on
GROUPS = {  # the first setting of each heading in src/config.py
    "model_arch": "Model",
    "train_path": "Data",
    "num_epoch": "Training",
    "checkpoint_minutes": "Output",
}


def with_role(*roles):
    """Names of the settings with any of these roles, in the order of the table."""
    assert ROLES.keys() >= set(roles), roles
    return [name for name, setting in SETTINGS.items() if setting.roles.intersection(roles)]


def validate(name, value):
    """Return `value`, NumPy numbers and arrays as plain ones; InputError unless it is valid for the setting `name`."""
    if name not in SETTINGS:
        raise InputError(f"unknown setting {name}", hint=did_you_mean(name, SETTINGS))
    value = value.tolist() if hasattr(value, "tolist") else value
    rule = SETTINGS[name]
    if not rule.is_valid(value):
        raise InputError(f"setting {name}", rules.shortened(value), rules.expected_of(rule, value))
    return value


def check_recorded(what, name, value):
    """Return a setting's value from a file; InputError, which names the file as `what`, if it is invalid."""
    rule = SETTINGS[name]
    if not rule.is_valid(value):
        raise InputError(what, f"{rules.shortened(value)} for {name}", rules.expected_of(rule, value))
    return value


class RunSettings(types.SimpleNamespace):
    """The settings of one run as attributes, which cannot be assigned: what is built from them would not change."""

    def __setattr__(self, name, value):
        raise AttributeError(f"setting {name} cannot be assigned after it was used; Trainer({name}=...) sets it")


def settings(**overrides):
    """The validated settings of one run, as RunSettings.

    Precedence: overrides, then src/config.py (or assignments to it), then values derived from other settings.

    Raises:
        InputError: an unknown setting, or a value of the wrong type or range.
    """
    return settings_for(SETTINGS, overrides)


def settings_for(names, overrides):
    """As settings(), but only for `names`, which include model_arch, and for the overrides.

    An invalid value in src/config.py must not stop a command that does not use it.
    """
    values = chosen({**{name: value for name, value in _configured().items() if name in names}, **overrides})
    for name in with_role("derived"):
        if name in names and name not in values:
            values[name] = derived(name, values)
    values = for_channels(values)
    run = RunSettings(**values)
    smallest = config.MODEL_ARCHS[run.model_arch]["min_img_size"]
    if "img_size" in names and run.img_size < smallest:
        raise InputError("setting img_size", run.img_size, f"{smallest} or more for {run.model_arch}")
    if "total_class" in names and run.total_class != len(run.classes):
        raise InputError("setting total_class", run.total_class, f"{len(run.classes)}, the number of classes")
    return run


def for_channels(values):
    """The values, with image_normalize_mean and _std as one number each, the mean of three, if numchannels is 1."""
    for name in ("image_normalize_mean", "image_normalize_std"):
        found, channels = values.get(name), values.get("numchannels")
        if found and channels == 1:
            values[name] = [round(sum(found) / len(found), 6)]
        elif found and channels == 3 and len(found) != 3:
            raise InputError(f"setting {name}", f"{found} for numchannels 3", "three numbers")
    return values


def as_list(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _configured():
    """The settings in src/config.py. Raises InputError on an unknown name or a missing one."""
    found = {}
    if not hasattr(config, "model_defaults"):
        raise InputError("src/config.py", "no model_defaults", "the function of the original file")
    for name, value in vars(config).items():
        helper = name.startswith("_") or name == "MODEL_ARCHS" or callable(value) or isinstance(value, types.ModuleType)
        if name in SETTINGS:
            found[name] = value
        elif not helper:
            hint = did_you_mean(name.lower(), SETTINGS) or "names of your own must begin with an underscore"
            raise InputError(f"src/config.py: unknown setting {name}", hint=hint)
    for name, setting in SETTINGS.items():
        if name not in found and "derived" not in setting.roles:
            raise InputError("src/config.py", f"no {name}", "a value for it")
    return found


def chosen(values):
    """The explicit values, validated; without those that are None and will be derived."""
    names = with_role("derived")
    return {name: validate(name, value) for name, value in values.items() if value is not None or name not in names}


def derived(name, values):
    """The value of a setting with the role "derived" that is None, computed from `values`, the chosen ones."""
    if name == "classes":
        classes = class_folders(values.get("train_path"))
        return validate(name, classes) if classes else []
    if name == "total_class":
        return len(values["classes"] if "classes" in values else derived("classes", values))
    model_arch = validate("model_arch", values.get("model_arch"))
    parents = {"checkpoint_dir": "checkpoints", "weight_dir": "weights", "tensorboard_dir": "graphs"}
    if name in parents:
        return f"{parents[name]}/{model_arch}"
    defaults = _model_defaults(model_arch)
    if name not in defaults:
        raise InputError("src/config.py", f"no {name} for {model_arch} in model_defaults", "a value for it")
    return validate(name, defaults[name])


def _model_defaults(model_arch):
    try:
        return dict(config.model_defaults(model_arch))
    except (Exception, SystemExit) as error:
        raise InputError(in_config(error)) from error
