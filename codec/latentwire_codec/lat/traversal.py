# SPDX-License-Identifier: Apache-2.0
"""The size of a map of latents -> the order of coding its places, and the mean and scale expected at each place.

A map is coded from coarse to fine. The first phase is the seed: every eighth place along both sides. Then, three times,
come the places in the middle of four coded ones (`diagonal`) and the places between those (`cross`). All places of a
phase depend on earlier phases alone. From the second phase on a place has coded neighbours on every side, where a
raster order knows only the places above and to the left.

Each pass over latents is one compiled loop over the places in this order: it asks what is expected
at a place, codes or reads the integer, and puts it there.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from latentwire_codec.compiled import compiled, inlined
from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.context import MEAN_BITS, WEIGHT_BITS, ContextModel

SEED_STRIDE = 8
NEIGHBOURS = 4
"""Neighbours of a place outside the seed: two opposite pairs."""
KINDS = ("seed", "diagonal 4", "cross 4", "diagonal 2", "cross 2", "diagonal 1", "cross 1")
"""The phases, in their order; the number is the distance to the nearest coded places along an axis."""

# (down, right), in strides.
_DIAGONAL = ((-1, -1), (1, 1), (-1, 1), (1, -1))
_CROSS = ((-1, 0), (1, 0), (0, -1), (0, 1))


class Plan(NamedTuple):
    """The places of a map in coding order.

    Attributes:
        places: uint32 (N,), y * width + x.
        neighbours: uint32 (N, 4), two opposite pairs. In the seed, the place itself: it is 0 until it is coded.
        begins: (kinds + 1,), where the places of each kind begin, and N.
    """

    places: npt.NDArray[np.uint32]
    neighbours: npt.NDArray[np.uint32]
    begins: Integers


@dataclass(frozen=True)
class Phase:
    """Places that depend on earlier phases alone.

    Attributes:
        kind: index into `KINDS`.
        places: (n,), y * width + x, in raster order.
        neighbours: (4, n), two opposite pairs; (0, n) in the seed.
    """

    kind: int
    places: Integers
    neighbours: Integers


class Surroundings(NamedTuple):
    """The integers of one image's latents as far as they are coded, and what follows from them for the next channel.

    Attributes:
        values: (C,N), the integers.
        means: (C,N), the means that were expected of them, in sixteenths of a step.
        errors: (2,N), the distances of integers and means: of the even channel, and of the odd channel.
        beside: (2,N), of the channel before: the sum of the four errors around a place, and the absolute value of four
            times the integer less the four integers around, in sixteenths of a step.
    """

    values: Integers
    means: Integers
    errors: Integers
    beside: Integers


def surroundings(shape: tuple[int, int, int]) -> Surroundings:
    """Return the surroundings in which no integer of (C,h,w) is coded."""
    channels, height, width = shape
    count = height * width
    return Surroundings(*(np.zeros((rows, count), np.int64) for rows in (channels, channels, 2, 2)))


@inlined
def begin_channel(found: Surroundings, channel: int, width: int) -> None:
    """Prepare what a channel takes from the channel before, all of which is coded."""
    found.errors[channel & 1] = 0
    if channel == 0:
        return
    values, errors = found.values[channel - 1], found.errors[(channel - 1) & 1]
    height = len(values) // width
    for y in range(height):
        row = y * width
        above, below = max(row - width, 0) if y else row, row + width if y + 1 < height else row
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            around = values[above + x] + values[below + x] + values[row + left] + values[row + right]
            found.beside[0, row + x] = errors[above + x] + errors[below + x] + errors[row + left] + errors[row + right]
            found.beside[1, row + x] = abs(4 * values[row + x] - around) << MEAN_BITS


@inlined
def scale_features(found: Surroundings, plan: Plan, channel: int, at: int) -> tuple[int, int, int, int, int, int, int]:
    """Return the features of the scale at a place in coding order; see `ContextModel`."""
    values, errors, around, own, before = found.values, found.errors, plan.neighbours, channel & 1, (channel - 1) & 1
    i, j, k, m, place = around[at, 0], around[at, 1], around[at, 2], around[at, 3], plan.places[at]
    a, b, c, d = values[channel, i], values[channel, j], values[channel, k], values[channel, m]
    return (
        (abs(a - b) + abs(c - d)) << MEAN_BITS,
        abs(a + b - c - d) << MEAN_BITS,
        errors[own, i] + errors[own, j],
        errors[own, k] + errors[own, m],
        errors[before, place],
        found.beside[0, place],
        found.beside[1, place],
    )


@inlined
def expect(found: Surroundings, plan: Plan, model: ContextModel, channel: int, kind: int, at: int) -> tuple[int, int]:
    """Return the mean (sixteenths of a step) and the scale (1024ths of a step) at a place in coding order."""
    values, around, weights = found.values, plan.neighbours, model.mean_weights
    first = values[channel, around[at, 0]] + values[channel, around[at, 1]]
    second = values[channel, around[at, 2]] + values[channel, around[at, 3]]
    mean = weights[channel, kind, 0] * first + weights[channel, kind, 1] * second + model.mean_bias[channel, kind]
    if channel > 0:
        mean += weights[channel, kind, 2] * values[channel - 1, plan.places[at]]
    s0, s1, s2, s3, s4, s5, s6 = scale_features(found, plan, channel, at)
    weights = model.scale_weights
    scale = model.scale_floor[channel, kind] + weights[channel, kind, 0] * s0 + weights[channel, kind, 1] * s1
    scale += weights[channel, kind, 2] * s2 + weights[channel, kind, 3] * s3 + weights[channel, kind, 4] * s4
    scale += weights[channel, kind, 5] * s5 + weights[channel, kind, 6] * s6
    return mean >> WEIGHT_BITS, scale >> WEIGHT_BITS


@inlined
def put(found: Surroundings, channel: int, place: int, integer: int, mean: int) -> None:
    """Store the integer that was coded at a place of a channel, and the mean expected of it."""
    found.values[channel, place] = integer
    found.means[channel, place] = mean
    found.errors[channel & 1, place] = abs((integer << MEAN_BITS) - mean)


def shape_of(latents: npt.NDArray[Any]) -> tuple[int, int, int]:
    """Return (C,h,w) of one image's latents or integers."""
    channels, height, width = latents.shape
    return channels, height, width


