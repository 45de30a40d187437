# SPDX-License-Identifier: Apache-2.0
"""A seed and a shape -> standard normal noise, the same on every machine and in every package."""

from operator import index
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from latentwire_core.errors import TensorError

MAX_SEED = 2**64 - 1


def check_seed(seed: SupportsIndex, name: str = "seed") -> int:
    """Return a seed as an int, whichever library's integer it is.

    Raises:
        TensorError: it is outside 0 .. 2^64 - 1. A TensorError is a ValueError.
        TypeError: it is no integer.
    """
    try:
        number = index(seed)
    except TypeError:
        raise TypeError(f"{name} is {seed!r}, a {type(seed).__name__}; an integer in 0..2^64-1 is needed") from None
    if not 0 <= number <= MAX_SEED:
        raise TensorError(f"{name} is {number}; it must be in 0..2^64-1")
    return number


def seeded_noise(seed: SupportsIndex, shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """Map a seed, 0 .. 2^64 - 1, and the shape (C,h,w) of one image's latents to standard normal noise of that shape.

    The noise depends on the seed and the shape alone: not on the batch, the device, the dtype or the library. The
    algorithm is part of the interface: the words of Philox4x64-10 with the key (seed, C * 2^40 + h * 2^20 + w) and the
    counters 1, 2, ..., two by two through Box and Muller in float64: with u = (word1 >> 11) + 1 and v = word2 >> 11,
    each times 2^-53, the pair sqrt(-2 ln u) * (cos 2 pi v, sin 2 pi v), in C order, rounded to float32. Both h and w
    are below 2^20.

    Raises:
        TensorError: the seed is out of range.

    Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011).
    """
    number = check_seed(seed)
    channels, height, width = shape
    count = channels * height * width
    key = np.array([number, (channels << 40) + (height << 20) + width], dtype=np.uint64)
    words = np.random.Philox(key=key).random_raw(count + count % 2).reshape(-1, 2) >> np.uint64(11)
    radius = np.sqrt(-2.0 * np.log((words[:, 0] + np.uint64(1)) * 2.0**-53))
    angle = (2.0 * np.pi * 2.0**-53) * words[:, 1]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return pairs.reshape(-1)[:count].astype(np.float32).reshape(shape)
