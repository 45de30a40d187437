# SPDX-License-Identifier: Apache-2.0
"""Counts of right answers on held-out images -> accuracies with their intervals, and whether they beat chance."""

import math
from dataclasses import dataclass

Z_95 = 1.959964
"""Of the standard normal distribution 95 % lie within plus or minus this."""


@dataclass(frozen=True)
class Interval:
    """A share, and where the true one is with a confidence of 95 %; each 0..1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class HeldOut:
    """How a direction did on images that it was not fitted to.

    Attributes:
        with_right: images with the attribute that it recognised.
        with_all: images with it, at least 1.
        without_right: images without it that it recognised as such.
        without_all: images without it, at least 1.

    Raises:
        ValueError: the numbers contradict each other.
    """

    with_right: int
    with_all: int
    without_right: int
    without_all: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        for right, total in ((self.with_right, self.with_all), (self.without_right, self.without_all)):
            if not 0 <= right <= total or total < 1:
                raise ValueError(f"{right} of {total} images are right; it must be 0 to all of at least 1")

    @property
    def base_rate(self) -> float:
        """The accuracy of always saying what is more frequent."""
        return max(self.with_all, self.without_all) / (self.with_all + self.without_all)

    @property
    def accuracy(self) -> Interval:
        """The share of images that were recognised, with Wilson's interval; compare it with `base_rate`."""
        return wilson(self.with_right + self.without_right, self.with_all + self.without_all)

    @property
    def balanced_accuracy(self) -> Interval:
        """The mean of the shares of both kinds, which is 1/2 for a guess, whatever the base rate.

        The interval is made of the Wilson intervals of the two (Newcombe, Interval estimation for the difference
        between independent proportions, method 10, Statistics in Medicine 17, 1998, here for half the sum).
        """
        one, other = wilson(self.with_right, self.with_all), wilson(self.without_right, self.without_all)
        value = (one.value + other.value) / 2
        below = math.hypot(one.value - one.low, other.value - other.low) / 2
        above = math.hypot(one.high - one.value, other.high - other.value) / 2
        return Interval(value, value - below, value + above)

    @property
    def beats_chance(self) -> bool:
        """Whether the interval of the balanced accuracy lies above 1/2.

        One meaningless direction of forty does by chance.
        """
        return self.balanced_accuracy.low > 0.5


def wilson(right: int, total: int) -> Interval:
    """Map counts to a share with its 95 % score interval (Wilson, 1927).

    Args:
        right: 0..total.
        total: at least 1.
    """
    share, square = right / total, Z_95**2 / total
    centre = (share + square / 2) / (1 + square)
    half = Z_95 * math.sqrt(share * (1 - share) / total + square / (4 * total)) / (1 + square)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))
