# SPDX-License-Identifier: Apache-2.0
"""A mean and a scale -> the context of an integer: the table of frequencies that codes it.

The mean is the value that coded neighbours let expect, the scale the expected absolute error; a `ContextModel` holds
the weights of both. The scale and the fraction of the mean choose one of `TABLES` tables. All arithmetic is in
integers, so that every machine chooses the same table for the same integer: docs/bitstream.md has the formulas.
"""

from dataclasses import dataclass
from functools import cached_property
from math import isqrt

import numpy as np
import numpy.typing as npt

from latentwire_codec.lat.bits import Integers

FREQUENCY_BITS = 16
"""The frequencies of a table sum to 2^16, and each is at least 1."""
MEAN_BITS = 4
"""Means, and errors about them, are in sixteenths of a step."""
SCALE_BITS = 10
"""Scales are in 1024ths of a step."""
WEIGHT_BITS = 12
"""Binary places of a weight."""

LIMIT = 1 << 23
"""Integers are from -2^23 + 1 to 2^23 - 1."""
LARGEST = 15
"""Differences from -15 to 15 to the mean have a symbol each, all others share the last symbol."""
ESCAPE = 2 * LARGEST + 1
SYMBOLS = ESCAPE + 1
FRACTIONS = (1 << MEAN_BITS) // 2 + 1
LEVELS = 28
"""Levels of scales below 2.5 steps, with tables of their own; above, low bits are coded as they are."""
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

    An integer q is coded as the symbol (q - base) * sign + LARGEST of its table. Where the scale is large, integer >>
    shift takes the place of q, and the low bits are coded as they are.

    Attributes:
        table: index of the table of frequencies.
        base: the expected q.
        sign: 1 or -1.
        wide: (m,), indices of the integers whose scale is large.
        shift: (m,), the number of their low bits.
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
    """Weights and tables for latents of C channels; each channel may refer to an earlier one.

    The features of the mean, in steps: the sum of the first pair of neighbours, the sum of the second pair, and the
    value of the channel referred to.

    The features of the scale, in sixteenths of a step: the absolute differences within both pairs, summed; the absolute
    difference between the sums of the pairs; the errors of the first pair, summed; the errors of the second pair,
    summed; then, of the channel referred to, its error, the sum of the four errors around, and the absolute value of
    four times its value less the four values around.

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
