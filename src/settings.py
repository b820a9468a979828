"""From src/config.py to the checked settings of one run."""

import argparse
import ast
import json
import os
import types
import unicodedata
from collections import namedtuple

from src import config
from src.errors import InputError, did_you_mean, in_config
from src.folders import class_folders

# A setting's line in --help; `read` turns command line text into a value, `ok` judges it, `expected` says it in words.
Rule = namedtuple("Rule", "help read ok expected")

LARGEST = 2**31 - 1  # whole number
HUGE = 1e30  # too large for any number
MOST_CLASSES = 10**5  # ImageNet's largest set has 21,841
LONGEST = 200  # characters of a value in a message
BREAKS = ("Cc", "Zl", "Zp")  # Unicode's categories of control characters and line breaks


def _literal(text):
    try:
        return ast.literal_eval(text) if len(text) < 200 else text
    except (TypeError, ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _class_names(text):
    """Names between commas, or a JSON list of names, which may hold commas themselves."""
    if not text.startswith("["):
        return None if text == "None" else text.split(",")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < HUGE


def _is_integer(value, at_least, at_most=LARGEST):
    return isinstance(value, int) and not isinstance(value, bool) and at_least <= value <= at_most


def _is_name(value):
    return isinstance(value, str) and value.strip() != "" and _is_path(value)


def _is_path(text):
    """Whether a file could have that name: not one with half a character, which JSON can hold, for one."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _is_class_name(value):
    """The name of a folder, no path. A line break would be another class in labels.txt; an escape sequence would upset
    the terminal."""
    is_text = (
        _is_name(value) and _is_utf8(value) and not any(unicodedata.category(letter) in BREAKS for letter in value)
    )
    return is_text and "/" not in value and value not in (os.curdir, os.pardir)


def _is_utf8(text):
    """Names of files and folders need not be."""
    return text == text.encode("utf-8", "ignore").decode("utf-8")


def _are_class_names(value):
    return (
        isinstance(value, (list, tuple))
        and 0 < len(value) <= MOST_CLASSES
        and all(map(_is_class_name, value))
        and len(set(value)) == len(value)
    )


# Kinds of settings: read, ok, expected.
def integer(at_least, at_most=LARGEST):
    limits = f"{at_least} or more" if at_most == LARGEST else f"{at_least} to {at_most}"
    return _literal, lambda value: _is_integer(value, at_least, at_most), f"a whole number, {limits}"


def number(ok, expected):
    return _literal, lambda value: _is_number(value) and ok(value), expected


def three_numbers(at_least, at_most, limits):
    def ok(value):
        return isinstance(value, (list, tuple)) and len(value) == 3 and all(map(part_ok, value))

    def part_ok(part):
        return _is_number(part) and at_least <= part <= at_most

    return _literal, ok, f"three numbers{limits}, such as 0.485,0.456,0.406"


def one_of(*names):
    return str, lambda value: isinstance(value, str) and value in names, " or ".join(names)


POSITIVE = number(lambda value: value > 0, "a number above 0")
NOT_NEGATIVE = number(lambda value: value >= 0, "a number, 0 or more")
SHARE = number(lambda value: 0 <= value < 1, "a number from 0 to below 1")
WIDTH = number(lambda value: 0 < value <= 10, "a number above 0, at most 10")
FRACTION = number(lambda value: 0 < value < 1, "a fraction above 0 and below 1")
EPOCHS = (_literal, lambda value: value is None or _is_integer(value, 1), "a whole number, 1 or more, or None")
RUNS = (_literal, lambda value: value is None or _is_integer(value, 0), "a whole number, 0 or more, or None")
CLASS_WEIGHTS = one_of("none", "balanced")
BAD_IMAGES = one_of("stop", "skip")
STRIDES = one_of("paper", "small")
RESIZE = one_of("stretch", "crop", "pad")
MEMORY_CHECK = one_of("on", "off")
AUGMENT = one_of("none", "crop", "crop+flip")
CLASS_NAMES = (
    _class_names,
    _are_class_names,
    'a list of different names of folders, such as ["cat", "dog"], in UTF-8, without / or line breaks',
)
FOLDER = (str, _is_name, "the path of a folder")
FOLDER_OR_NONE = (
    lambda text: None if text == "None" else text,
    lambda value: value is None or _is_name(value),
    "the path of a folder, or None",
)
OUTPUT_FOLDER = (str, lambda value: _is_name(value) and _is_utf8(value), "the path of a folder, in UTF-8")
CHECKPOINT_FOLDER = (
    str,
    lambda value: _is_name(value) and _is_utf8(value) and not set(value) & set("*?[]\\"),
    "the path of a folder, with no * ? [ ] or \\ in it (wildcards to TensorFlow)",
)
CHECKPOINT = (
    lambda text: None if text == "None" else text,
    lambda value: value is None or _is_name(value),
    "a checkpoint, a folder of checkpoints, or a file of Keras' MobileNetV2 weights (.h5), or None",
)

if not isinstance(config.MODEL_ARCHS, dict) or not all(
    isinstance(name, str) and _is_integer(size, 1) for name, size in config.MODEL_ARCHS.items()
):
    raise InputError("MODEL_ARCHS", expected="the names of networks, with the smallest img_size of each")
RULES = {
    "model_arch": Rule("architecture of the network", *one_of(*config.MODEL_ARCHS)),
    "img_size": Rule("width and height in pixels that images are resized to", *integer(at_least=1, at_most=4096)),
    "numchannels": Rule(
        "colour channels of the network's input", _literal, lambda value: _is_integer(value, 3, 3), "3"
    ),
    "width": Rule("mobilenetv2: factor on the depth of every layer", *WIDTH),
    "strides": Rule("mobilenetv2: paper; or small, for images of some 32 pixels", *STRIDES),
    "batch_norm_momentum": Rule("mobilenetv2: share of the moving mean and variance that is kept at each step", *SHARE),
    "pretrained": Rule("weights to start from, where name and shape agree", *CHECKPOINT),
    "train_layers": Rule("head: only the classifier learns, the rest stays as it is", *one_of("all", "head")),
    "train_path": Rule("training images, one folder per class", *FOLDER),
    "test_path": Rule("test images, one folder per class", *FOLDER),
    "classes": Rule("class folders to learn, by default all in train_path", *CLASS_NAMES),
    "total_class": Rule("number of classes", *integer(at_least=0, at_most=MOST_CLASSES)),
    "valid_path": Rule("validation images, one folder per class; None: some of the training images", *FOLDER_OR_NONE),
    "validation_size": Rule("fraction of the training images held out for validation", *FRACTION),
    "batch_size": Rule("images per training step", *integer(at_least=1)),
    "image_normalize_mean": Rule(
        "subtracted from each channel after scaling it to 0..1", *three_numbers(-1e6, 1e6, " from -1000000 to 1000000")
    ),
    "image_normalize_std": Rule(
        "each channel is then divided by this", *three_numbers(1e-6, 1e6, " from 0.000001 to 1000000")
    ),
    "channel_order": Rule("bgr: as OpenCV reads images; rgb: swapped before normalization", *one_of("bgr", "rgb")),
    "resize": Rule("stretch: to a square; crop: its middle; pad: with borders in the mean colour", *RESIZE),
    "augment": Rule("crop: shift training images; crop+flip: also mirror half of them", *AUGMENT),
    "class_weights": Rule("balanced: images of rare classes count for more in the training cost", *CLASS_WEIGHTS),
    "bad_images": Rule("stop: end at a corrupt image; skip: it is left out and counted", *BAD_IMAGES),
    "cache_mb": Rule("megabytes of decoded images to keep in memory", *NOT_NEGATIVE),
    "seed": Rule("decides the split, the order of the batches and the first weights", *integer(at_least=0)),
    "num_epoch": Rule("epochs to train for", *integer(at_least=1)),
    "lr": Rule("learning rate of the first step", *POSITIVE),
    "decay": Rule("factor on the learning rate after every step_rate steps", *POSITIVE),
    "step_rate": Rule("steps between two decays of the learning rate", *integer(at_least=1)),
    "epsilon": Rule("Adam's epsilon", *POSITIVE),
    "weight_decay": Rule("factor on half the sum of the squared kernels, added to the loss", *NOT_NEGATIVE),
    "early_stopping": Rule("stop when the validation loss has not fallen for this many epochs; None: never", *EPOCHS),
    "device": Rule("gpu: the GPU if TensorFlow finds one, else the CPU; cpu: the CPU", *one_of("gpu", "cpu")),
    "memory_check": Rule("off: train even if it is estimated to take more memory than there is", *MEMORY_CHECK),
    "step_timeout": Rule("in a cluster: seconds after which a training step is taken to be stuck", *POSITIVE),
    "cluster_timeout": Rule("in a cluster: seconds to wait for other members between steps", *POSITIVE),
    "checkpoint_minutes": Rule("a checkpoint is also written when this many minutes have passed", *POSITIVE),
    "keep_runs": Rule("how many earlier runs keep their checkpoints; None: all", *RUNS),
    "checkpoint_dir": Rule("folder for checkpoints", *CHECKPOINT_FOLDER),
    "weight_dir": Rule("folder for the exported graph", *OUTPUT_FOLDER),
    "tensorboard_dir": Rule("folder for TensorBoard logs, one folder per run", *OUTPUT_FOLDER),
}
FOLDERS = {"checkpoint_dir": "checkpoints", "weight_dir": "weights", "tensorboard_dir": "graphs"}
# None for one of these means that it follows from other settings.
FOLLOWING = ["img_size", "weight_decay", "classes", "total_class"] + list(FOLDERS)


def check(name, value):
    """The value; numbers and arrays of numpy as plain ones. Raises InputError unless the setting `name` can have it."""
    if name not in RULES:
        raise InputError(f"setting {name}: unknown setting", hint=did_you_mean(name, RULES))
    value = value.tolist() if hasattr(value, "tolist") else value
    if not RULES[name].ok(value):
        raise InputError(f"setting {name}", shortened(value), expected_of(RULES[name], value))
    return value


def shortened(value):
    """A value as it is written, in a line; only the beginning of a long one."""
    if isinstance(value, int) and abs(value) >= HUGE:  # it can have more digits than Python prints
        return "a huge number"
    try:
        text = " ".join(repr(value).split())
    except ValueError:
        return "huge numbers"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def expected_of(rule, value):
    """What a rule expects, in words; where something is too large also the limit, of which nobody else is told."""
    if isinstance(value, (int, float)) and value > LARGEST:
        if rule.expected.startswith("a whole number"):
            return rule.expected.replace(" or more", f" to {LARGEST}")
        if value >= HUGE and rule.expected in (POSITIVE[2], NOT_NEGATIVE[2]):
            return f"{rule.expected}, below {HUGE:g}"
    if isinstance(value, (list, tuple)) and len(value) > MOST_CLASSES:
        return f"{rule.expected}, at most {MOST_CLASSES}"
    return rule.expected


def settings(**given):
    """The settings of one run, checked, as a namespace of their own.

    given > a value in src/config.py (or assigned to it) > following from other settings.

    Raises:
        InputError: a setting that does not exist, or of the wrong type or range.
    """
    return settings_for(RULES, given)


def settings_for(names, given):
    """As settings, but only those with these names, model_arch among them, and those given.

    Whatever src/config.py says of the others, it does not stop a command that does not use them.
    """
    values = _chosen({**{name: value for name, value in _configured().items() if name in names}, **given})
    following = _following_model(values, names)
    if "classes" in names:
        following.update(_following_data(values))
    run = argparse.Namespace(**{**following, **values})
    smallest = config.MODEL_ARCHS[run.model_arch]
    if "img_size" in names and run.img_size < smallest:
        raise InputError("setting img_size", run.img_size, f"{smallest} or more for {run.model_arch}")
    if "total_class" in names and run.total_class != len(run.classes):
        raise InputError("setting total_class", run.total_class, f"{len(run.classes)}, the number of classes")
    return run


def _configured():
    """What src/config.py says. Raises InputError if it has a name too many or lacks one."""
    found = {}
    for name in ("MODEL_ARCHS", "model_defaults"):
        if not hasattr(config, name):
            raise InputError("src/config.py", f"no {name}", "what it had at first")
    for name, value in vars(config).items():
        helper = name.startswith("_") or name == "MODEL_ARCHS" or callable(value) or isinstance(value, types.ModuleType)
        if name in RULES:
            found[name] = value
        elif not helper:
            hint = did_you_mean(name.lower(), RULES) or "names of your own must begin with an underscore"
            raise InputError(f"src/config.py: unknown setting {name}", hint=hint)
    for name in RULES:
        if name not in found and name not in FOLLOWING:
            raise InputError("src/config.py", f"no {name}", "a value for it")
    return found


def _chosen(values):
    """Those that are not to follow from others, checked."""
    return {name: check(name, value) for name, value in values.items() if value is not None or name not in FOLLOWING}


def _following_model(values, names):
    """The settings with these names that follow from model_arch."""
    model_arch = check("model_arch", values.get("model_arch"))
    defaults = _model_defaults(model_arch)
    following = {name: f"{folder}/{model_arch}" for name, folder in FOLDERS.items()}
    for name in [name for name in ("img_size", "weight_decay") if name in names]:
        if name in defaults:
            following[name] = check(name, defaults[name])
        elif name not in values:
            raise InputError("src/config.py", f"no {name} for {model_arch} in model_defaults", "lines for it")
    return following


def _model_defaults(model_arch):
    try:
        return dict(config.model_defaults(model_arch))
    except (Exception, SystemExit) as error:
        raise InputError(in_config(error)) from error


def _following_data(values):
    """The settings that follow from train_path."""
    classes = values.get("classes") or class_folders(values.get("train_path"))
    return {"classes": check("classes", classes) if classes else [], "total_class": len(classes)}


class Config(types.ModuleType):
    """src/config.py to those who read it: config.img_size is 32 where the file says None."""

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        if value is None and name in FOLLOWING:
            values = _chosen({key: found for key, found in vars(self).items() if key in RULES})
            if name in ("classes", "total_class"):
                return _following_data(values)[name]
            return _following_model(values, [name])[name]
        return value


config.__class__ = Config
