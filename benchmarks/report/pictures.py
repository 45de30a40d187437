# SPDX-License-Identifier: Apache-2.0
"""A size -> a photograph; images -> pictures inside a page: the whole image made small, and an unchanged part of it."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from skimage import data

from latentwire_codec.images.geometry import Pixels

WHOLE_WIDTH = 320  # width of a whole image in a page, in pixels
WHOLE_QUALITY = 80
CROP_SIDE = 144  # side of the part that is shown enlarged, in pixels


@dataclass(frozen=True)
class Picture:
    """One cell of a strip."""

    title: str  # such as a codec's name
    lines: tuple[str, ...]  # the caption: bytes, scores
    whole: str  # data address of the image made small
    crop: str  # data address of a part, unchanged
    warning: str = ""  # a line in the colour of warnings; empty: the caption has no such line


@dataclass(frozen=True)
class Part:
    """The place of a square in an image, in pixels."""

    top: int
    left: int
    side: int

    def of(self, image: Pixels) -> Pixels:
        """Cut the square out of an image."""
        return image[self.top : self.top + self.side, self.left : self.left + self.side]


def photograph(height: int, width: int) -> Pixels:
    """Return uint8 (height,width,3) of scikit-image, repeated, not enlarged: large files keep their detail."""
    astronaut: Pixels = data.astronaut()
    times = (-(-height // astronaut.shape[0]), -(-width // astronaut.shape[1]), 1)
    return np.ascontiguousarray(np.tile(astronaut, times)[:height, :width])


def detailed_part(image: Pixels, side: int = CROP_SIDE) -> Part:
    """Map an image to the square of it with the largest sum of differences between neighbouring pixels."""
    side = min(side, *image.shape[:2])
    grey = image.astype(np.float64).mean(axis=2)
    detail = np.zeros_like(grey)
    detail[:, 1:] += np.abs(np.diff(grey, axis=1))
    detail[1:] += np.abs(np.diff(grey, axis=0))
    sums = np.pad(detail.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(inside.argmax(), inside.shape)
    return Part(int(top), int(left), side)


def picture(image: Pixels, part: Part, title: str, *lines: str, warning: str = "") -> Picture:
    """Map an image and a part of it to a cell."""
    small = Image.fromarray(image)
    small.thumbnail((WHOLE_WIDTH, 2 * WHOLE_WIDTH), Image.Resampling.LANCZOS)
    whole = _address(small, quality=WHOLE_QUALITY)
    # The artefacts of a codec must not be hidden by those of WebP.
    crop = _address(Image.fromarray(part.of(image)), lossless=True)
    return Picture(title, lines, whole, crop, warning)


def difference(image: Pixels, decoded: Pixels, gain: int = 4) -> Pixels:
    """Map two images to grey plus `gain` times their difference."""
    amplified = 128 + gain * (decoded.astype(np.int64) - image)
    clipped: Pixels = np.clip(amplified, 0, 255).astype(np.uint8)
    return clipped


def _address(image: Image.Image, **options: object) -> str:
    file = io.BytesIO()
    image.save(file, "WEBP", method=4, **options)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
