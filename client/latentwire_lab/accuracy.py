# SPDX-License-Identifier: Apache-2.0
"""Numbers of right answers on held-out images -> accuracies with intervals, and whether they beat chance."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A share and its 95 % confidence interval; each number is in 0..1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class HeldOut:
    """How well a direction recognises its attribute in images that it was not fitted to.

    Attributes:
        with_right, with_all: number of images with the attribute that are recognised, and of all, at least 1.
        without_right, without_all: the same of images without the attribute.

    Raises:
        ValueError: the numbers contradict each other.
    """

    with_right: int
    with_all: int
    without_right: int
    without_all: int

    def __post_init__(self) -> None:
        for right, total in ((self.with_right, self.with_all), (self.without_right, self.without_all)):
            if not 0 <= right <= total or total < 1:
                raise ValueError(f"{right} of {total} images are right; give 0 to all images, and at least 1 image")

    @property
    def base_rate(self) -> float:
        """The accuracy of a guess that is always the more frequent answer."""
        return max(self.with_all, self.without_all) / (self.with_all + self.without_all)

    @property
    def accuracy(self) -> Interval:
        """The share of images that are recognised, with Wilson's interval; compare it with `base_rate`."""
        return wilson(self.with_right + self.without_right, self.with_all + self.without_all)

    @property
    def balanced_accuracy(self) -> Interval:
        """The mean of the shares of both kinds of images. It is 1/2 for a guess, whatever the base rate.

        The interval follows from the Wilson intervals of the two shares (Newcombe, Interval estimation for the
        difference between independent proportions, method 10, Statistics in Medicine 17, 1998, here for half the sum).
        """
        one, other = wilson(self.with_right, self.with_all), wilson(self.without_right, self.without_all)
        value = (one.value + other.value) / 2
        below = math.hypot(one.value - one.low, other.value - other.low) / 2
        above = math.hypot(one.high - one.value, other.high - other.value) / 2
        return Interval(value, value - below, value + above)

    @property
    def beats_chance(self) -> bool:
        """Whether the interval of the balanced accuracy lies above 1/2.

        One meaningless direction in forty beats chance by accident.
        """
        return self.balanced_accuracy.low > 0.5


def wilson(right: int, total: int) -> Interval:
    """Map the numbers of right answers and of images, at least 1, to a share with its 95 % interval (Wilson, 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(right, total).proportion_ci(0.95, "wilson")
    return Interval(right / total, float(interval.low), float(interval.high))
