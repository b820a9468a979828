"""The learning-rate range test: which rate to choose from the losses of steps with a rising one.

Smith 2015, "Cyclical Learning Rates for Training Neural Networks", section 3.3: train for some steps while the rate
rises, and look where the loss begins to fall and where it stops to. The rising is exponential, as in fastai's lr_find.
"""

from collections import namedtuple

import numpy as np

RATES = np.geomspace(1e-5, 1, 200)  # of the steps, in order
WINDOW = 6  # steps: standard deviation of the Gaussian that smooths the losses
DIVERGED = 4  # times the lowest smoothed loss, as in fastai
MIN_FALL = 0.01  # of the first smoothed loss; and two standard deviations of a step's loss

# rate: the chosen learning rate, rounded; None if the loss did not fall. steepest: that of the steepest fall of the
# smoothed loss; lowest: that of its lowest value; fall: how far it fell until there; noise: the standard deviation of
# the losses from it on the way.
Choice = namedtuple("Choice", "rate steepest lowest fall noise")


def smooth(losses):
    """Losses float [n] of successive steps, each replaced by a mean of its neighbours with Gaussian weights.

    Unlike a running mean, it does not shift the curve to larger rates.
    """
    steps = np.arange(len(losses))
    weights = np.exp(-(((steps[:, np.newaxis] - steps) / WINDOW) ** 2) / 2)
    return weights @ losses / weights.sum(axis=1)


def has_diverged(losses):
    """Whether the latest of these losses, float [n], is NaN or Inf, or the smoothed loss has risen far."""
    if not np.isfinite(losses[-1]):
        return True
    smoothed = smooth(losses)
    return smoothed[-1] > DIVERGED * smoothed.min()


def choose_rate(losses):
    """The Choice for the losses of the first n steps, float [n].

    The rate is the geometric mean of that where the smoothed loss falls most steeply and that where it is lowest. The
    first alone is too low for weights with a new head: their high loss falls at almost any rate. Near the second alone,
    training is about to diverge. The loss must have fallen by MIN_FALL, or what looks like a fall is chance.
    """
    smoothed = smooth(losses)
    lowest = smoothed.argmin()
    fall = smoothed[0] - smoothed[lowest]
    noise = np.std((losses - smoothed)[: lowest + 1])
    if fall <= max(MIN_FALL * smoothed[0], 2 * noise):
        return Choice(None, None, RATES[lowest], fall, noise)
    steepest = np.gradient(smoothed)[: lowest + 1].argmin()  # with respect to the logarithm of the rate
    rate = np.sqrt(RATES[steepest] * RATES[lowest])
    return Choice(float(f"{rate:.2g}"), RATES[steepest], RATES[lowest], fall, noise)
