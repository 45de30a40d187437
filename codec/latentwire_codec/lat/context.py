# SPDX-License-Identifier: Apache-2.0
"""What is already coded around an integer -> the table of integer frequencies that it is coded with.

Two linear forms of coded neighbours, and of coded channels at the same place, give a mean and a scale (the expected
absolute error). The scale and the fraction of the mean choose one of `TABLES` tables. All of it is computed in
integers, so that every machine chooses the same table for the same integer: docs/bitstream.md has the formulas.
"""

from dataclasses import dataclass
from functools import cached_property
from math import isqrt

import numpy as np
import numpy.typing as npt

from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.scan import Phase

FREQUENCY_BITS = 16
"""The frequencies of a table sum to 2^16, and each is at least 1."""
MEAN_BITS = 4
"""Means, and errors about them, are in sixteenths of a step."""
SCALE_BITS = 10
"""Scales are in 1024ths of a step."""
WEIGHT_BITS = 12
"""Of the weights behind the point."""

LIMIT = 1 << 23
"""Integers are from -2^23 + 1 to 2^23 - 1."""
LARGEST = 15
"""Differences from -15 to 15 to the mean have a symbol each, all others share the last one."""
ESCAPE = 2 * LARGEST + 1
SYMBOLS = ESCAPE + 1
FRACTIONS = (1 << MEAN_BITS) // 2 + 1
LEVELS = 28
"""Scales below 2.5 steps are told apart by so many tables; above, low bits are coded as they are."""
OCTAVE_BITS = 2
"""There are 4 levels in an octave of scales."""
TABLES = LEVELS * FRACTIONS


def nearest_fourth_root(number: int) -> int:
    """Return the integer nearest to the fourth root; by integers, as floats may differ from machine to machine."""
    return (isqrt(isqrt(16 * number)) + 1) // 2


# Level k has scales from 2.5 * 2^((k - 28) / 4) on. In the last ones 23 bits, a whole integer, are coded as they are.
THRESHOLDS = np.array([nearest_fourth_root(5**4 << (level + 8)) for level in range(1, LEVELS + 4 * 23)])

MEAN_TERMS, SCALE_TERMS = 3, 7
"""Features of the mean and of the scale; see `ContextModel`."""


@dataclass(frozen=True)
class Contexts:
    """How n integers are coded, each (n,).

    An integer q is coded as the symbol (q - base) * sign + LARGEST of its table. Where the scale is large, q is not the
    integer itself but integer >> shift, and the low bits are coded as they are.

    Attributes:
        table: index of the table of frequencies.
        base: what q is expected to be.
        sign: 1 or -1.
        wide: (m,), indices of those whose scale is large.
        shift: (m,), how many low bits these have.
    """

    table: Integers
    base: Integers
    sign: Integers
    wide: Integers
    shift: Integers


_PARTS = range(1 << MEAN_BITS)
_FRACTION = np.array([min(part, (1 << MEAN_BITS) - part) for part in _PARTS])
_SIGN = np.array([1 if part < 1 << MEAN_BITS - 1 else -1 for part in _PARTS])


def contexts(mean: Integers, scale: Integers) -> Contexts:
    """Map means (sixteenths of a step) and scales (1024ths of a step), each (n,), to contexts."""
    level = THRESHOLDS.searchsorted(scale, side="right")
    wide = (level >= LEVELS).nonzero()[0]
    shift = (level[wide] >> OCTAVE_BITS) - (LEVELS >> OCTAVE_BITS) + 1
    if wide.size:
        level[wide] -= shift << OCTAVE_BITS
        # The mean in cells of 2^shift integers, whose centre is (2^shift - 1) / 2 above their first.
        mean = mean.copy()
        mean[wide] = (2 * mean[wide] - ((1 << shift + MEAN_BITS) - (1 << MEAN_BITS))) >> (shift + 1)
    part = mean & ((1 << MEAN_BITS) - 1)
    level *= FRACTIONS
    level += _FRACTION.take(part)
    return Contexts(level, (mean + (1 << MEAN_BITS - 1)) >> MEAN_BITS, _SIGN.take(part), wide, shift)


