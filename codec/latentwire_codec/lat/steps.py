# SPDX-License-Identifier: Apache-2.0
"""The quantizer's step of each channel, as exact numbers that fit into a header."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Steps:
    """The quantizer's step of each channel as an exact number: numerator * 2^-exponent.

    Attributes:
        numerators: one for each channel, 1 .. 65535.
        exponent: -64 .. 63.
    """

    numerators: tuple[int, ...]
    exponent: int

    @cached_property
    def sizes(self) -> npt.NDArray[np.float64]:
        """(C,), in latents."""
        return np.array(self.numerators, np.float64) * 2.0**-self.exponent

    @classmethod
    def nearest(cls, sizes: npt.NDArray[np.float64]) -> "Steps":
        """Return the steps closest to (C,) positive sizes; relative to the largest they are exact to 2^-16."""
        sizes = np.clip(sizes, 2.0**-63, 2.0**79)
        exponent = int(np.clip(np.floor(16 - np.log2(sizes.max())), -64, 63))
        numerators = np.clip(np.round(sizes * 2.0**exponent), 1, 65535)
        return cls(tuple(int(numerator) for numerator in numerators), exponent)
