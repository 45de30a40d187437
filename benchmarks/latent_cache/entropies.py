# SPDX-License-Identifier: Apache-2.0
"""Integers of latents -> bits of other coders: a table for each channel, an ideal Gaussian."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
TAIL = 12.0
"""Standard deviations beyond which the share of a Gaussian is zero in float64."""


def entropy(counts: npt.ArrayLike) -> float:
    """Map counts of symbols to the bits of all symbols by an ideal coder with exactly these frequencies."""
    found = np.asarray(counts, np.float64)
    return float(found.sum() * stats.entropy(found, base=2))


def gaussian_bits(mean: float, deviation: float) -> float:
    """Map a Gaussian, in steps, to the entropy of its nearest integer, in bits."""
    if deviation <= 0:
        return 0.0
    reach = int(np.ceil(TAIL * deviation)) + 1
    edges = np.arange(-reach, reach + 2) - 0.5 + np.rint(mean)
    return float(stats.entropy(np.diff(stats.norm.cdf(edges, mean, deviation)), base=2))


@dataclass
class ChannelCounts:
    """Counts of each integer in one channel, over any number of images, and the moments of the latents in steps."""

    counts: Counter[int] = field(default_factory=Counter)
    total: int = 0
    sum: float = 0.0
    squares: float = 0.0

    def add(self, kept: dict[str, Any]) -> None:
        """Add one image, as `describe` returned it."""
        self.counts.update(dict(enumerate(kept["counts"], kept["first"])))
        self.total += sum(kept["counts"])
        self.sum += kept["sum"]
        self.squares += kept["squares"]

    @property
    def table_bits(self) -> float:
        """Bits of all integers by an ideal coder with one table."""
        return entropy(list(self.counts.values()))

    @property
    def gaussian_bits(self) -> float:
        """Bits of as many rounded draws from a Gaussian with these moments."""
        mean = self.sum / self.total
        variance = max(self.squares / self.total - mean * mean, 0.0)
        return self.total * gaussian_bits(mean, float(np.sqrt(variance)))


def describe(integers: Integers, in_steps: Floats) -> list[dict[str, Any]]:
    """Map integers and latents in steps, both (C,h,w), to the counts and moments of each channel."""
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
    """Map integers (C,h,w) to their bits by an ideal coder with a table a channel; tables cost nothing."""
    return sum(entropy(np.unique(channel, return_counts=True)[1]) for channel in integers)


def over_images(images: Sequence[list[dict[str, Any]]]) -> list[ChannelCounts]:
    """Map what `describe` returned for each image to the counts of each channel over all images."""
    channels = [ChannelCounts() for _ in images[0]]
    for image in images:
        for channel, kept in zip(channels, image, strict=True):
            channel.add(kept)
    return channels
