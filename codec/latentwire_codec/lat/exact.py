# SPDX-License-Identifier: Apache-2.0
"""Float16 latents of one image <-> integers and remainders, bit for bit.

A float16 is m * 2^-24 with an integer m below 2^40, and a sign. The coded integer is m without its lowest bits, with
the sign. The remainder holds the lowest bits, as far as a float16 of that size can have them.
"""

import numpy as np
import numpy.typing as npt

from latentwire_codec.compiled import compiled, whole
from latentwire_codec.lat.bits import (
    TOO_FEW,
    Integers,
    Octets,
    check_rest,
    length_of,
    octets_of,
    put_bits,
    take_bits,
)
from latentwire_codec.lat.context import LIMIT
from latentwire_codec.lat.quantizer import Steps
from latentwire_core.errors import Malformed, NonFiniteError, TensorError

Half = npt.NDArray[np.float16]

UNIT_BITS = 24
"""The smallest float16 above 0 is 2^-24."""
MANTISSA_BITS = 10
HEAD_BITS = 7
"""Bits of the head of an m smaller than a step: 6 for the number of its significant bits, and its sign."""
LARGEST = 65504 << UNIT_BITS
_NO_BITS, _ABOVE_STEP, _TOO_LARGE = 1, 2, 3
_PROBLEMS = {
    _NO_BITS: TOO_FEW,
    _ABOVE_STEP: "a float16 latent below one step is larger than its step",
    _TOO_LARGE: "a float16 latent is above 65504",
}
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
    halves = np.ascontiguousarray(latents).view(np.uint16).reshape(len(latents), -1)
    cells = np.empty(halves.shape, np.int64)
    heads = np.zeros(length_of(HEAD_BITS * latents.size), np.uint8)
    tails = np.zeros(length_of(MANTISSA_BITS * latents.size), np.uint8)
    used = _split(halves, powers + UNIT_BITS, cells, heads, tails)
    parts = (octets[: length_of(bits)].tobytes() for octets, bits in zip((heads, tails), used, strict=True))
    return cells.reshape(latents.shape), steps, b"".join(parts)


def join(integers: Integers, steps: Steps, remainders: bytes) -> Half:
    """Map integers, steps and remainders, as `split` returns them, to float16 (C,h,w).

    Raises:
        Malformed: the steps are no powers of two, or the remainders do not fit the integers.
    """
    powers = np.array([numerator.bit_length() - 1 for numerator in steps.numerators]) - steps.exponent
    if any(numerator & (numerator - 1) for numerator in steps.numerators) or np.abs(powers).max() > UNIT_BITS:
        raise Malformed(f"the steps of float16 latents are {steps.numerators} * 2^-{steps.exponent}; not powers of 2")
    head_bytes = length_of(HEAD_BITS * (integers.size - int(np.count_nonzero(integers))))
    heads, tails = octets_of(remainders[:head_bytes]), octets_of(remainders[head_bytes:])
    values = np.empty(integers.shape)
    problem, *used = _join(
        integers.reshape(len(integers), -1), powers + UNIT_BITS, heads, tails, values.reshape(len(integers), -1)
    )
    if problem:
        raise Malformed(_PROBLEMS[problem])
    for octets, bits in zip((heads, tails), used, strict=True):
        check_rest(octets, bits)
    return values.astype(np.float16)


@compiled
def _split(
    halves: npt.NDArray[np.uint16], dropped: Integers, cells: Integers, heads: Octets, tails: Octets
) -> tuple[int, int]:
    """Write the cells, the heads and the tails; return the bits of the heads and of the tails."""
    head = tail = 0
    for channel in range(len(halves)):
        low = whole(dropped[channel])
        for at in range(halves.shape[1]):
            half = whole(halves[channel, at])
            negative, exponent, magnitude = half >> 15, half >> MANTISSA_BITS & 31, half & (1 << MANTISSA_BITS) - 1
            if exponent:
                magnitude = (magnitude | 1 << MANTISSA_BITS) << exponent - 1
            cell = magnitude >> low
            cells[channel, at] = -cell if negative else cell
            if not cell:
                head = put_bits(heads, head, _length(magnitude) << 1 | negative, HEAD_BITS)
            count, zeros = _kept(cell, magnitude, low)
            tail = put_bits(tails, tail, magnitude >> zeros, count)
    return head, tail


@compiled
def _join(
    integers: Integers, dropped: Integers, heads: Octets, tails: Octets, values: npt.NDArray[np.float64]
) -> tuple[int, int, int]:
    """Write the latents; return what is wrong with the remainders, and the bits of heads and tails that were taken."""
    head = tail = 0
    for channel in range(len(integers)):
        low = dropped[channel]
        for at in range(integers.shape[1]):
            cell, negative = abs(integers[channel, at]), integers[channel, at] < 0
            top = cell << low
            if not cell:
                taken = take_bits(heads, head, HEAD_BITS)
                if taken < 0:
                    return _NO_BITS, head, tail
                head += HEAD_BITS
                negative, length = taken & 1 == 1, taken >> 1
                if length > low:
                    return _ABOVE_STEP, head, tail
                top = 1 << length - 1 if length else 0
            elif cell > LARGEST >> low:
                return _TOO_LARGE, head, tail
            count, zeros = _kept(cell, top, low)
            taken = take_bits(tails, tail, count)
            if taken < 0:
                return _NO_BITS, head, tail
            tail += count
            magnitude = top | taken << zeros
            if magnitude > LARGEST:
                return _TOO_LARGE, head, tail
            value = magnitude * 2.0**-UNIT_BITS
            values[channel, at] = -value if negative else value
    return 0, head, tail


@compiled
def _kept(cell: int, magnitude: int, dropped: int) -> tuple[int, int]:
    """Return how many of the low bits are kept, and how many zeros are below the kept bits.

    Where the cell is not 0, both follow from the cell; where it is 0, from the length of the magnitude.
    """
    length = _length(magnitude)
    zeros = max(length - 1 - MANTISSA_BITS, 0)
    low = dropped if cell else max(length - 1, 0)
    return max(low - zeros, 0), min(zeros, low)


@compiled
def _length(magnitude: int) -> int:
    """Return the number of significant bits; 0 for 0."""
    length = 0
    while magnitude:
        magnitude >>= 1
        length += 1
    return length
