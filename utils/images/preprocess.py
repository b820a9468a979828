"""From an image file to the network's input."""

import cv2
import numpy as np

from src.errors import InputError
from src.settings import check_recorded, with_role
from utils.images.decode import MIN_REDUCED, read_image

SETTINGS = with_role("preprocessing")
EARLIER = {"resize": "stretch", "transparency": "drop"}  # for graphs whose JSON predates the settings


class Preprocess:
    """Reads, resizes and normalizes images, identically in training, evaluation, prediction and conversion.

    Args:
        img_size: width and height of the result, in pixels.
        numchannels: of the network's input: 3; or 1, grey.
        image_normalize_mean, image_normalize_std: of each of these channels, for levels from 0 to 1.
        channel_order: "bgr" or "rgb", the order of three channels.
        resize: "stretch": ignore the aspect ratio; "crop": resize the shorter side to img_size and take a center crop;
            "pad": resize the longer side to img_size and pad with the mean colour.
        transparency: "drop": ignore it; "white" or "black": put the image on such a background.
    """

    def __init__(
        self, img_size, numchannels, image_normalize_mean, image_normalize_std, channel_order, resize, transparency
    ):
        self.img_size = img_size
        self.numchannels = numchannels
        self.image_normalize_mean = image_normalize_mean
        self.image_normalize_std = image_normalize_std
        self.channel_order = channel_order
        self.resize = resize
        self.transparency = transparency
        self._table = normalization_table(image_normalize_mean, image_normalize_std)

    @classmethod
    def of(cls, config):
        """The Preprocess of a run's settings."""
        return cls(**{name: getattr(config, name) for name in SETTINGS})

    @classmethod
    def from_json(cls, metadata, what):
        """The inverse of to_json. Raises InputError, naming `what`, if a setting is missing or invalid."""
        values = dict(EARLIER, **metadata)
        values = {name: check_recorded(what, name, values.get(name)) for name in SETTINGS}
        channels = values["numchannels"]
        for name in ("image_normalize_mean", "image_normalize_std"):
            if len(values[name]) != channels:
                raise InputError(what, f"{values[name]} for {name}", f"numbers for {channels} channels")
        return cls(**values)

    def to_json(self):
        """The settings, for the metadata of an exported graph."""
        values = {name: getattr(self, name) for name in SETTINGS}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def describe(self):
        """What else happens to an image, for the metadata of an exported graph: for people, but for border_colour."""
        colours = "colours become 0.299 red + 0.587 green + 0.114 blue"
        if self.numchannels == 3:
            colours = "grey repeated in all channels"
        transparency = "dropped" if self.transparency == "drop" else f"replaced by a {self.transparency} background"
        return {
            "decode": f"8 bits a channel, of 16 bits the upper 8; {colours}; transparency {transparency}",
            "large_jpeg": f"decoded at 1/8, 1/4 or 1/2 of its size if that divides both sides and leaves them at least "
            f"{MIN_REDUCED} times as long as the network's input",
            "orientation": "upright, as the EXIF data says",
            "interpolation": "area where no side grows and one is more than halved, else bilinear (OpenCV's INTER_AREA "
            "and INTER_LINEAR)",
            "border_colour": self.border_colour(),  # of resize "pad": blue, green, red, or grey, from 0 to 255
            "normalize": "(level / 255 - image_normalize_mean) / image_normalize_std, of channels in channel_order",
        }

    def load(self, path):
        """Read and resize an image file: uint8 [img_size, img_size, numchannels], channels blue, green, red or grey.

        Raises:
            InputError: the file does not exist or is not a valid image.
        """
        return self.fit(self.read(path))

    def read(self, path):
        """Read an image file: uint8 [H, W, 3], channels blue, green, red; a JPEG much larger than img_size is reduced.

        Raises InputError as load.
        """
        return read_image(path, self.img_size, self.transparency)

    def fit(self, image):
        """Resize an image, and make it grey if need be: uint8 [H, W, 3] -> uint8 [img_size, img_size, numchannels]."""
        if self.numchannels == 1:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        return self._resized(image).reshape(self.img_size, self.img_size, self.numchannels)

    def _resized(self, image):
        size, (height, width) = self.img_size, image.shape[:2]
        if (height, width) == (size, size):
            return image
        if self.resize == "stretch":
            return resample(image, size, size)
        if self.resize == "crop":
            # Limit the aspect ratio first, or resampling a thin image would make a huge one.
            image = center_crop(image, min(height, 4 * width), min(width, 4 * height))
            scale = size / min(height, width)
            height, width = (round(side * scale) for side in image.shape[:2])
            return center_crop(resample(image, width, height), size, size)
        scale = size / max(height, width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (size - height) // 2, (size - width) // 2
        borders = top, size - height - top, left, size - width - left
        return cv2.copyMakeBorder(
            resample(image, width, height), *borders, cv2.BORDER_CONSTANT, value=self.border_colour()
        )

    def border_colour(self):
        """The mean colour: blue, green, red, or grey, from 0 to 255."""
        mean = self.image_normalize_mean if self.channel_order == "bgr" else self.image_normalize_mean[::-1]
        return [float(np.clip(round(255 * level), 0, 255)) for level in mean]

    def normalize(self, images):
        """uint8 [n, size, size, numchannels] as from fit -> float32 of that shape, channels in channel_order."""
        tall = images.reshape(-1, *images.shape[2:])  # as one image: a single call of OpenCV is faster
        if self.numchannels == 3 and self.channel_order == "rgb":
            tall = cv2.cvtColor(tall, cv2.COLOR_BGR2RGB)
        return cv2.LUT(tall, self._table).reshape(images.shape)

    def to_rgb(self, images):
        """The inverse of normalize, for display: uint8 [n, size, size, 3], channels red, green, blue."""
        images = images * np.array(self.image_normalize_std) + np.array(self.image_normalize_mean)
        images = np.clip(np.round(images * 255), 0, 255).astype(np.uint8)
        if self.numchannels == 1:
            return np.repeat(images, 3, axis=3)
        return images if self.channel_order == "rgb" else images[..., ::-1]


def normalization_table(mean, std):
    """(level / 255 - mean) / std for each of the 256 levels of each channel: float32 [1, 256, channels].

    A lookup is six times faster than the computation.
    """
    table = np.repeat(np.arange(256, dtype=np.float32).reshape(1, 256, 1), len(mean), axis=2)
    table *= np.float32(1.0 / 255.0)
    table -= np.array(mean, np.float32)
    table /= np.array(std, np.float32)
    return table


def center_crop(image, height, width):
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def resample(image, width, height):
    """Resize an image: bilinear, or with area interpolation when downscaling by more than 2.

    Bilinear interpolation reads four pixels per output pixel, so that it would skip most of a photo.
    """
    factors = image.shape[0] / height, image.shape[1] / width
    is_halved = min(factors) >= 1 and max(factors) > 2
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if is_halved else cv2.INTER_LINEAR)
