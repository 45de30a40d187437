# SPDX-License-Identifier: Apache-2.0
"""Points of smooth shapes and colours -> an image, drawn large and averaged down."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from latentwire_codec.images.geometry import Pixels

Points = npt.NDArray[np.float64]
"""float64 (N,2): x to the right, y down."""

Colour = tuple[int, int, int]
"""RGB, 0..255."""

_LEAST_SIDE = 256  # of the large image: on a smaller image one would see the rounding to whole pixels
_STEPS = 7
_T = np.linspace(0, 1, _STEPS, endpoint=False)[:, None]
# The shares of the four points around each piece of a Catmull-Rom spline.
_SHARES = 0.5 * np.concatenate(
    [-(_T**3) + 2 * _T**2 - _T, 3 * _T**3 - 5 * _T**2 + 2, -3 * _T**3 + 4 * _T**2 + _T, _T**3 - _T**2], axis=1
)


_ANGLES = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def curve(points: Sequence[tuple[float, float]] | Points, closed: bool = True) -> Points:
    """Map a few points to many points on a smooth curve through them (Catmull-Rom); a repeated point makes a corner."""
    given = np.asarray(points, np.float64)
    if closed:
        around = np.concatenate([given[-1:], given, given[:2]])
    else:
        around = np.concatenate([2 * given[:1] - given[1:2], given, 2 * given[-1:] - given[-2:-1]])
    pieces = np.stack([around[k : len(around) - 3 + k] for k in range(4)], axis=1)
    line = (_SHARES @ pieces).reshape(-1, 2)
    return line if closed else np.concatenate([line, given[-1:]])


def path(points: Sequence[tuple[float, float]] | Points) -> Points:
    """Map a few points to many points on an open smooth line through them."""
    return curve(points, closed=False)


def mirrored(half: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Map the right half of an outline, from top to bottom, to the whole outline; points on the axis stay single."""
    return [*half, *((-x, y) for x, y in reversed(half) if x != 0)]


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> Points:
    """Map a centre and two radii to the outline of an ellipse."""
    return moved(_CIRCLE * np.array((radius_x, radius_y)), x, y)


def flipped(points: Sequence[tuple[float, float]], side: int) -> Points:
    """Map points of the right side and -1 or 1 to points of the left or the right side."""
    return np.asarray(points, np.float64) * np.array((side, 1), np.float64)


def moved(points: Points, right: float, down: float) -> Points:
    """Move points to the right and down."""
    return points + np.array((right, down), np.float64)


class Canvas:
    """An image to draw on, `factor` times as wide as the result of `size` pixels; places are in its own pixels."""

    def __init__(self, size: int) -> None:
        self._factor = max(3, math.ceil(_LEAST_SIDE / size))
        self.side = size * self._factor
        self.image = Image.new("RGB", (self.side, self.side))
        self._box = (0, 0, self.side, self.side)

    def result(self) -> Pixels:
        """Return uint8 (size,size,3), each pixel the mean of `factor` x `factor` drawn pixels."""
        return np.array(self.image.reduce(self._factor))

    def fill(self, outline: Points, colour: Colour, opacity: float = 1.0) -> None:
        """Fill the inside of a closed outline."""
        if opacity >= 1:
            ImageDraw.Draw(self.image).polygon(outline.ravel().tolist(), fill=colour)
            return
        box = self._bounds(outline)
        if box[0] < box[2] and box[1] < box[3]:
            self.image.paste(colour, box, _mask(box, outline, opacity=round(255 * opacity)))

    def stroke(
        self, line: Points, width: float, colour: Colour, opacity: float = 1.0, *, ends: tuple[float, float] = (0, 0)
    ) -> None:
        """Draw an open line, `width` wide in its middle, with the given shares of the width at its ends."""
        along: Points = np.gradient(line, axis=0)
        length = np.maximum(np.hypot(along[:, :1], along[:, 1:]), 1e-9)
        # Without half a pixel more, the thin ends would fall between pixels.
        across = along[:, ::-1] * np.array((-1, 1)) / length * (width / 2 * _taper(len(line), *ends) + 0.25)
        self.fill(np.concatenate([line + across, (line - across)[::-1]]), colour, opacity)

    def glow(self, centre: Points, radius_x: float, radius_y: float, colour: Colour, opacity: float) -> None:
        """Draw a soft spot around `centre`, float64 (1,2)."""
        width, height = max(2, round(2 * radius_x)), max(2, round(2 * radius_y))
        mask = _spot(round(opacity * 100)).resize((width, height))
        x, y = (round(value) for value in centre[0].tolist())
        self.image.paste(colour, (x - width // 2, y - height // 2), mask)

    def shade(self, angle: float, colour: Colour, opacity: float, *, centre: Points, reach: float) -> None:
        """Tint everything, from nothing on the near side of `centre` to `opacity` at `reach` towards `angle`."""
        left, top, right, bottom = self._box
        grid = (np.arange(32) + 0.5) / 32
        x, y = left + grid[None] * (right - left) - centre[0, 0], top + grid[:, None] * (bottom - top) - centre[0, 1]
        depth = (x * math.cos(angle) + y * math.sin(angle)) / reach
        depth = np.clip(depth * 0.5 + 0.5, 0, 1)
        mask = Image.fromarray((255 * opacity * depth**2 * (3 - 2 * depth)).astype(np.uint8))
        self.image.paste(colour, self._box, mask.resize((right - left, bottom - top), Image.Resampling.BILINEAR))

    @contextmanager
    def inside(self, *outlines: Points) -> Iterator[None]:
        """Clip the drawing meanwhile to the inside of the outlines."""
        before, box = self.image, self._box
        self._box = self._bounds(np.concatenate(outlines))
        self.image = before.copy()
        yield
        before.paste(self.image.crop(self._box), self._box, _mask(self._box, *outlines))
        self.image, self._box = before, box

    def _bounds(self, outline: Points) -> tuple[int, int, int, int]:
        """Map an outline to left, top, right and bottom of its part of the canvas."""
        left, top = np.maximum(np.floor(outline.min(0)), 0).astype(int).tolist()
        right, bottom = np.minimum(np.ceil(outline.max(0)) + 1, self.side).astype(int).tolist()
        return left, top, right, bottom


def _mask(box: tuple[int, int, int, int], *outlines: Points, opacity: int = 255) -> Image.Image:
    """Map outlines to a mask of the box with `opacity`, 0..255, inside the outlines."""
    mask = Image.new("L", (box[2] - box[0], box[3] - box[1]))
    for outline in outlines:
        ImageDraw.Draw(mask).polygon((outline - box[:2]).ravel().tolist(), fill=opacity)
    return mask


@lru_cache(maxsize=256)
def _taper(count: int, first: float, last: float) -> Points:
    """Map the shares of a line's width at its ends to shares at `count` points, float64 (count,1), 1 in the middle."""
    t = np.linspace(0, 1, count)[:, None]
    share = np.sin(np.pi * t) ** 0.6
    return share + (1 - share) * np.where(t < 0.5, first, last)


@lru_cache(maxsize=101)
def _spot(percent: int) -> Image.Image:
    """Map an opacity to a mask that falls smoothly to 0 at the rim."""
    axis = (np.arange(96) + 0.5) / 48 - 1
    squared = np.minimum(axis[None] ** 2 + axis[:, None] ** 2, 1)
    return Image.fromarray((2.55 * percent * (1 - squared) ** 2).astype(np.uint8))
