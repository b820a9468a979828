"""From src/config.py to the checked settings of one run."""
import argparse
import ast
import os
import re
from collections import OrderedDict, namedtuple

from src import config
from src.errors import InputError

# What a setting must be: `read` makes a value of command line text, `ok` judges it, `expected` says it in words.
Rule = namedtuple("Rule", "read ok expected")


def _literal(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30


def whole(least, most=2 ** 31 - 1):
    return Rule(_literal,
                lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most,
                "a whole number, %s" % ("%d or more" % least if most == 2 ** 31 - 1 else "%d to %d" % (least, most)))


def number(ok, expected):
    return Rule(_literal, lambda value: _is_number(value) and ok(value), expected)


def one_of(*names):
    return Rule(str, lambda value: value in names, " or ".join(names))


def three_numbers(ok, expected):
    return Rule(_literal,
                lambda value: (isinstance(value, (list, tuple)) and len(value) == 3
                               and all(_is_number(part) and ok(part) for part in value)),
                expected)


def _is_name(value):
    return isinstance(value, str) and value.strip() != "" and "\0" not in value


def _is_text(value):
    """Whether it can be written to a file: names of files and folders need not be UTF-8."""
    try:
        return bool(value.encode("utf-8"))
    except UnicodeEncodeError:
        return False


POSITIVE = number(lambda value: value > 0, "a number above 0")
FOLDER = Rule(str, _is_name, "the path of a folder")

RULES = OrderedDict([
    ("model_arch", one_of(*config.MODEL_ARCHS)),
    ("img_size", whole(1, 4096)),
    ("numchannels", Rule(_literal, lambda value: value == 3, "3")),
    ("width", POSITIVE),
    ("batch_norm_momentum", number(lambda value: 0 <= value < 1, "a number from 0 to below 1")),
    ("pretrained", Rule(lambda text: None if text == "None" else text, lambda value: value is None or _is_name(value),
                        "a checkpoint, such as checkpoints/lenet5/lenet5-1312, or a folder with some, or None")),
    ("train_path", FOLDER),
    ("test_path", FOLDER),
    ("classes", Rule(lambda text: text.split(","),
                     lambda value: (isinstance(value, (list, tuple)) and all(map(_is_name, value))
                                    and all(map(_is_text, value)) and len(set(value)) == len(value)),
                     "different names of class folders, such as cat,dog, in UTF-8")),
    ("total_class", whole(0)),
    ("validation_size", number(lambda value: 0 < value < 1, "a fraction above 0 and below 1")),
    ("batch_size", whole(1)),
    ("image_normalize_mean", three_numbers(lambda part: True, "three numbers, such as 0.485,0.456,0.406")),
    ("image_normalize_std", three_numbers(lambda part: part > 0,
                                          "three numbers above 0, such as 0.229,0.224,0.225")),
    ("channel_order", one_of("bgr", "rgb")),
    ("augment", one_of("none", "crop", "crop+flip")),
    ("cache_mb", number(lambda value: value >= 0, "a number, 0 or more")),
    ("seed", whole(0)),
    ("num_epoch", whole(1)),
    ("lr", POSITIVE),
    ("decay", POSITIVE),
    ("step_rate", whole(1)),
    ("epsilon", POSITIVE),
    ("weight_decay", number(lambda value: value >= 0, "a number, 0 or more")),
    ("early_stopping", Rule(_literal, lambda value: value is None or whole(1).ok(value),
                            "a whole number, 1 or more, or None")),
    ("device", one_of("gpu", "cpu")),
    ("checkpoint_dir", Rule(str, lambda value: _is_name(value) and not set(value) & set("*?[]\\"),
                            "the path of a folder, with no * ? [ ] or \\ in it (wildcards to TensorFlow)")),
    ("weight_dir", FOLDER),
    ("tensorboard_dir", FOLDER),
])


def check(name, value):
    """Raise InputError unless `value` is one that the setting `name` can have."""
    if name not in RULES:
        raise InputError("setting %s: there is none of that name; python run.py --help lists them all" % name)
    if not RULES[name].ok(value):
        raise InputError("setting %s: found %r, expected %s" % (name, value, RULES[name].expected))


def settings(**given):
    """The settings of one run, checked, as a namespace of their own.

    given > set by hand in src/config.py (or assigned to it) > following from other settings > default.

    Raises:
        InputError: a setting that does not exist, or of the wrong type or range.
    """
    given = {name: value.item() if getattr(value, "shape", None) == () else value for name, value in given.items()}
    model_arch = given.get("model_arch", config.model_arch)
    check("model_arch", model_arch)
    chosen = {name: getattr(config, name) for name in RULES
              if name not in config.derived or getattr(config, name) != config.derived[name]}
    chosen.update(given, model_arch=model_arch, train_path=given.get("train_path", config.train_path))
    for name, value in chosen.items():
        check(name, value)
    values = dict(config.derive(model_arch, chosen["train_path"], chosen.get("classes")), **chosen)
    check("classes", values["classes"])
    least = config.MODEL_ARCHS[model_arch]
    if values["img_size"] < least:
        raise InputError("setting img_size: found %d, expected %d or more for %s"
                         % (values["img_size"], least, model_arch))
    if values["total_class"] != len(values["classes"]):
        raise InputError("setting total_class: found %d, expected %d, the number of classes"
                         % (values["total_class"], len(values["classes"])))
    return argparse.Namespace(**values)


def comments():
    """{setting: the comment behind it in src/config.py}."""
    path = os.path.splitext(config.__file__)[0] + ".py"
    with open(path, encoding="utf-8") as source:
        found = re.findall(r"^ *(\w+) *=.*?# *(.+)$", source.read(), re.MULTILINE)
    return dict(reversed(found))  # where a name is assigned twice, the first comment counts
