"""Data augmentation."""

import cv2
import numpy as np

MAX_SHIFT_DIVISOR = 8  # of img_size, for the largest shift: 4 pixels of 32


def draw_augmentation(random, count, img_size, augment):
    """The augmentation of `count` images in an epoch: (shifts, int [count, 2] pixels; whether flipped, [count]).

    Args:
        random: a RandomState.
        augment: "crop" or "crop+flip".
    """
    limit = img_size // MAX_SHIFT_DIVISOR
    shifts = random.randint(-limit, limit + 1, (count, 2))
    return shifts, random.randint(0, 2, count) * (augment == "crop+flip")


def augmented(image, shift, flip):
    """The image shifted by (right, down) pixels with reflection padding, and flipped horizontally if `flip`."""
    size, margin = len(image), int(np.abs(shift).max())
    right, down = shift
    image = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REFLECT_101)
    image = image[margin - down : margin - down + size, margin - right : margin - right + size]
    return image[:, ::-1] if flip else image
