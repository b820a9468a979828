"""The graph builders, by the names that `model_arch` can have."""
from models.lenet5 import LeNet
from models.mobilenetv2 import MobileNetv2


def _lenet5(shape, is4Train, config, image):
    return LeNet(shape, config.total_class, image)


def _mobilenetv2(shape, is4Train, config, image):
    return MobileNetv2(shape, is4Train, config.width, config.total_class, config.batch_norm_momentum, image)


MODELS = {"lenet5": _lenet5, "mobilenetv2": _mobilenetv2}


def build(config, is4Train, image=None):
    """Build config.model_arch into the default graph; returns the model.

    Args:
        is4Train: the network to learn with; if False, the one to predict with.
        image: the input, if there is one already: then the network shares the variables of the one that has it.
    """
    shape = [None, config.img_size, config.img_size, config.numchannels]
    return MODELS[config.model_arch](shape, is4Train, config, image)
