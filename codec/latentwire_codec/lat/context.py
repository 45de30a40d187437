# SPDX-License-Identifier: Apache-2.0
"""A mean and a scale -> the context of an integer: the table of frequencies that codes it.

The mean is the value that coded neighbours let expect, the scale the expected absolute error; a `ContextModel` holds
the weights of both. The scale and the fraction of the mean choose one of `TABLES` tables. All arithmetic is in
integers, so that every machine chooses the same table for the same integer: docs/bitstream.md has the formulas.
"""

from math import isqrt
from typing import NamedTuple

import numpy as np

from latentwire_codec.compiled import inlined, whole
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


# The level of each scale that is not wide, and the thresholds of those that are.
_LEVELS = THRESHOLDS.searchsorted(np.arange(THRESHOLDS[LEVELS - 1]), side="right").astype(np.uint8)
_WIDE = THRESHOLDS[LEVELS:]


@inlined
def context(mean: int, scale: int) -> tuple[int, int, int, int]:
    """Map a mean (sixteenths of a step) and a scale (1024ths of a step) to the context of an integer q.

    Returns:
        the index of the table of frequencies; the expected integer; 1 or -1; the number of low bits, `shift`. With
        `base` and `sign`, q is coded as the symbol ((q >> shift) - base) * sign + LARGEST of its table, and `shift` low
        bits are coded as they are.
    """
    if scale < len(_LEVELS):
        level, shift = whole(_LEVELS[scale]), 0
    else:
        level = whole(np.searchsorted(_WIDE, scale, side="right"))
        shift = (level >> OCTAVE_BITS) + 1
        level += LEVELS - (shift << OCTAVE_BITS)
        # The mean in cells of 2^shift integers, whose centre is (2^shift - 1) / 2 above their first.
        mean = (2 * mean - ((1 << shift + MEAN_BITS) - (1 << MEAN_BITS))) >> (shift + 1)
    part = mean & (1 << MEAN_BITS) - 1
    base = (mean + (1 << MEAN_BITS - 1)) >> MEAN_BITS
    if part < 1 << MEAN_BITS - 1:
        return FRACTIONS * level + part, base, 1, shift
    return FRACTIONS * level + (1 << MEAN_BITS) - part, base, -1, shift


class ContextModel(NamedTuple):
    """Weights and tables for latents of C channels; each channel refers to the channel before.

    The features of the mean, in steps: the sum of the first pair of neighbours, the sum of the second pair, and the
    value of the channel before.

    The features of the scale, in sixteenths of a step: the absolute differences within both pairs, summed; the absolute
    difference between the sums of the pairs; the errors of the first pair, summed; the errors of the second pair,
    summed; then, of the channel before, its error, the sum of the four errors around, and the absolute value of
    four times its value less the four values around.

    Attributes:
        mean_weights: (C, kinds, 3), in 2^-12 sixteenths of a step for each step.
        mean_bias: (C, kinds), in 2^-12 sixteenths of a step.
        scale_weights: (C, kinds, 7), in 2^-12 1024ths of a step for each sixteenth; at least 0.
        scale_floor: (C, kinds), in 2^-12 1024ths of a step; at least 0.
        frequencies: (TABLES, SYMBOLS), each at least 1, in sums of 2^16.
    """

    mean_weights: Integers
    mean_bias: Integers
    scale_weights: Integers
    scale_floor: Integers
    frequencies: Integers
