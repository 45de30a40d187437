# SPDX-License-Identifier: Apache-2.0
"""Pixels of any size -> pixels whose sides a network accepts, and back.

An image file may have any height and width from 1x1 up. A VAE with downsampling factor f needs multiples of f:
`pad_to_multiple` extends the image, the caller remembers the size, and `crop` undoes the padding after decoding.
`resize_to_cover` frames an image for a model of one fixed size, in training as in serving. It loses pixels, so that
elsewhere it is applied only on request.

Pixels are `(H, W, 3)` uint8 RGB here; see `files` for files.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from latentwire_core.errors import TensorError

Pixels = npt.NDArray[np.uint8]
"""RGB pixels: uint8 `(H, W, 3)`, 0..255, H and W at least 1."""


def check_pixels(pixels: Pixels) -> None:
    """Refuse pixels that are not a numpy array, uint8 `(H, W, 3)`, H and W at least 1; raises TensorError."""
    if not isinstance(pixels, np.ndarray):
        raise TensorError(f"pixels are a {type(pixels).__name__}; give a numpy array, uint8 (H, W, 3)")
    if pixels.dtype != np.uint8:
        raise TensorError(f"pixels are {pixels.dtype}; give uint8, 0..255")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise TensorError(f"pixels have shape {pixels.shape}; give (H, W, 3), H and W at least 1")


def padded_side(side: int, multiple: int) -> int:
    """Map a side to the smallest multiple that is not below it; raises ValueError where a number is below 1."""
    if side < 1 or multiple < 1:
        raise ValueError(f"side is {side} and multiple is {multiple}; both must be >= 1")
    return -(-side // multiple) * multiple


def pad_to_multiple(pixels: Pixels, multiple: int) -> Pixels:
    """Extend pixels, uint8 `(H, W, 3)`, at the bottom and the right to multiples of `multiple`, at least 1.

    Each axis is extended on its own: by reflection about its last line (which is not repeated), or, where the axis is
    shorter than `multiple`, by repeating its last line. Where nothing is missing, the argument itself is returned.

    Raises:
        TensorError: `pixels` is not uint8 `(H, W, 3)`.
        ValueError: `multiple` is below 1.
    """
    check_pixels(pixels)
    padded = pixels
    for axis in (0, 1):
        side = pixels.shape[axis]
        missing = padded_side(side, multiple) - side
        if missing:
            # Reflection needs missing < side, which side >= multiple guarantees. On a shorter side the image would be
            # folded to and fro, and plain edges cost fewer bits.
            widths = [(0, 0), (0, 0), (0, 0)]
            widths[axis] = (0, missing)
            padded = np.pad(padded, widths, mode="edge" if side < multiple else "reflect")
    return padded


def crop(pixels: Pixels, height: int, width: int) -> Pixels:
    """Return the top left `height` x `width` part of pixels: the inverse of `pad_to_multiple`.

    Returns:
        uint8 `(height, width, 3)`, C-contiguous; the argument itself where nothing is cut off.

    Raises:
        TensorError: `pixels` is not uint8 `(H, W, 3)`.
        ValueError: the part does not lie inside the image.
    """
    check_pixels(pixels)
    if not (1 <= height <= pixels.shape[0] and 1 <= width <= pixels.shape[1]):
        raise ValueError(
            f"cannot crop {width}x{height} from an image of {pixels.shape[1]}x{pixels.shape[0]}; "
            "each side must be at least 1 and at most the image's"
        )
    if (height, width) == pixels.shape[:2]:
        return pixels
    return np.ascontiguousarray(pixels[:height, :width])


def resize_to_cover(pixels: Pixels, width: int, height: int) -> Pixels:
    """Scale pixels (Lanczos) until they just cover width x height, and return the centre.

    The aspect ratio is kept; the surplus is cut off equally on both sides.

    Returns:
        uint8 `(height, width, 3)`; the argument itself where it has that size already.

    Raises:
        TensorError: `pixels` is not uint8 `(H, W, 3)`.
        ValueError: width or height is below 1.
    """
    check_pixels(pixels)
    if width < 1 or height < 1:
        raise ValueError(f"the target is {width}x{height}; both sides must be >= 1")
    old_height, old_width = pixels.shape[:2]
    if (old_height, old_width) == (height, width):
        return pixels
    # Only the kept part is computed, a box with fractional edges: an image of 8192x1, scaled as a whole to cover
    # 512x512, would be four million pixels wide.
    scale = max(width / old_width, height / old_height)
    kept_width, kept_height = min(width / scale, float(old_width)), min(height / scale, float(old_height))
    left, top = (old_width - kept_width) / 2, (old_height - kept_height) / 2
    box = (left, top, left + kept_width, top + kept_height)
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS, box=box)
    return np.array(resized, dtype=np.uint8)
