# SPDX-License-Identifier: Apache-2.0
"""Whole numbers <-> LEB128: seven bits in a byte, the lowest first; the eighth bit says that more follow."""

import numpy as np
import numpy.typing as npt

Octets = npt.NDArray[np.uint8]
MORE = 128


def to_varint(number: int) -> bytes:
    """Map one number >= 0 to its bytes."""
    written = bytearray()
    while number >= MORE:
        written.append(number & 127 | MORE)
        number >>= 7
    written.append(number)
    return bytes(written)


def check_varints(octets: Octets) -> str:
    """Map the bytes of numbers to a complaint; empty where each number ends, in as few bytes as possible, 4 at most."""
    more = octets >= MORE
    if more[-1:].any():
        return "does not end"
    if (more[:-1] & (octets[1:] == 0)).any() or (more[:-3] & more[1:-2] & more[2:-1] & more[3:]).any():
        return "is longer than it must be, or than 4 bytes"
    return ""
