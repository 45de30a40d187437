# SPDX-License-Identifier: Apache-2.0
"""The size of a map of latents -> the order in which its places are coded, and which coded places lie around each.

A map is coded from coarse to fine: first every eighth place along both sides, then, three times, the places in the
middle of four coded ones (`diagonal`) and the places between those (`cross`). All places of one phase depend on earlier
phases alone, so that they are coded at once; and from the second phase on a place has neighbours on every side, where a
raster order knows only what lies above and to the left.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]

SEED_STRIDE = 8
NEIGHBOURS = 4
"""Of each place outside the seed: two opposite pairs."""
KINDS = ("seed", "diagonal 4", "cross 4", "diagonal 2", "cross 2", "diagonal 1", "cross 1")
"""The phases, in their order; the number is the distance to the nearest coded places along an axis."""

KEPT_PLACES = 1 << 15
"""A plan takes 40 bytes for each place."""

# (down, right), in strides.
_DIAGONAL = ((-1, -1), (1, 1), (-1, 1), (1, -1))
_CROSS = ((-1, 0), (1, 0), (0, -1), (0, 1))


@dataclass(frozen=True)
class Phase:
    """Places that are coded at once.

    Attributes:
        kind: index into `KINDS`.
        places: (n,), y * width + x, in raster order.
        neighbours: (4, n), two opposite pairs; (0, n) in the seed.
    """

    kind: int
    places: Places
    neighbours: Places


def phases(height: int, width: int) -> tuple[Phase, ...]:
    """Map the size of a map to its phases, those without places left out; those of small maps are kept."""
    return (_kept_plan if height * width <= KEPT_PLACES else _plan)(height, width)


def _plan(height: int, width: int) -> tuple[Phase, ...]:
    """Make the phases of a map.

    A neighbour outside the map is replaced by its mirror image at the place; where that lies outside too, by the first
    of the four that does not. One never does: the one above or to the left, where the place is between coded rows or
    columns.
    """
    down, right = np.mgrid[:height:SEED_STRIDE, :width:SEED_STRIDE].reshape(2, -1)
    every = [Phase(0, down * width + right, np.empty((0, down.size), np.int64))]
    stride, kind = SEED_STRIDE // 2, 1
    while stride:
        for offsets in (_DIAGONAL, _CROSS):
            down, right = np.mgrid[:height:stride, :width:stride].reshape(2, -1) // stride
            chosen = (down & right) % 2 == 1 if offsets is _DIAGONAL else (down + right) % 2 == 1
            if chosen.any():
                at = down[chosen] * stride, right[chosen] * stride
                every.append(_phase(kind, at, [(y * stride, x * stride) for y, x in offsets], (height, width)))
            kind += 1
        stride //= 2
    return tuple(every)


_kept_plan = lru_cache(maxsize=32)(_plan)


def _phase(kind: int, at: tuple[Places, Places], offsets: list[tuple[int, int]], size: tuple[int, int]) -> Phase:
    down, right = at
    neighbours = [_neighbour(down, right, *offset, size) for offset in offsets]
    first = neighbours[-1]
    for each in reversed(neighbours[:-1]):
        first = np.where(each >= 0, each, first)
    neighbours = [np.where(each >= 0, each, first) for each in neighbours]
    return Phase(kind, down * size[1] + right, np.stack(neighbours))


def _neighbour(down: Places, right: Places, y: int, x: int, size: tuple[int, int]) -> Places:
    """Return the places at a distance, mirrored where they are outside; -1 where both are."""
    height, width = size
    below, beside = down + y, right + x
    below = np.where((below < 0) | (below >= height), down - y, below)
    beside = np.where((beside < 0) | (beside >= width), right - x, beside)
    inside = (below >= 0) & (below < height) & (beside >= 0) & (beside < width)
    return np.where(inside, below * width + beside, -1)
