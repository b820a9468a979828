"""From an image file to the input of an exported network, with OpenCV and NumPy. Copy it to where the network runs.

with open("lenet5.json") as file:
    about = json.load(file)
images = prepare("photo.jpg", about)  # float32 [1, size, size, 3]
"""

import cv2
import numpy as np


def prepare(path, about):
    """The input for an image file: float32 [1, size, size, 3]. `about` is the JSON beside the graph, as a dict."""
    # Blue, green, red of 8 bits; grey repeated, transparency dropped, rotated as the EXIF data of a JPEG says.
    image = cv2.imread(path, cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path} is no image")
    image = fit(image, about["input"]["shape"][1], about["resize"], about["preprocessing"]["border_colour"])
    if about["channel_order"] == "rgb":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    image = (image / 255.0 - about["image_normalize_mean"]) / about["image_normalize_std"]
    return image[np.newaxis].astype(np.float32)


def fit(image, size, mode, border_colour):
    height, width = image.shape[:2]
    if mode == "stretch":
        return resize(image, size, size)
    if mode == "crop":  # the shorter side becomes `size`, and the center is cut out
        image = center(image, min(height, 4 * width), min(width, 4 * height))
        scale = size / min(height, width)
        height, width = (round(side * scale) for side in image.shape[:2])
        return center(resize(image, height, width), size, size)
    scale = size / max(height, width)  # pad: the longer side becomes `size`, and borders fill the rest
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size - height) // 2, (size - width) // 2
    borders = top, size - height - top, left, size - width - left
    return cv2.copyMakeBorder(resize(image, height, width), *borders, cv2.BORDER_CONSTANT, value=border_colour)


def resize(image, height, width):
    """Area interpolation where no side grows and one is more than halved; else bilinear."""
    factors = image.shape[0] / height, image.shape[1] / width
    is_halved = min(factors) >= 1 and max(factors) > 2
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if is_halved else cv2.INTER_LINEAR)


def center(image, height, width):
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