def plan_of(height: int, width: int) -> Plan:
    """Map the size of a map to its plan."""
    count = height * width
    plan = Plan(
        np.empty(count, np.uint32), np.empty((count, NEIGHBOURS), np.uint32), np.empty(len(KINDS) + 1, np.int64)
    )
    _fill(plan, height, width)
    return plan


def phases(height: int, width: int) -> tuple[Phase, ...]:
    """Map the size of a map to its phases, without empty ones."""
    plan = plan_of(height, width)
    every = []
    for kind in range(len(KINDS)):
        chosen = slice(plan.begins[kind], plan.begins[kind + 1])
        neighbours = plan.neighbours[chosen].T.astype(np.int64)
        if len(plan.places[chosen]):
            every.append(Phase(kind, plan.places[chosen].astype(np.int64), neighbours if kind else neighbours[:0]))
    return tuple(every)


@compiled
def _fill(plan: Plan, height: int, width: int) -> None:
    """Write the plan of a map.

    A neighbour outside the map is replaced by its mirror image at the place. Where the mirror image is outside too, the
    first of the four neighbours that is inside replaces it. There is always one: the neighbour above or to the left,
    where the place is between coded rows or columns.
    """
    at = 0
    plan.begins[0] = 0
    for y in range(0, height, SEED_STRIDE):
        for x in range(0, width, SEED_STRIDE):
            plan.places[at] = y * width + x
            plan.neighbours[at] = plan.places[at]
            at += 1
    kind, stride = 1, SEED_STRIDE // 2
    while stride:
        for offsets in (_DIAGONAL, _CROSS):
            plan.begins[kind] = at
            for y in range(0, height, stride):
                odd_row = y // stride & 1
                if offsets == _DIAGONAL and not odd_row:
                    continue
                # In a cross phase just one of both coordinates is odd.
                begin = stride if offsets == _DIAGONAL or not odd_row else 0
                for x in range(begin, width, 2 * stride):
                    plan.places[at] = y * width + x
                    inside = -1
                    for index in range(NEIGHBOURS - 1, -1, -1):
                        down, right = offsets[index]
                        place = _neighbour(y, x, down * stride, right * stride, height, width)
                        inside = place if place >= 0 else inside
                    for index in range(NEIGHBOURS):
                        down, right = offsets[index]
                        place = _neighbour(y, x, down * stride, right * stride, height, width)
                        plan.neighbours[at, index] = place if place >= 0 else inside
                    at += 1
            kind += 1
        stride //= 2
    plan.begins[kind] = at


@compiled
def _neighbour(y: int, x: int, down: int, right: int, height: int, width: int) -> int:
    """Return the place at a distance (down, right), mirrored where it is outside; -1 where both are outside."""
    below = y + down if 0 <= y + down < height else y - down
    beside = x + right if 0 <= x + right < width else x - right
    return below * width + beside if 0 <= below < height and 0 <= beside < width else -1
