# SPDX-License-Identifier: Apache-2.0
"""(seed, purpose, n) -> a sequence of random numbers, the same in every process and version."""

import numpy as np
import numpy.typing as npt

_LIMIT = 1 << 64


class Draws:
    """Random numbers that are a function of (seed, purpose, n).

    Philox4x64-10 with the key (seed, purpose) and the counter starting at n * 2**128. Only its raw words are used:
    numpy promises the words for all time, and its distributions only within one version.

    Args:
        seed: the seed of a run or a data set, 0 <= seed < 2**64.
        purpose: keeps the sequences of one seed apart, 0 <= purpose < 2**64. Taken are 1 (order of an epoch), 2
            (framing of a sample), 3 (framing of a view), 4 (drawn faces), 5 (noise of a training step).
        n: the number of the sequence, 0 <= n < 2**64.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, seed: int, purpose: int, n: int) -> None:
        for name, value in (("seed", seed), ("purpose", purpose), ("n", n)):
            if not 0 <= value < _LIMIT:
                raise ValueError(f"{name} is {value}; it must be >= 0 and below 2**64")
        self._bits = np.random.Philox(key=seed | purpose << 64, counter=n << 128)

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Return the next `count` 64-bit words."""
        return self._bits.random_raw(count)

    def uniform(self) -> float:
        """Return the next number in [0, 1), with 53 bits."""
        return (int(self._bits.random_raw()) >> 11) / 2**53
