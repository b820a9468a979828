"""Whether a network can learn from its input: checks a sample of images before training, and the accuracy after it."""

import functools
import hashlib
from collections import defaultdict, namedtuple

import cv2
import numpy as np

from src.console import suppress_stderr
from src.errors import InputError
from utils.files import read_file
from utils.images.loader import image_bytes, map_images

SAMPLE_SIZE = 100  # training images,
MAX_SAMPLE_BYTES = 256 * 2**20  # or fewer if they are large,
MIN_SAMPLE_SIZE = 8  # but at least this many
# Measured with all usual means and stds: healthy images give inputs with means from -2.2 to 2.7 and standard deviations
# up to 2. Dark photos and sparse drawings have small deviations, too, so one below MIN_STD alone is not unusual.
MIN_STD, MAX_MEAN_OR_STD = 0.1, 10
FLAT_CONTRAST = 2  # contrast up to which an image is of a single colour, with JPEG noise
DIM_CONTRAST = 16  # contrast below which there is hardly a picture: 12-bit values in a 16-bit file
MAX_AMBIGUOUS = 0.1  # fraction of images that are identical to one of another class
MAJORITY = 0.5

# Statistics of a training image as input of the network: its index; a checksum; its contrast, the largest difference
# between two pixels in a channel, in levels of 255; mean and variance of each channel, float64 [channels].
ImageStats = namedtuple("ImageStats", "index checksum contrast mean variance")


