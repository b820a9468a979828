"""Data augmentation."""

import cv2

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
    right, down = shift
    size, margin = len(image), max(abs(right), abs(down))
    padded = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REFLECT_101)
    shifted = padded[margin - down : margin - down + size, margin - right : margin - right + size]
    shifted = cv2.flip(shifted, 1) if flip else shifted  # twice as fast as [:, ::-1]
    return shifted.reshape(image.shape)  # OpenCV drops the axis of a single channel
