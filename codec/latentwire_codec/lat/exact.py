# SPDX-License-Identifier: Apache-2.0
"""Float16 latents of one image <-> integers and remainders, bit for bit.

A float16 is m * 2^-24 with an integer m below 2^40, and a sign. The coded integer is m without its lowest bits, with
the sign. The remainder holds the lowest bits, as far as a float16 of that size can have them.
"""

import numpy as np
import numpy.typing as npt

from latentwire_codec.lat.bits import BitReader, Integers, write_bits
from latentwire_codec.lat.context import LIMIT
from latentwire_codec.lat.quantizer import Steps
from latentwire_core.errors import Malformed, NonFiniteError, TensorError

Half = npt.NDArray[np.float16]

UNIT_BITS = 24
"""The smallest float16 above 0 is 2^-24."""
MANTISSA_BITS = 10
LENGTH_BITS = 6
"""Bits that hold the number of significant bits of an m smaller than a step."""
LARGEST = 65504 << UNIT_BITS
TOO_LARGE = "a float16 latent is above 65504"
PARTS = 8.0
"""Steps in a channel's standard deviation, at least: fine enough for the context model to tell what is likely."""


def split(latents: Half) -> tuple[Integers, Steps, bytes]:
    """Map float16 (C,h,w) to integers (C,h,w), the steps of the integers, and the remainders.

    Raises:
        TensorError: the dtype is not float16.
        NonFiniteError: a latent is NaN or infinite.
    """
    if latents.dtype != np.float16:
        raise TensorError(f"latents are {latents.dtype}; only float16 is kept bit for bit")
    if not np.isfinite(latents).all():
        raise NonFiniteError("a latent is NaN or infinite; only finite latents can be coded")
    spread = latents.astype(np.float64).std(axis=(1, 2))
    # The largest latent must not have more steps than can be coded.
    finest = np.maximum(spread / PARTS, np.abs(latents).max(axis=(1, 2)).astype(np.float64) * 2.0 / LIMIT)
    powers = np.clip(np.floor(np.log2(np.maximum(finest, 2.0**-UNIT_BITS))), -UNIT_BITS, UNIT_BITS).astype(int)
    powers = np.maximum(powers, powers.max() - 15)
    steps = Steps(tuple(1 << int(power - powers.min()) for power in powers), int(-powers.min()))
    dropped = (powers + UNIT_BITS)[:, None, None]
    magnitude = np.abs(latents.astype(np.float64) * 2.0**UNIT_BITS).astype(np.int64)
    cell = magnitude >> dropped
    negative = np.signbit(latents)
    small = cell == 0
    lengths = _lengths(magnitude[small])
    heads = write_bits(lengths << 1 | negative[small], np.full(len(lengths), LENGTH_BITS + 1))
    count, zeros = _kept(cell, magnitude, dropped)
    tails = write_bits((magnitude >> zeros).ravel(), count.ravel())
    return np.where(negative, -cell, cell), steps, heads + tails


def join(integers: Integers, steps: Steps, remainders: bytes) -> Half:
    """Map integers, steps and remainders, as `split` returns them, to float16 (C,h,w).

    Raises:
        Malformed: the steps are no powers of two, or the remainders do not fit the integers.
    """
    powers = np.array([numerator.bit_length() - 1 for numerator in steps.numerators]) - steps.exponent
    if any(numerator & (numerator - 1) for numerator in steps.numerators) or np.abs(powers).max() > UNIT_BITS:
        raise Malformed(f"the steps of float16 latents are {steps.numerators} * 2^-{steps.exponent}; not powers of 2")
    dropped = (powers + UNIT_BITS)[:, None, None]
    cell = np.abs(integers)
    small = cell == 0
    head_bytes = -(-int(small.sum()) * (LENGTH_BITS + 1) // 8)
    reader = BitReader(remainders[:head_bytes])
    heads = reader.read(np.full(int(small.sum()), LENGTH_BITS + 1))
    reader.finish()
    negative = integers < 0
    negative[small] = heads & 1
    if (cell > LARGEST >> dropped).any():
        raise Malformed(TOO_LARGE)
    top = cell << dropped
    lengths = heads >> 1
    if (lengths > np.broadcast_to(dropped, cell.shape)[small]).any():
        raise Malformed("a float16 latent below one step is larger than its step")
    top[small] = np.where(lengths > 0, 1 << np.maximum(lengths - 1, 0), 0)
    count, zeros = _kept(cell, top, dropped)
    reader = BitReader(remainders[head_bytes:])
    magnitude = top | reader.read(count.ravel()).reshape(cell.shape) << zeros
    reader.finish()
    if magnitude.max() > LARGEST:
        raise Malformed(TOO_LARGE)
    values = magnitude * 2.0**-UNIT_BITS
    signed: Half = np.where(negative, -values, values).astype(np.float16)
    return signed


def _kept(cell: Integers, magnitude: Integers, dropped: Integers) -> tuple[Integers, Integers]:
    """Return how many of the low bits are kept, and how many zeros are below the kept bits.

    Where the cell is not 0, both follow from the cell; where it is 0, from the length of the magnitude.
    """
    length = _lengths(magnitude)
    zeros = np.maximum(length - 1 - MANTISSA_BITS, 0)
    low = np.where(cell > 0, dropped, np.maximum(length - 1, 0))
    return np.maximum(low - zeros, 0), np.minimum(zeros, low)


def _lengths(magnitude: Integers) -> Integers:
    """Return the number of significant bits; 0 for 0. Exact: magnitudes are below 2^41."""
    return np.frexp(magnitude.astype(np.float64))[1].astype(np.int64)
