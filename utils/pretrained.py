"""Weights that a run begins with: those of a checkpoint, or of Keras' MobileNetV2."""

import os

import numpy as np

from models import in_head
from src import config
from src.console import print_note, say
from src.errors import InputError
from src.settings import settings, with_role
from utils.checkpoints import Checkpoints, assign, find_checkpoint
from utils.keras_weights import expected_settings, is_keras_file, read_keras_weights

PRETRAINED_SETTINGS = with_role("preprocessing", "architecture")


def inherit_settings(given):
    """The settings of a run: PRETRAINED_SETTINGS, if not given, are as in the record of its initial checkpoint."""
    now = settings(**given)
    if now.pretrained is None:
        if now.train_layers == "head":
            print_note("setting train_layers: only the head learns, on top of first weights that learned nothing")
        return now
    if is_keras_file(now.pretrained):
        recorded = dict(expected_settings(now.pretrained), model_arch="mobilenetv2")
    else:
        prefix = find_checkpoint("setting pretrained", now.pretrained)
        recorded = (Checkpoints(os.path.dirname(prefix)).entry(prefix) or {}).get("settings", {})
    if recorded.get("model_arch") != now.model_arch:
        return now
    inherited = {name: recorded[name] for name in PRETRAINED_SETTINGS if name in recorded}
    if vars(config)["img_size"] is not None:
        inherited.pop("img_size", None)
    return settings(**dict(inherited, **given))


def load_pretrained(session, variables, config):
    """Take over the weights in config.pretrained for variables of the same name and shape; list the others."""
    if is_keras_file(config.pretrained):
        source, weights = config.pretrained, read_keras_weights("setting pretrained", config.pretrained)
    else:
        source = find_checkpoint("setting pretrained", config.pretrained)
        weights = Checkpoints(os.path.dirname(source)).read(source, "setting pretrained")
    fitting, others = [], []
    for variable in variables:
        fits = np.shape(weights.get(variable.op.name)) == tuple(variable.shape.as_list())
        (fitting if fits else others).append(variable)
    if not fitting:
        expected = f"expected weights of a {config.model_arch}"
        raise InputError(f"setting pretrained: found nothing in {config.pretrained} that fits, {expected}")
    broken = [variable.op.name for variable in fitting if not np.isfinite(weights[variable.op.name]).all()]
    if broken:
        found = f"found numbers in {broken[0]} of {source} that are not finite"
        raise InputError(f"setting pretrained: {found}, expected weights that learned something")
    if all(in_head(variable, config.model_arch) for variable in fitting):
        expected = f"expected weights of a {config.model_arch} of this width"
        raise InputError(f"setting pretrained: found only the classifier of {config.pretrained} to fit, {expected}")
    assign(session, fitting, weights)
    names = [variable.op.name for variable in others]
    rest = f", all but {', '.join(names[:4])}{' and others' if len(names) > 4 else ''}" if names else ""
    say(f"weights of {source}: took {len(fitting)} of {len(variables)} variables{rest}")
    say("with " + ", ".join(f"{name} {getattr(config, name)}" for name in PRETRAINED_SETTINGS))