@dataclass(frozen=True)
class ContextModel:
    """Weights and tables, for latents of C channels; each channel may refer to an earlier one.

    The features of the mean, in steps: the sum of the first pair of neighbours, that of the second, and the value of
    the channel referred to. The features of the scale, in sixteenths of a step: the absolute differences within both
    pairs, summed; that between their sums; the errors of the first pair, summed; of the second; then of the channel
    referred to its error, the sum of the four errors around, and the absolute value of four times its value less the
    four values around.

    Attributes:
        references: (C,), an earlier channel, or -1.
        mean_weights: (C, kinds, 3), in 2^-12 sixteenths of a step for each step.
        mean_bias: (C, kinds), in 2^-12 sixteenths of a step.
        scale_weights: (C, kinds, 7), in 2^-12 1024ths of a step for each sixteenth; at least 0.
        scale_floor: (C, kinds), in 2^-12 1024ths of a step; at least 0.
        frequencies: (TABLES, SYMBOLS), each at least 1, in sums of 2^16.
    """

    references: Integers
    mean_weights: Integers
    mean_bias: Integers
    scale_weights: Integers
    scale_floor: Integers
    frequencies: Integers

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """(TABLES, SYMBOLS): frequencies / 2^16, exact."""
        return self.frequencies / float(1 << FREQUENCY_BITS)


class Surroundings:
    """The integers of one image's latents as far as they are coded, and what they say of the next ones."""

    def __init__(self, shape: tuple[int, int, int], prior: ContextModel) -> None:
        channels, *size = shape
        self.size = (size[0], size[1])
        self.prior = prior
        count = size[0] * size[1]
        self.values = np.zeros((channels, count), np.int64)
        self.means = np.zeros((channels, count), np.int64)
        self._errors = np.zeros((channels, count), np.int64)
        self._referred: Integers | None = None

    def begin(self, channel: int) -> None:
        """Make ready for a channel: all earlier ones are coded."""
        reference = int(self.prior.references[channel])
        self._referred = None
        if reference >= 0:
            value, error = (each[reference].reshape(self.size) for each in (self.values, self._errors))
            around = _around(value)
            edge = np.abs(4 * value - around) << MEAN_BITS
            self._referred = np.stack([value, error, _around(error), edge]).reshape(4, -1)

    def features(self, channel: int, phase: Phase) -> Integers:
        """Return the features of the mean, then those of the scale, at the places of a phase: (3 + 7, n)."""
        features = np.zeros((MEAN_TERMS + SCALE_TERMS, len(phase.places)), np.int64)
        mean, scale = features[:MEAN_TERMS], features[MEAN_TERMS:]
        if len(phase.neighbours):
            a, b, c, d = self.values[channel].take(phase.neighbours)
            np.add(a, b, out=mean[0])
            np.add(c, d, out=mean[1])
            np.add(np.abs(a - b), np.abs(c - d), out=scale[0])
            np.abs(mean[0] - mean[1], out=scale[1])
            scale[:2] <<= MEAN_BITS
            a, b, c, d = self._errors[channel].take(phase.neighbours)
            np.add(a, b, out=scale[2])
            np.add(c, d, out=scale[3])
        if self._referred is not None:
            referred = self._referred.take(phase.places, axis=1)
            mean[2], scale[4:] = referred[0], referred[1:]
        return features

    def expect(self, channel: int, phase: Phase) -> tuple[Integers, Integers]:
        """Return means (sixteenths of a step) and scales (1024ths of a step) at the places of a phase, each (n,)."""
        features = self.features(channel, phase)
        mean = self.prior.mean_weights[channel, phase.kind] @ features[:MEAN_TERMS]
        scale = self.prior.scale_weights[channel, phase.kind] @ features[MEAN_TERMS:]
        mean += self.prior.mean_bias[channel, phase.kind]
        scale += self.prior.scale_floor[channel, phase.kind]
        mean >>= WEIGHT_BITS
        scale >>= WEIGHT_BITS
        return mean, scale

    def put(self, channel: int, places: Integers, integers: Integers, mean: Integers) -> None:
        """Take over what was coded at the places of a channel."""
        self.values[channel][places] = integers
        self.means[channel][places] = mean
        self._errors[channel][places] = np.abs((integers << MEAN_BITS) - mean)


def _around(plane: Integers) -> Integers:
    """Return the sum of the four neighbours of each place of (h, w); outside, the place at the edge counts."""
    total = np.empty_like(plane)
    total[1:], total[0] = plane[:-1], plane[0]
    total[:-1] += plane[1:]
    total[-1] += plane[-1]
    total[:, 1:] += plane[:, :-1]
    total[:, 0] += plane[:, 0]
    total[:, :-1] += plane[:, 1:]
    total[:, -1] += plane[:, -1]
    return total