def input_note(data, config):
    """What is unusual about the network's input, and the setting to change; None if nothing is.

    It reads a sample of the training images, the same for the same seed, and does not affect training.

    Args:
        data: the DataSet of training images.
        config: settings.
    """
    count = max(MIN_SAMPLE_SIZE, min(SAMPLE_SIZE, MAX_SAMPLE_BYTES // image_bytes(config.img_size)))
    chosen = np.random.RandomState(config.seed).permutation(data.num_examples)[:count]
    sample = map_images(functools.partial(image_stats, data, config), chosen, "checking a sample of images")
    sample = [stats for stats in sample if stats]
    if not sample:
        return None
    mean, std = channel_stats(sample)
    return (
        range_note(mean, std, config) or content_note(sample, data, config) or contrast_note(mean, std, sample, config)
    )


def image_stats(data, config, index):
    """The ImageStats of a training image; None if it is corrupt: the step that reads it reports that."""
    try:
        image = data.read(np.array([index])).images[0]
    except InputError:
        return None
    mean, std = cv2.meanStdDev(image)
    channels = np.ascontiguousarray(image.reshape(-1, image.shape[2]).T)  # makes np.ptp ten times as fast
    contrast = (np.ptp(channels, axis=1) * np.array(config.image_normalize_std) * 255).max()
    return ImageStats(index, hashlib.sha1(image.tobytes()).digest(), contrast, mean.ravel(), std.ravel() ** 2)


def channel_stats(sample):
    """Mean and standard deviation of each channel over all pixels of all images, both float64 [channels]."""
    means, variances = np.array([stats.mean for stats in sample]), np.array([stats.variance for stats in sample])
    return means.mean(axis=0), np.sqrt(variances.mean(axis=0) + means.var(axis=0))


def describe_channels(mean, std):
    """Both as text, with three significant digits for each channel."""
    return f"mean {joined(mean, '.3g')}, standard deviation {joined(std, '.3g')}"


def joined(values, form):
    """Numbers as the command line takes them."""
    return ",".join(format(value, form) for value in values)


def range_note(mean, std, config):
    """That image_normalize_mean or image_normalize_std are meant for levels from 0 to 255 instead of 0 to 1."""
    unusual = (np.abs(mean) > MAX_MEAN_OR_STD) | (std < MIN_STD)
    wrong = {name: np.array(getattr(config, name)) for name in ("image_normalize_mean", "image_normalize_std")}
    wrong = {name: values for name, values in wrong.items() if (unusual & ((values < 0) | (values > 1))).any()}
    if not wrong:
        return None
    found = " and ".join(joined(values, "g") for values in wrong.values())
    return (
        f"setting{'s' * (len(wrong) > 1)} {' and '.join(wrong)}: found {found}, which gives the network inputs with "
        f"{describe_channels(mean, std)}, expected means near 0 and standard deviations near 1: "
        f"levels range from 0 to 1 here, not to 255; {suggestion(mean, std, config)}"
    )


def suggestion(mean, std, config):
    """The settings that normalize these images to mean 0 and standard deviation 1."""
    old_std = np.array(config.image_normalize_std)
    mean, std = mean * old_std + config.image_normalize_mean, np.maximum(std * old_std, 0.001)
    return f"these images have --image_normalize_mean {joined(mean, '.3f')} --image_normalize_std {joined(std, '.3f')}"


def content_note(sample, data, config):
    """That images lost their content: they are identical in several classes, or (nearly) of a single colour."""
    labels = defaultdict(set)
    for stats in sample:
        labels[stats.checksum].add(data.labels[stats.index])
    ambiguous = [stats for stats in sample if len(labels[stats.checksum]) > 1]
    flat = [stats for stats in sample if stats.contrast <= FLAT_CONTRAST]
    dim = [stats for stats in sample if stats.contrast < DIM_CONTRAST]
    in_files = "the files themselves are like this; python run.py check lists them"
    for found, limit, what, otherwise in (
        (flat, MAJORITY, "have a single colour", in_files),
        (ambiguous, MAX_AMBIGUOUS, "are identical to one of another class", in_files),
        (dim, MAJORITY, f"span fewer than {DIM_CONTRAST} of 256 levels", None),  # which std can make up for
    ):
        if len(found) > limit * len(sample):
            path = data.paths[found[0].index]
            preprocess = data.preprocess
            reason = lost_in_decoding(path, preprocess) or lost_in_resizing(path, found[0], preprocess) or otherwise
            if reason:
                count = f"{len(found)} of {len(sample)} sampled images"
                return f"setting train_path: {count} {what} in the network's input, such as {path}: {reason}"
    return None


def lost_in_decoding(path, preprocess):
    """What an image file holds that is dropped when it is read, and what to do; None if nothing is."""
    with suppress_stderr:
        raw = cv2.imdecode(np.frombuffer(read_file("image", path), np.uint8), cv2.IMREAD_UNCHANGED)
    has_alpha = raw is not None and raw.ndim == 3 and raw.shape[2] == 4 and np.ptp(raw[..., 3])
    if has_alpha and preprocess.transparency == "drop":
        return "its transparency is dropped, and the picture with it; --transparency white, or black, keeps it"
    if raw is not None and raw.dtype == np.uint16 and raw.max() < DIM_CONTRAST * 256:
        found = f"its 16-bit values end at {raw.max()} of 65535, of which the upper 8 bits are kept"
        return f"{found}; scale them to reach 65535, or convert to 8 bits"
    return None


def lost_in_resizing(path, stats, preprocess):
    """The settings that remove the content of an image; None if they do not."""
    if stats.contrast < DIM_CONTRAST <= np.ptp(preprocess.read(path), axis=(0, 1)).max():
        how = f"{preprocess.resize} to {preprocess.img_size} pixels leaves nothing of it"
        return f"settings resize and img_size: {how}"
    return None


def contrast_note(mean, std, sample, config):
    """That image_normalize_mean and image_normalize_std do not suit images that are dark, pale or glaring."""
    is_dim = np.median([stats.contrast for stats in sample]) < DIM_CONTRAST and (std < MIN_STD).all()
    if not is_dim and (std <= MAX_MEAN_OR_STD).all() and (np.abs(mean) <= MAX_MEAN_OR_STD).all():
        return None
    return (
        f"settings image_normalize_mean and image_normalize_std: they give the network inputs with "
        f"{describe_channels(mean, std)}, expected means near 0 and standard deviations near 1; "
        f"{suggestion(mean, std, config)}"
    )


def chance_note(history, labels, config, folder):
    """That training has learned nothing, and what to check; None if it has learned something.

    Args:
        history: Trainer.history.
        labels: those of the validation images, indices into config.classes.
        folder: where train_batch.png is.
    """
    counts = np.bincount(labels)
    best = max(entry["val_acc"] for entry in history)
    if round(best * len(labels)) > counts.max():
        return None
    return (
        f"best validation accuracy: found {best:.4f}, expected more than {counts.max() / len(labels):.4f}, that of "
        f"always predicting {config.classes[counts.argmax()]}, the most frequent class: by this measure nothing was "
        f"learned; look at {folder}/train_batch.png and at what python run.py check finds, then at settings lr, "
        "num_epoch, batch_size, image_normalize_mean and _std"
    )


def check_batch_norms(graph, config):
    """Raise InputError if a batch norm that is trained gets a single value per channel.

    Minus its own mean, this is always 0, so the output would be beta whatever the input.
    """
    for operation in graph.get_operations():
        if operation.type.startswith("FusedBatchNorm") and operation.get_attr("is_training"):
            _, height, width, _ = operation.inputs[0].shape.as_list()
            if config.batch_size * height * width == 1:
                layer = operation.name.rsplit("/", 1)[0]
                hint = f"batch norm in {layer} gets one pixel of one image, which it normalizes to 0"
                raise InputError("setting batch_size", config.batch_size, "2 or more, or a larger img_size", hint)
