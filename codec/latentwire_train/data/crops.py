# SPDX-License-Identifier: Apache-2.0
"""Pixels of any size and a few random numbers -> the square of pixels that a network sees.

    RandomCrop   a square from anywhere, part of the time a larger one scaled down, mirrored half of the time
    CentreCrop   the middle, unscaled: what is measured
    Cover        the whole image, scaled until it just covers the square: small faces and digits

Each takes its numbers from `Draws`, a function of (seed, purpose, n) alone.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from latentwire_codec.images.geometry import Pixels, resize_to_cover
from latentwire_core.errors import ImageError

_SEED_LIMIT = 1 << 64


class Draws:
    """(seed, purpose, n) -> a sequence of random numbers, the same in every process and version.

    Philox4x64-10 with the key (seed, purpose) and the counter starting at n * 2**128; only its raw words are used,
    because numpy promises those for all time, and its distributions only within one version.

    Args:
        seed: of the run, 0 <= seed < 2**64.
        purpose: keeps sequences of one seed apart, 0 <= purpose < 2**64.
        n: the number of the sequence, 0 <= n < 2**64.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, seed: int, purpose: int, n: int) -> None:
        for name, value in (("seed", seed), ("purpose", purpose), ("n", n)):
            if not 0 <= value < _SEED_LIMIT:
                raise ValueError(f"{name} is {value}; it must be >= 0 and below 2**64")
        self._bits = np.random.Philox(key=seed | purpose << 64, counter=n << 128)

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """A count -> the next `count` 64-bit words."""
        return self._bits.random_raw(count)

    def uniform(self) -> float:
        """Nothing -> the next number in [0, 1), with 53 bits."""
        return (int(self._bits.random_raw()) >> 11) / 2**53


class Framing(Protocol):
    """Pixels -> a square of `size` pixels."""

    @property
    def size(self) -> int:
        """The side of the result in pixels."""

    @property
    def min_side(self) -> int:
        """What the image's shorter side must have at least, in pixels."""

    def __call__(self, pixels: Pixels, draws: Draws) -> Pixels:
        """Map uint8 (H,W,3) to uint8 (size,size,3), C-contiguous.

        Raises:
            ImageError: a side is below `min_side`.
        """


def area_shrink(pixels: Pixels, height: int, width: int) -> Pixels:
    """Pixels -> fewer pixels, each the mean of the area that it covers, rounded.

    Pillow's BOX averages whole pixels only, which at a scale of 1.3 takes now one and now two of them.

    Args:
        pixels: uint8 (H,W,3).
        height: 1..H, of the result.
        width: 1..W, of the result.

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
    """Two lengths, new <= old -> for each new pixel the old ones under it and their shares; both (k, new)."""
    count = -(-old // new) + 1
    # In units of 1 / (old * new) of the whole length all edges are integers: no rounding.
    pixel = np.arange(new, dtype=np.int64)[None]
    index = pixel * old // new + np.arange(count, dtype=np.int64)[:, None]
    overlap = np.minimum((pixel + 1) * old, (index + 1) * new) - np.maximum(pixel * old, index * new)
    return np.minimum(index, old - 1), (np.maximum(overlap, 0) / old).astype(np.float32)


@dataclass(frozen=True)
class RandomCrop:
    """Pixels -> a random square of them, which is `size` pixels wide after scaling.

    Attributes:
        size: of the result, in pixels.
        scaled_share: of the crops are taken from a larger square and scaled down (area filter); the rest is unscaled.
            An image that leaves no room for it gives an unscaled crop.
        max_scale: how many times wider than `size` the larger square is at most; its width is log-uniform.
        mirror_share: of the crops are mirrored, left to right.

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
        """The crop's own side: nothing is scaled up."""
        return self.size

    def place(self, height: int, width: int, draws: Draws) -> tuple[int, int, int, bool]:
        """An image's size in pixels -> the square's top, left and side, and whether it is mirrored."""
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
    """Pixels -> the square in their middle, unscaled.

    Attributes:
        size: of the square, in pixels.
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
        return np.ascontiguousarray(_middle(pixels, self.size))


@dataclass(frozen=True)
class Cover:
    """Pixels -> the whole image (or the square in its middle), scaled up or down (Lanczos) to cover `size` x `size`.

    Attributes:
        size: of the result, in pixels.
        centre: the side of the square in the middle to take first, in pixels, such as 148 of CelebA's 178x218;
            None for all of the image.
        mirror_share: of the results are mirrored, left to right; 0 for digits.
    """

    size: int
    centre: int | None = None
    mirror_share: float = 0.0

    def __post_init__(self) -> None:
        _check_size(self.size)
        _check_share("mirror_share", self.mirror_share)
        if self.centre is not None and self.centre < 1:
            raise ValueError(f"centre is {self.centre}; it must be >= 1, or None")

    @property
    def min_side(self) -> int:
        """What `centre` needs."""
        return self.centre or 1

    def __call__(self, pixels: Pixels, draws: Draws) -> Pixels:
        """Map uint8 (H,W,3) to uint8 (size,size,3).

        Raises:
            ImageError: a side is below `centre`.
        """
        if self.centre is not None:
            _check_room(pixels, self.centre)
            pixels = _middle(pixels, self.centre)
        square = resize_to_cover(pixels, self.size, self.size)
        mirrored = self.mirror_share > 0 and draws.uniform() < self.mirror_share
        return np.ascontiguousarray(square[:, ::-1] if mirrored else square)


def _middle(pixels: Pixels, side: int) -> Pixels:
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]


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
