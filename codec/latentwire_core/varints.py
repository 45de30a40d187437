# SPDX-License-Identifier: Apache-2.0
"""Whole numbers <-> LEB128: seven bits in a byte, the lowest first; the eighth bit says that more follow."""

import numpy as np
import numpy.typing as npt

Octets = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
MORE = 128
GROUPS = 4
"""Bytes of the longest number in an array."""


def to_varint(number: int) -> bytes:
    """Map one number >= 0 to its bytes."""
    written = bytearray()
    while number >= MORE:
        written.append(number & 127 | MORE)
        number >>= 7
    written.append(number)
    return bytes(written)


def to_varints(values: Integers) -> bytes:
    """Map numbers (n,), 0 .. 2^28 - 1, to their bytes, one after the other."""
    groups = np.arange(GROUPS) * 7
    parts = (values[:, None] >> groups) & 127
    more = (values[:, None] >> (groups + 7)) > 0
    used = np.concatenate([np.ones((len(values), 1), bool), more[:, :-1]], axis=1)
    octets: Octets = (parts | more << 7)[used].astype(np.uint8)
    return octets.tobytes()


def check_varints(octets: Octets) -> str:
    """Map the bytes of numbers to a complaint; empty where each number ends, in as few bytes as possible, 4 at most."""
    more = octets >= MORE
    if more[-1:].any():
        return "does not end"
    if (more[:-1] & (octets[1:] == 0)).any() or (more[:-3] & more[1:-2] & more[2:-1] & more[3:]).any():
        return "is longer than it must be, or than 4 bytes"
    return ""


def from_varints(octets: Octets, ends: Integers) -> Integers:
    """Map bytes that `check_varints` accepts to the numbers (n,) that end at the places `ends` (n,)."""
    starts = np.concatenate([[0], ends[:-1] + 1])
    values = np.zeros(len(ends), np.int64)
    for group in range(GROUPS):
        places = starts + group
        there = places <= ends
        values[there] |= (octets[places[there]] & 127).astype(np.int64) << 7 * group
    return values
