# SPDX-License-Identifier: Apache-2.0
"""Integers of latents -> bits that other ways to code them would take: a table for each channel, an ideal Gaussian."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
TAIL = 12.0
"""Standard deviations of a Gaussian beyond which nothing is left to add up."""


def entropy(counts: npt.ArrayLike) -> float:
    """Map counts to the bits that all counted things take together, ideally, with a table of just these."""
    known = np.asarray(counts, np.float64)
    known = known[known > 0]
    return float((known * (np.log2(known.sum()) - np.log2(known))).sum())


def gaussian_bits(mean: float, deviation: float) -> float:
    """Map a Gaussian, in steps, to the entropy of its nearest integer, in bits."""
    if deviation <= 0:
        return 0.0
    reach = int(np.ceil(TAIL * deviation)) + 1
    edges = np.arange(-reach, reach + 2) - 0.5 + np.rint(mean)
    shares = np.diff(ndtr((edges - mean) / deviation))
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())


@dataclass
class ChannelCounts:
    """How often each integer comes in one channel, over any number of images, and the latents' moments in steps."""

    counts: dict[int, int] = field(default_factory=dict)
    total: int = 0
    sum: float = 0.0
    squares: float = 0.0

    def add(self, kept: dict[str, Any]) -> None:
        """Add one image, as `describe` kept it."""
        for integer, number in enumerate(kept["counts"], kept["first"]):
            if number:
                self.counts[integer] = self.counts.get(integer, 0) + number
        self.total += sum(kept["counts"])
        self.sum += kept["sum"]
        self.squares += kept["squares"]

    @property
    def table_bits(self) -> float:
        """Bits of everything counted with one table for all of it."""
        return entropy(list(self.counts.values()))

    @property
    def gaussian_bits(self) -> float:
        """Bits of as many numbers of the Gaussian with these moments, rounded."""
        mean = self.sum / self.total
        variance = max(self.squares / self.total - mean * mean, 0.0)
        return self.total * gaussian_bits(mean, float(np.sqrt(variance)))


def describe(integers: Integers, in_steps: Floats) -> list[dict[str, Any]]:
    """Map integers and latents in steps, both (C,h,w), to what is kept of each channel: counts and moments."""
    kept = []
    for numbers, real in zip(integers, in_steps, strict=True):
        first = int(numbers.min())
        counts = np.bincount((numbers - first).ravel())
        kept.append(
            {
                "first": first,
                "counts": counts.tolist(),
                "sum": float(real.sum()),
                "squares": float((real * real).sum()),
            }
        )
    return kept


def own_tables_bits(integers: Integers) -> float:
    """Map integers (C,h,w) to the bits they take with a table for each of their channels, the tables for nothing."""
    return sum(entropy(np.unique(channel, return_counts=True)[1]) for channel in integers)


def over_images(images: Sequence[list[dict[str, Any]]]) -> list[ChannelCounts]:
    """Map what was kept of each image to the counts of each channel over all of them."""
    channels = [ChannelCounts() for _ in images[0]]
    for image in images:
        for channel, kept in zip(channels, image, strict=True):
            channel.add(kept)
    return channels
