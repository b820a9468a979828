"""From an image file to the input of an exported network, with OpenCV and NumPy. Copy it to where the network runs.

with open("lenet5.json") as file:
    about = json.load(file)
images = prepare("photo.jpg", about)  # float32 [1, size, size, 3], or [1, size, size, 1] for a grey network
"""

import cv2
import numpy as np

REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def prepare(path, about):
    """The input for an image file: float32 [1, size, size, channels]. `about` is the JSON beside the graph, a dict."""
    _, size, _, channels = about["input"]["shape"]
    image = read(path, about["transparency"], size)
    if channels == 1:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    image = fit(image, size, about["resize"], about["preprocessing"]["border_colour"])
    if channels == 3 and about["channel_order"] == "rgb":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    image = image.reshape(1, size, size, channels) / 255.0
    return ((image - about["image_normalize_mean"]) / about["image_normalize_std"]).astype(np.float32)


def read(path, transparency, size):
    """Blue, green, red of 8 bits, rotated as the EXIF data of a JPEG says; "white", "black": on that background."""
    image = cv2.imread(path, REDUCED[divisor(path, size)])
    if image is None:
        raise ValueError(f"{path} is not an image")
    with open(path, "rb") as file:
        is_png_or_webp = file.read(4) in (b"\x89PNG", b"RIFF")
    if transparency == "drop" or not is_png_or_webp:
        return image
    stored = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if stored.ndim == 2 or stored.shape[2] < 4:
        return image
    stored = stored if stored.dtype == np.uint8 else stored // 256
    if not np.array_equal(stored[:, :, :3], image):
        raise ValueError(f"{path} has transparency and is rotated by its EXIF data: save it upright")
    alpha = stored[:, :, 3:] / 255.0
    return np.round(image * alpha + (255 if transparency == "white" else 0) * (1 - alpha)).astype(np.uint8)


def divisor(path, size):
    """By how much a large JPEG is reduced when it is decoded: 1, 2, 4 or 8."""
    sides = jpeg_size(path)
    fitting = [by for by in (8, 4, 2) if all(side % by == 0 and side >= 4 * by * size for side in sides)]
    return fitting[0] if fitting and sides else 1


def jpeg_size(path):
    """(width, height) in the header of a JPEG; () of other files."""
    with open(path, "rb") as file:
        content = file.read()
    place = 2
    while content.startswith(b"\xff\xd8") and place + 9 <= len(content):
        marker = content[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(content[place + 7 : place + 9], "big"), int.from_bytes(
                content[place + 5 : place + 7], "big"
            )
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return ()


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
