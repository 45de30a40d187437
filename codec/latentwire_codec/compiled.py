# SPDX-License-Identifier: Apache-2.0
"""A function of numbers and arrays -> its machine code, by numba.

The first call with arguments of some types compiles. The result is kept on disk, where the disk can be written to.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

whole = cast("Callable[[Any], int]", np.int64)
"""Maps a number to one of 64 bits with a sign, in compiled functions: with unsigned numbers it would become a float."""


def compiled(function: F, **options: Any) -> F:
    """Compile a function, which then needs no GIL.

    Unless `_nrt=True` is given, the function makes no arrays: arrays are not counted then, which would take most of the
    time of a loop that hands arrays to inlined functions.
    """
    settings = {"nogil": True, "error_model": "numpy", "_nrt": False, **options}
    made: F
    try:
        made = numba.njit(cache=True, **settings)(function)
    except RuntimeError:  # no folder for the cache
        made = numba.njit(**settings)(function)
    return made


def inlined(function: F) -> F:
    """Make a function a part of each compiled function that calls it."""
    made: F = numba.njit(inline="always")(function)
    return made
