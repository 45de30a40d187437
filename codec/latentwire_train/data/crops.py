# SPDX-License-Identifier: Apache-2.0
"""Pixels of any size and a few random numbers -> the square of pixels that a network sees.

RandomCrop   a square from anywhere; some squares are larger and scaled down, some are mirrored
CentreCrop   the middle, unscaled: used to measure
Cover        the whole image, scaled until it just covers the square: for small faces and digits
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from latentwire_codec.images.geometry import Pixels, resize_to_cover
from latentwire_core.draws import Draws
from latentwire_core.errors import ImageError


class Framing(Protocol):
    """Maps pixels to a square of `size` pixels."""

    @property
    def size(self) -> int:
        """The side of the result in pixels."""

    @property
    def min_side(self) -> int:
        """The least length of the image's shorter side, in pixels."""

    def __call__(self, pixels: Pixels, draws: Draws) -> Pixels:
        """Map uint8 (H,W,3) to uint8 (size,size,3), C-contiguous.

        Raises:
            ImageError: a side is below `min_side`.
        """


def area_shrink(pixels: Pixels, height: int, width: int) -> Pixels:
    """Map pixels to fewer pixels, each the rounded mean of the area that it covers.

    Pillow's BOX averages whole pixels only: at a scale of 1.3 it averages one pixel here and two there.

    Args:
        pixels: uint8 (H,W,3).
        height: height of the result, 1..H.
        width: width of the result, 1..W.

    Returns:
        uint8 (height,width,3), C-contiguous.

    Raises:
        ValueError: the result would be larger than the image, or empty.
    """
    old_height, old_width = pixels.shape[:2]
    if not (1 <= height <= old_height and 1 <= width <= old_width):
        raise ValueError(
            f"{old_width}x{old_height} cannot be shrunk to {width}x{height}; sides must be 1 up to the image's"
        )
    rows, row_weights = _overlaps(old_height, height)
    columns, column_weights = _overlaps(old_width, width)
    # Sums in a fixed order, so that the bytes do not depend on the number of threads.
    tall = np.zeros((height, old_width, 3), np.float32)
    for row, weight in zip(rows, row_weights, strict=True):
        tall += pixels[row] * weight[:, None, None]
    small = np.full((height, width, 3), 0.5, np.float32)
    for column, weight in zip(columns, column_weights, strict=True):
        small += tall[:, column] * weight[:, None]
    # The weights' own rounding may carry white to 256.0.
    return np.minimum(small, 255).astype(np.uint8)


@lru_cache(maxsize=512)
def _overlaps(old: int, new: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Map two lengths, new <= old, to the old pixels under each new one and their shares; both arrays (k, new)."""
    count = -(-old // new) + 1
    # In units of 1 / (old * new) of the whole length all edges are integers: no rounding.
    pixel = np.arange(new, dtype=np.int64)[None]
    index = pixel * old // new + np.arange(count, dtype=np.int64)[:, None]
    overlap = np.minimum((pixel + 1) * old, (index + 1) * new) - np.maximum(pixel * old, index * new)
    return np.minimum(index, old - 1), (np.maximum(overlap, 0) / old).astype(np.float32)


@dataclass(frozen=True)
class RandomCrop:
    """Maps pixels to a random square of them, `size` pixels wide after scaling.

    Attributes:
        size: side of the result, in pixels.
        scaled_share: share of crops that are cut from a larger square and scaled down (area filter). The other crops
            are unscaled, and so is a crop of an image without room for a larger square.
        max_scale: largest ratio of the larger square's width to `size`; the width is log-uniform.
        mirror_share: share of crops that are mirrored, left to right.

    Raises:
        ValueError: a number is out of range.
    """

    size: int
    scaled_share: float = 0.5
    max_scale: float = 2.0
    mirror_share: float = 0.5

    def __post_init__(self) -> None:
        _check_size(self.size)
        _check_share("scaled_share", self.scaled_share)
        _check_share("mirror_share", self.mirror_share)
        if not (self.max_scale >= 1 and math.isfinite(self.max_scale)):
            raise ValueError(f"max_scale is {self.max_scale}; it must be >= 1")

    @property
    def min_side(self) -> int:
        """The crop's own side: no image is scaled up."""
        return self.size

    def place(self, height: int, width: int, draws: Draws) -> tuple[int, int, int, bool]:
        """Map an image's size in pixels to the square's top, left and side, and whether to mirror it."""
        # Always five numbers in this order, so that one choice never shifts another.
        scaled, zoom, down, right, mirrored = (draws.uniform() for _ in range(5))
        largest = min(height, width, int(self.size * self.max_scale))
        side = self.size
        if scaled < self.scaled_share and largest > self.size:
            side = min(largest, max(self.size + 1, round(self.size * (largest / self.size) ** zoom)))
        return int(down * (height - side + 1)), int(right * (width - side + 1)), side, mirrored < self.mirror_share

    def __call__(self, pixels: Pixels, draws: Draws) -> Pixels:
        """Map uint8 (H,W,3) to uint8 (size,size,3).

        Raises:
            ImageError: a side is below `size`.
        """
        _check_room(pixels, self.size)
        top, left, side, mirrored = self.place(pixels.shape[0], pixels.shape[1], draws)
        square = pixels[top : top + side, left : left + side]
        if side > self.size:
            square = area_shrink(square, self.size, self.size)
        return np.ascontiguousarray(square[:, ::-1] if mirrored else square)


@dataclass(frozen=True)
class CentreCrop:
    """Maps pixels to the square in their middle, unscaled.

    Attributes:
        size: side of the square, in pixels.
    """

    size: int

    def __post_init__(self) -> None:
        _check_size(self.size)

    @property
    def min_side(self) -> int:
        """The crop's own side."""
        return self.size

    def __call__(self, pixels: Pixels, draws: Draws) -> Pixels:
        """Map uint8 (H,W,3) to uint8 (size,size,3); `draws` are not used.

        Raises:
            ImageError: a side is below `size`.
        """
        _check_room(pixels, self.size)
        top, left = ((length - self.size) // 2 for length in pixels.shape[:2])
        return np.ascontiguousarray(pixels[top : top + self.size, left : left + self.size])


@dataclass(frozen=True)
class Cover:
    """Maps pixels to the whole image, scaled up or down (Lanczos) to cover `size` x `size`, its longer side cropped.

    Attributes:
        size: side of the result, in pixels.
        mirror_share: share of results that are mirrored, left to right; 0 for digits.
    """

    size: int
    mirror_share: float = 0.0

    def __post_init__(self) -> None:
        _check_size(self.size)
        _check_share("mirror_share", self.mirror_share)

    @property
    def min_side(self) -> int:
        """Any image will do."""
        return 1

    def __call__(self, pixels: Pixels, draws: Draws) -> Pixels:
        """Map uint8 (H,W,3) to uint8 (size,size,3)."""
        square = resize_to_cover(pixels, self.size, self.size)
        mirrored = self.mirror_share > 0 and draws.uniform() < self.mirror_share
        return np.ascontiguousarray(square[:, ::-1] if mirrored else square)


def _check_room(pixels: Pixels, side: int) -> None:
    height, width = pixels.shape[:2]
    if min(height, width) < side:
        raise ImageError(f"is {width}x{height}; each side must be at least {side} px")


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size is {size}; it must be >= 1")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it must lie in 0..1")
