"""The graph builders, by the names that `model_arch` can have."""
from models.lenet5 import LeNet

MODELS = {"lenet5": LeNet}


def build(config):
    """Build config.model_arch for config's image size and classes into the default graph; returns the model."""
    shape = [None, config.img_size, config.img_size, config.numchannels]
    return MODELS[config.model_arch](shape, total_class=config.total_class)
