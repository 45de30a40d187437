# SPDX-License-Identifier: Apache-2.0
"""Numbers of a few bits each <-> bytes, the first bit highest."""

import numpy as np
import numpy.typing as npt

from latentwire_codec.compiled import inlined
from latentwire_core.errors import Malformed

Integers = npt.NDArray[np.int64]
Octets = npt.NDArray[np.uint8]

MOST = 24
"""Bits of the longest number."""
TOO_FEW = "there are fewer low bits than are needed"


def octets_of(data: bytes) -> Octets:
    """Return bytes as an array of the type that the compiled functions take: one that can be written to."""
    return np.frombuffer(bytearray(data), np.uint8)


@inlined
def put_bits(octets: Octets, position: int, number: int, count: int) -> int:
    """Put the low `count` bits of a number, 0..24, behind the bits before `position`; return the position after them.

    The octets are zeros from `position` on.
    """
    while count > 0:
        free = 8 - (position & 7)
        taken = min(free, count)
        count -= taken
        octets[position >> 3] |= (number >> count & (1 << taken) - 1) << free - taken
        position += taken
    return position


@inlined
def take_bits(octets: Octets, position: int, count: int) -> int:
    """Return the number of `count` bits at a position; -1 where fewer bits are left."""
    if position + count > 8 * len(octets):
        return -1
    number = 0
    while count > 0:
        left = 8 - (position & 7)
        taken = min(left, count)
        number = number << taken | (octets[position >> 3] >> left - taken & (1 << taken) - 1)
        count -= taken
        position += taken
    return number


def length_of(bits: int) -> int:
    """Map a number of bits to the bytes that hold them."""
    return -(-bits // 8)


def check_rest(octets: Octets, position: int) -> None:
    """Refuse bits that were not taken; raises Malformed where a whole byte is left, or a bit that is 1."""
    unused = 8 * len(octets) - position
    if unused >= 8 or (unused and int(octets[-1]) & (1 << unused) - 1):
        raise Malformed("there are more low bits than are needed")
