# SPDX-License-Identifier: Apache-2.0
"""The size of a map of latents -> the order of coding its places, and the mean and scale expected at each place.

A map is coded from coarse to fine. The first phase is the seed: every eighth place along both sides. Then, three times,
come the places in the middle of four coded ones (`diagonal`) and the places between those (`cross`). All places of a
phase depend on earlier phases alone, so that they are coded at once. From the second phase on a place has coded
neighbours on every side, where a raster order knows only the places above and to the left.

Coder and quantizer both traverse the places in this order; they differ in the integers that they choose.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.context import (
    ESCAPE,
    LARGEST,
    MEAN_BITS,
    MEAN_TERMS,
    SCALE_TERMS,
    WEIGHT_BITS,
    ContextModel,
    Contexts,
)

SEED_STRIDE = 8
NEIGHBOURS = 4
"""Neighbours of a place outside the seed: two opposite pairs."""
KINDS = ("seed", "diagonal 4", "cross 4", "diagonal 2", "cross 2", "diagonal 1", "cross 1")
"""The phases, in their order; the number is the distance to the nearest coded places along an axis."""

KEPT_PLACES = 1 << 15
"""Places of the largest map whose phases are kept in memory; they take 40 bytes a place."""

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
    places: Integers
    neighbours: Integers


Choose = Callable[[int, Phase, Integers, Integers], Integers]
"""Maps a channel, a phase, and the means and scales at its places, to the integers there."""


@dataclass(frozen=True)
class Traversed:
    """The integers of one image's latents, and the means and scales that were expected of them.

    Attributes:
        integers: (C,h,w).
        means: (C,h,w), in sixteenths of a step.
        coded: integers, means and scales in coding order, (n,) each.
    """

    integers: Integers
    means: Integers
    coded: tuple[Integers, Integers, Integers]


class Surroundings:
    """The integers of one image's latents as far as they are coded, and the means and scales that follow from them."""

    def __init__(self, shape: tuple[int, int, int], model: ContextModel) -> None:
        channels, *size = shape
        self.size = (size[0], size[1])
        self.model = model
        count = size[0] * size[1]
        self.values = np.zeros((channels, count), np.int64)
        self.means = np.zeros((channels, count), np.int64)
        self._errors = np.zeros((channels, count), np.int64)
        self._referred: Integers | None = None

    def begin(self, channel: int) -> None:
        """Prepare the features of a channel that come from the channel it refers to; all earlier ones are coded."""
        reference = int(self.model.references[channel])
        self._referred = None
        if reference >= 0:
            value, error = (each[reference].reshape(self.size) for each in (self.values, self._errors))
            around = _around(value)
            edge = np.abs(4 * value - around) << MEAN_BITS
            self._referred = np.stack([value, error, _around(error), edge]).reshape(4, -1)

    def features(self, channel: int, phase: Phase) -> Integers:
        """Return the features at the places of a phase, int64 (10, n): 3 for the mean, then 7 for the scale."""
        features = np.zeros((MEAN_TERMS + SCALE_TERMS, len(phase.places)), np.int64)
        mean, scale = features[:MEAN_TERMS], features[MEAN_TERMS:]
        if len(phase.neighbours):
            a, b, c, d = self.values[channel].take(phase.neighbours)
            np.add(a, b, out=mean[0])
            np.add(c, d, out=mean[1])
            np.add(np.abs(a - b), np.abs(c - d), out=scale[0])
            np.abs(mean[0] - mean[1], out=scale[1])
            scale[:2] <<= MEAN_BITS
            a, b, c, d = self._errors[channel].take(phase.neighbours)
            np.add(a, b, out=scale[2])
            np.add(c, d, out=scale[3])
        if self._referred is not None:
            referred = self._referred.take(phase.places, axis=1)
            mean[2], scale[4:] = referred[0], referred[1:]
        return features

    def expect(self, channel: int, phase: Phase) -> tuple[Integers, Integers]:
        """Return means (sixteenths of a step) and scales (1024ths of a step) at the places of a phase, each (n,)."""
        features = self.features(channel, phase)
        mean = self.model.mean_weights[channel, phase.kind] @ features[:MEAN_TERMS]
        scale = self.model.scale_weights[channel, phase.kind] @ features[MEAN_TERMS:]
        mean += self.model.mean_bias[channel, phase.kind]
        scale += self.model.scale_floor[channel, phase.kind]
        mean >>= WEIGHT_BITS
        scale >>= WEIGHT_BITS
        return mean, scale

    def put(self, channel: int, places: Integers, integers: Integers, mean: Integers) -> None:
        """Store the integers that were coded at some places of a channel, and the means expected of them."""
        self.values[channel][places] = integers
        self.means[channel][places] = mean
        self._errors[channel][places] = np.abs((integers << MEAN_BITS) - mean)


