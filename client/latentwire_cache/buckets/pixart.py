# SPDX-License-Identifier: Apache-2.0
"""The size of an image -> its frame, by the rules of PixArt-Sigma's feature extractor, which ignores EXIF.

Source: PixArt-alpha/PixArt-sigma (1ce521a), `tools/extract_features.py` and `diffusion/data/datasets/utils.py`.
"""

from dataclasses import dataclass

from latentwire_cache.buckets.fitting import BICUBIC, BILINEAR, LANCZOS
from latentwire_cache.buckets.frame import Frame, Size, cut, square

# Ratio (height to width, as PixArt rounds it), and height and width in 32nds of the table of 512.
_COMMON = (
    (0.25, 8, 32), (0.26, 8, 31), (0.27, 8, 30), (0.28, 8, 29), (0.32, 9, 28), (0.33, 9, 27), (0.35, 9, 26),
    (0.4, 10, 25), (0.42, 10, 24), (0.48, 11, 23), (0.5, 11, 22), (0.52, 11, 21), (0.57, 12, 21), (0.6, 12, 20),
    (0.68, 13, 19), (0.72, 13, 18), (0.78, 14, 18), (0.82, 14, 17), (0.88, 15, 17), (0.94, 15, 16), (1.0, 16, 16),
    (1.07, 16, 15), (1.13, 17, 15), (1.21, 17, 14), (1.29, 18, 14), (1.38, 18, 13), (1.46, 19, 13), (1.67, 20, 12),
    (1.75, 21, 12), (2.0, 22, 11), (2.09, 23, 11), (2.4, 24, 10), (2.5, 25, 10), (2.89, 26, 9), (3.0, 27, 9),
    (3.11, 28, 9), (3.62, 29, 8), (3.75, 30, 8), (3.88, 31, 8), (4.0, 32, 8),
)  # fmt: skip
# The table of 2880 is one of its own, in units of 64 pixels.
_LARGEST = (
    (0.25, 22, 90), (0.26, 22, 87), (0.27, 22, 84), (0.28, 22, 81), (0.32, 25, 78), (0.33, 25, 75), (0.34, 25, 73),
    (0.4, 28, 70), (0.42, 28, 67), (0.47, 30, 64), (0.49, 30, 61), (0.51, 30, 59), (0.55, 33, 60), (0.59, 33, 56),
    (0.68, 36, 53), (0.72, 36, 50), (0.78, 39, 50), (0.83, 39, 47), (0.89, 42, 47), (0.93, 42, 45), (1.0, 45, 45),
    (1.07, 45, 42), (1.12, 47, 42), (1.21, 47, 39), (1.28, 50, 39), (1.39, 50, 36), (1.47, 53, 36), (1.7, 56, 33),
    (1.82, 60, 33), (2.03, 61, 30), (2.13, 64, 30), (2.39, 67, 28), (2.5, 70, 28), (2.92, 73, 25), (3.0, 75, 25),
    (3.12, 78, 25), (3.68, 81, 22), (3.82, 84, 22), (3.95, 87, 22), (4.0, 90, 22),
)  # fmt: skip
_UNITS = {256: 16, 512: 32, 1024: 64, 2048: 128, 2880: 64}
RESOLUTIONS = tuple(_UNITS)


def table(resolution: int) -> tuple[tuple[float, Size], ...]:
    """Return the ratios (height to width) of a resolution and their (width, height), in PixArt's order."""
    unit = _UNITS[resolution]
    return tuple((ratio, (across * unit, down * unit)) for ratio, down, across in _rows(resolution))


def _rows(resolution: int) -> tuple[tuple[float, int, int], ...]:
    return _LARGEST if resolution == 2880 else _COMMON


@dataclass(frozen=True)
class PixArt:
    """The tables of ratios with which PixArt-Sigma extracts features of several sizes; the image is distorted.

    Attributes:
        resolution: (side, side), of 256, 512, 1024, 2048 or 2880.
    """

    resolution: Size

    def __post_init__(self) -> None:
        """Check the resolution; raises ValueError."""
        if square(self.resolution, "pixart") not in _UNITS:
            raise ValueError(
                f"the resolution is {self.resolution[0]}; PixArt has tables of {', '.join(map(str, RESOLUTIONS))}"
            )

    def frame(self, header_size: Size, orientation: int) -> Frame:
        """Map the size in the file's header to a frame; the orientation is ignored."""
        ratio = header_size[1] / header_size[0]
        _, bucket = min(table(self.resolution[0]), key=lambda row: abs(row[0] - ratio))
        scaling = LANCZOS if self.resolution[0] >= 2048 else BICUBIC
        return cut(header_size, bucket, bucket, scaling, applies_exif=False)


@dataclass(frozen=True)
class PixArtSquare:
    """The square crop with which PixArt-Sigma extracts features of one size.

    Attributes:
        resolution: (side, side) of every image.
    """

    resolution: Size

    def __post_init__(self) -> None:
        """Check the resolution; raises ValueError."""
        if square(self.resolution, "pixart-square") < 1:
            raise ValueError("the resolution must be at least 1")

    def frame(self, header_size: Size, orientation: int) -> Frame:
        """Map the size in the file's header to a frame; the orientation is ignored."""
        side = self.resolution[0]
        longer = int(side * max(header_size) / min(header_size))
        resized = (longer, side) if header_size[0] > header_size[1] else (side, longer)
        scaling = LANCZOS if side >= 2048 else BILINEAR
        return cut(header_size, (side, side), resized, scaling, applies_exif=False, to_even=True)
