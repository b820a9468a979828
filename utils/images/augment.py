"""Random variations of training images."""

import cv2
import numpy as np

MAX_SHIFT_DIVISOR = 8  # an image is shifted by up to this part of its size: 4 pixels of 32


def draw_augmentation(random, count, img_size, augment):
    """What an epoch does to each of `count` images: (shifts in pixels, int [count, 2]; whether mirrored, [count]).

    Args:
        random: a RandomState.
        augment: "crop" or "crop+flip".
    """
    margin = img_size // MAX_SHIFT_DIVISOR
    shifts = random.randint(-margin, margin + 1, (count, 2))
    return shifts, random.randint(0, 2, count) * (augment == "crop+flip")


def augmented(image, shift, mirror):
    """The image shifted by `shift` pixels (right, down) over its own reflection, and mirrored if `mirror`."""
    size, margin = len(image), int(np.abs(shift).max())
    right, down = shift
    image = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REFLECT_101)
    image = image[margin - down : margin - down + size, margin - right : margin - right + size]
    return image[:, ::-1] if mirror else image
