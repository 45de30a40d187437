# SPDX-License-Identifier: Apache-2.0
"""Pixels of any size and a few random numbers -> the square of pixels that a network sees.

RandomCrop   a square from anywhere; some squares are larger and scaled down, some are mirrored
CentreCrop   the middle, unscaled: used to measure
Cover        the whole image, scaled until it just covers the square: for small faces and digits
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from latentwire_codec.images.geometry import Pixels, resize_to_cover
from latentwire_core.draws import Draws
from latentwire_core.errors import ImageError


def area_shrink(pixels: Pixels, height: int, width: int) -> Pixels:
    """Map pixels to fewer pixels, each the rounded mean of the area that it covers.

    Pillow's BOX averages whole pixels only: at a scale of 1.3 it averages one pixel here and two there. The image is
    uint8 (H,W,3), the result uint8 (height,width,3), C-contiguous.

    Raises:
        ValueError: the result would be larger than the image, or empty.
    """
    old_height, old_width = pixels.shape[:2]
    if not (1 <= height <= old_height and 1 <= width <= old_width):
        raise ValueError(
            f"{old_width}x{old_height} cannot be shrunk to {width}x{height}; sides must be 1 up to the image's"
        )
    # Sums in a fixed order, so that the bytes do not depend on the number of threads.
    tall = np.zeros((height, old_width, 3), np.float32)
    for row, weight in zip(*_overlaps(old_height, height), strict=True):
        tall += pixels[row] * weight[:, None, None]
    small = np.full((height, width, 3), 0.5, np.float32)
    for column, weight in zip(*_overlaps(old_width, width), strict=True):
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
class Framing(ABC):
    """Maps pixels to a square.

    Attributes:
        size: side of the square, in pixels.

    Raises:
        ValueError: a number is out of range.
    """

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is {self.size}; it must be >= 1")
        for name in ("scaled_share", "mirror_share"):
            if not 0 <= getattr(self, name, 0) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in 0..1")

    @property
    def min_side(self) -> int:
        """The least length of an image's shorter side, in pixels; a crop is never scaled up."""
        return self.size

    def __call__(self, pixels: Pixels, draws: Draws) -> Pixels:
        """Map uint8 (H,W,3) to uint8 (size,size,3), C-contiguous.

        Raises:
            ImageError: a side is below `min_side`.
        """
        height, width = pixels.shape[:2]
        if min(height, width) < self.min_side:
            raise ImageError(f"is {width}x{height}; each side must be at least {self.min_side} px")
        return np.ascontiguousarray(self._square(pixels, draws))

    @abstractmethod
    def _square(self, pixels: Pixels, draws: Draws) -> Pixels:
        """Map pixels with sides of `min_side` or more to the square."""


@dataclass(frozen=True)
class RandomCrop(Framing):
    """Maps an image's pixels to a random square of the image, `size` pixels wide after scaling.

    Attributes:
        scaled_share: share of crops that are cut from a larger square and scaled down (area filter). The other crops
            are unscaled, and so is a crop of an image without room for a larger square.
        max_scale: largest ratio of the larger square's width to `size`; the width is log-uniform.
        mirror_share: share of crops that are mirrored, left to right.
    """

    scaled_share: float = 0.5
    max_scale: float = 2.0
    mirror_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.max_scale < math.inf:
            raise ValueError(f"max_scale is {self.max_scale}; it must be >= 1")

    def place(self, height: int, width: int, draws: Draws) -> tuple[int, int, int, bool]:
        """Map an image's size in pixels to the square's top, left and side, and whether to mirror it."""
        # Draw always five numbers in this order, so that no choice shifts the numbers of another choice.
        scaled, zoom, down, right, mirrored = (draws.uniform() for _ in range(5))
        largest = min(height, width, int(self.size * self.max_scale))
        side = self.size
        if scaled < self.scaled_share and largest > self.size:
            side = min(largest, max(self.size + 1, round(self.size * (largest / self.size) ** zoom)))
        return int(down * (height - side + 1)), int(right * (width - side + 1)), side, mirrored < self.mirror_share

    def _square(self, pixels: Pixels, draws: Draws) -> Pixels:
        top, left, side, mirrored = self.place(pixels.shape[0], pixels.shape[1], draws)
        square = pixels[top : top + side, left : left + side]
        if side > self.size:
            square = area_shrink(square, self.size, self.size)
        return square[:, ::-1] if mirrored else square


@dataclass(frozen=True)
class CentreCrop(Framing):
    """Maps pixels to the square in their middle, unscaled."""

    def _square(self, pixels: Pixels, draws: Draws) -> Pixels:
        top, left = ((length - self.size) // 2 for length in pixels.shape[:2])
        return pixels[top : top + self.size, left : left + self.size]


@dataclass(frozen=True)
class Cover(Framing):
    """Maps pixels to the image, scaled up or down (Lanczos) to cover `size` x `size`, then cropped on its longer side.

    Attributes:
        mirror_share: share of results that are mirrored, left to right; 0 for digits.
    """

    mirror_share: float = 0.0

    @property
    def min_side(self) -> int:
        """One pixel: any image will do."""
        return 1

    def _square(self, pixels: Pixels, draws: Draws) -> Pixels:
        square = resize_to_cover(pixels, self.size, self.size)
        return square[:, ::-1] if self.mirror_share > 0 and draws.uniform() < self.mirror_share else square
