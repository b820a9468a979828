"""Whether a network can learn from what enters it: a look at some images before the first step, and at the accuracy
after the last."""

import functools
import hashlib
from collections import defaultdict, namedtuple

import cv2
import numpy as np

from src.console import suppress_stderr
from src.errors import InputError
from utils.files import read_file
from utils.images.decode import read_image
from utils.images.loader import image_bytes, map_images

SAMPLE = 100  # training images to look at,
SAMPLE_BYTES = 256 * 2**20  # or fewer, if they are large,
SAMPLE_LEAST = 8  # but not less than these
# Measured: healthy images enter with means from -2.2 to 2.7 and deviations up to 2, with each usual mean and std. Dark
# photos and drawings of few lines have small deviations as well, so that SMALL alone is not unusual.
SMALL, LARGE = 0.1, 10
FLAT = 2  # levels of 255 between the darkest and the brightest pixel: an image of one colour, with the noise of JPEG
DIM = 16  # levels that are hardly a picture: what is left of 12 bits in a file of 16 bits
AMBIGUOUS = 0.1  # share of images that are the same as one of another class
MOSTLY = 0.5

# Of a training image as it enters the network: its index; a checksum; its contrast, the largest difference between two
# pixels in a channel, in levels of 255; mean and variance of each channel, float64 [3].
Look = namedtuple("Look", "index checksum contrast mean variance")


