# SPDX-License-Identifier: Apache-2.0
"""Numbers of a few bits each <-> bytes, the first bit highest; without a loop over the numbers."""

import numpy as np
import numpy.typing as npt

from latentwire_core.errors import Malformed

Integers = npt.NDArray[np.int64]

MOST = 24
"""Bits of the longest number."""


def write_bits(numbers: Integers, counts: Integers) -> bytes:
    """Map the low `counts` bits of each number (n,) to bytes; counts are 0..24, unused bits of the last byte are 0."""
    place = np.repeat(np.cumsum(counts), counts) - np.arange(int(counts.sum())) - 1
    return np.packbits((np.repeat(numbers, counts) >> place & 1).astype(np.uint8)).tobytes()


class BitReader:
    """Returns the numbers that `write_bits` wrote, in pieces."""

    def __init__(self, data: bytes) -> None:
        self._length = len(data)
        # The 32 bits from each byte on; a view of the bytes, which takes no memory.
        self._windows = np.ndarray(len(data) + 1, ">u4", data + bytes(4), strides=1)
        self._position = 0

    def read(self, counts: Integers) -> Integers:
        """Return the next numbers, of `counts` (n,) bits each; raises Malformed where fewer bits are left."""
        ends = self._position + counts.cumsum()
        if counts.size and ends[-1] > 8 * self._length:
            raise Malformed("there are fewer low bits than are needed")
        starts = ends - counts
        self._position = int(ends[-1]) if counts.size else self._position
        # The window of the byte in which a number begins holds all of it: up to 7 bits before it, and up to 24 of it.
        numbers: Integers = self._windows[starts >> 3] >> (32 - (starts & 7) - counts) & ((1 << counts) - 1)
        return numbers

    def finish(self) -> None:
        """Refuse bits that were not read; raises Malformed where a whole byte is left, or a bit that is 1."""
        unused = 8 * self._length - self._position
        if unused >= 8 or (unused and self._windows[-2] >> 24 & ((1 << unused) - 1)):
            raise Malformed("there are more low bits than are needed")