def traverse(shape: tuple[int, int, int], model: ContextModel, choose: Choose) -> Traversed:
    """Visit all places of (C,h,w) in coding order and put there the integers that `choose` returns."""
    found = Surroundings(shape, model)
    plan = phases(*shape[1:])
    coded = []
    for channel in range(shape[0]):
        found.begin(channel)
        for phase in plan:
            mean, scale = found.expect(channel, phase)
            chosen = choose(channel, phase, mean, scale)
            found.put(channel, phase.places, chosen, mean)
            coded.append((chosen, mean, scale))
    integers, means, scales = (np.concatenate(each) for each in zip(*coded, strict=True))
    return Traversed(found.values.reshape(shape), found.means.reshape(shape), (integers, means, scales))


def symbols(integers: Integers, context: Contexts) -> tuple[Integers, Integers]:
    """Map integers (n,) to their symbols, and to the signed differences that the symbols stand for."""
    differences = integers - context.base
    if context.wide.size:
        differences[context.wide] = (integers[context.wide] >> context.shift) - context.base[context.wide]
    differences *= context.sign
    return np.where(np.abs(differences) > LARGEST, ESCAPE, differences + LARGEST), differences


def shape_of(latents: npt.NDArray[Any]) -> tuple[int, int, int]:
    """Return (C,h,w) of one image's latents or integers."""
    channels, height, width = latents.shape
    return channels, height, width


def phases(height: int, width: int) -> tuple[Phase, ...]:
    """Map the size of a map to its phases, without empty ones; the phases of small maps are kept in memory."""
    return (_kept_plan if height * width <= KEPT_PLACES else _plan)(height, width)


def _plan(height: int, width: int) -> tuple[Phase, ...]:
    """Make the phases of a map.

    A neighbour outside the map is replaced by its mirror image at the place. Where the mirror image is outside too, the
    first of the four neighbours that is inside replaces it. There is always one: the neighbour above or to the left,
    where the place is between coded rows or columns.
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


def _phase(kind: int, at: tuple[Integers, Integers], offsets: list[tuple[int, int]], size: tuple[int, int]) -> Phase:
    down, right = at
    neighbours = [_neighbour(down, right, *offset, size) for offset in offsets]
    first = neighbours[-1]
    for each in reversed(neighbours[:-1]):
        first = np.where(each >= 0, each, first)
    neighbours = [np.where(each >= 0, each, first) for each in neighbours]
    return Phase(kind, down * size[1] + right, np.stack(neighbours))


def _neighbour(down: Integers, right: Integers, y: int, x: int, size: tuple[int, int]) -> Integers:
    """Return the places at a distance (y, x), mirrored where they are outside; -1 where both are outside."""
    height, width = size
    below, beside = down + y, right + x
    below = np.where((below < 0) | (below >= height), down - y, below)
    beside = np.where((beside < 0) | (beside >= width), right - x, beside)
    inside = (below >= 0) & (below < height) & (beside >= 0) & (beside < width)
    return np.where(inside, below * width + beside, -1)


def _around(plane: Integers) -> Integers:
    """Return the sum of the four neighbours of each place of (h, w); a neighbour outside counts as the place itself."""
    total = np.empty_like(plane)
    total[1:], total[0] = plane[:-1], plane[0]
    total[:-1] += plane[1:]
    total[-1] += plane[-1]
    total[:, 1:] += plane[:, :-1]
    total[:, 0] += plane[:, 0]
    total[:, :-1] += plane[:, 1:]
    total[:, -1] += plane[:, -1]
    return total