def input_note(data, config):
    """What is unusual about the images that enter the network, and the setting to change; None if nothing is.

    It looks at some training images, always the same for a seed, and changes nothing in what is learned.

    Args:
        data: the DataSet of training images.
        config: settings.
    """
    count = max(SAMPLE_LEAST, min(SAMPLE, SAMPLE_BYTES // image_bytes(config.img_size)))
    chosen = np.random.RandomState(config.seed).permutation(data.num_examples)[:count]
    looks = map_images(functools.partial(look_at, data, config), chosen, "looking at images")
    looks = [look for look in looks if look]
    if not looks:
        return None
    mean, deviation = mean_and_deviation(looks)
    return (
        range_note(mean, deviation, config)
        or content_note(looks, data, config)
        or contrast_note(mean, deviation, looks, config)
    )


def look_at(data, config, index):
    """The Look of a training image; None if it cannot be read, for the step that needs it will say so."""
    try:
        image = data.read(np.array([index])).images[0]
    except InputError:
        return None
    mean, deviation = cv2.meanStdDev(image)
    channels = np.ascontiguousarray(image.reshape(-1, 3).T)  # ten times as fast to go through
    contrast = (np.ptp(channels, axis=1) * np.array(config.image_normalize_std) * 255).max()
    return Look(index, hashlib.sha1(image.tobytes()).digest(), contrast, mean.ravel(), deviation.ravel() ** 2)


def mean_and_deviation(looks):
    """Of each channel over all pixels of all images, both float64 [3]."""
    means, variances = np.array([look.mean for look in looks]), np.array([look.variance for look in looks])
    return means.mean(axis=0), np.sqrt(variances.mean(axis=0) + means.var(axis=0))


def describe_channels(mean, deviation):
    """Both in words, three significant digits for each channel."""
    return f"mean {listed(mean, '.3g')}, deviation {listed(deviation, '.3g')}"


def listed(values, form):
    """Numbers as the command line takes them."""
    return ",".join(format(value, form) for value in values)


def range_note(mean, deviation, config):
    """image_normalize_mean or image_normalize_std are for levels from 0 to 255, where those from 0 to 1 are meant."""
    unusual = (np.abs(mean) > LARGE) | (deviation < SMALL)
    wrong = {name: np.array(getattr(config, name)) for name in ("image_normalize_mean", "image_normalize_std")}
    wrong = {name: values for name, values in wrong.items() if (unusual & ((values < 0) | (values > 1))).any()}
    if not wrong:
        return None
    found = " and ".join(listed(values, "g") for values in wrong.values())
    return (
        f"setting{'s' * (len(wrong) > 1)} {' and '.join(wrong)}: found {found}, with which images enter the network "
        f"with {describe_channels(mean, deviation)}, expected means near 0 and deviations near 1: "
        f"levels count from 0 to 1 here, not to 255; {measured(mean, deviation, config)}"
    )


def measured(mean, deviation, config):
    """Which mean and std the images themselves have, as settings."""
    std = np.array(config.image_normalize_std)
    mean, std = mean * std + config.image_normalize_mean, np.maximum(deviation * std, 0.001)
    return f"these images have --image_normalize_mean {listed(mean, '.3f')} --image_normalize_std {listed(std, '.3f')}"


def content_note(looks, data, config):
    """The pictures are lost: images are the same in several classes, or of one colour, or nearly so."""
    labels = defaultdict(set)
    for look in looks:
        labels[look.checksum].add(data.labels[look.index])
    ambiguous = [look for look in looks if len(labels[look.checksum]) > 1]
    flat = [look for look in looks if look.contrast <= FLAT]
    dim = [look for look in looks if look.contrast < DIM]
    in_files = "so they are in the files; python run.py check tells more"
    for found, share, what, otherwise in (
        (flat, MOSTLY, "are of one colour", in_files),
        (ambiguous, AMBIGUOUS, "are the same as one of another class", in_files),
        (dim, MOSTLY, f"span fewer than {DIM} of 256 levels", None),  # which image_normalize_std can make good
    ):
        if len(found) > share * len(looks):
            path = data.paths[found[0].index]
            reason = lost_in_reading(path) or lost_in_resizing(path, found[0], config) or otherwise
            if reason:
                entering = f"{len(found)} of {len(looks)} images looked at {what} when they enter the network"
                return f"setting train_path: {entering}, such as {path}: {reason}"
    return None


def lost_in_reading(path):
    """What an image file holds that read_image leaves out, and what to do; None if there is nothing."""
    with suppress_stderr:
        raw = cv2.imdecode(np.frombuffer(read_file("image", path), np.uint8), cv2.IMREAD_UNCHANGED)
    if raw is not None and raw.ndim == 3 and raw.shape[2] == 4 and np.ptp(raw[..., 3]):
        return "its transparency is dropped, and the picture with it; draw such images on a background first"
    if raw is not None and raw.dtype == np.uint16 and raw.max() < DIM * 256:
        found = f"its 16-bit values end at {raw.max()} of 65535, of which the upper 8 bits are kept"
        return f"{found}; multiply them so that they reach 65535, or write 8 bits"
    return None


def lost_in_resizing(path, look, config):
    """Which settings make a picture of one colour that is none in its file; None if they do not."""
    if look.contrast < DIM <= np.ptp(read_image(path), axis=(0, 1)).max():
        return f"settings resize and img_size: {config.resize} to {config.img_size} pixels leaves nothing of it"
    return None


def contrast_note(mean, deviation, looks, config):
    """Images that are dark, pale or glaring to the network, so that image_normalize_std does not fit them."""
    is_dim = np.median([look.contrast for look in looks]) < DIM and (deviation < SMALL).all()
    if not is_dim and (deviation <= LARGE).all() and (np.abs(mean) <= LARGE).all():
        return None
    return (
        f"settings image_normalize_mean and image_normalize_std: with them images enter the network with "
        f"{describe_channels(mean, deviation)}, expected means near 0 and deviations near 1; "
        f"{measured(mean, deviation, config)}"
    )


def chance_note(history, labels, config, folder):
    """That a training has learned nothing, with what to look at; None if it has learned something.

    Args:
        history: Trainer.history.
        labels: those of the validation images, indices into config.classes.
        folder: where train_batch.png is.
    """
    counts = np.bincount(labels)
    best = max(entry["val_acc"] for entry in history)
    if round(best * len(labels)) > counts.max():
        return None
    always = f"{config.classes[counts.argmax()]}, the most frequent class, for each validation image"
    return (
        f"best validation accuracy: found {best:.4f}, expected more than {counts.max() / len(labels):.4f}, which one "
        f"gets by answering {always}: by this measure nothing was learned; look at {folder}/train_batch.png and at "
        "what python run.py check finds, then at settings lr, num_epoch, batch_size, image_normalize_mean and _std"
    )


def check_batch_norms(graph, config):
    """Raise InputError if a batch norm that learns gets one number for each channel.

    Less its own mean, this is 0 whatever enters the network, so that the output is beta.
    """
    for operation in graph.get_operations():
        if operation.type.startswith("FusedBatchNorm") and operation.get_attr("is_training"):
            _, height, width, _ = operation.inputs[0].shape.as_list()
            if config.batch_size * height * width == 1:
                layer = operation.name.rsplit("/", 1)[0]
                why = f"batch norm in {layer} gets one pixel of one image there, and makes 0 of it"
                raise InputError(
                    f"setting batch_size: found {config.batch_size}, expected 2 or more, or a larger img_size: {why}"
                )
