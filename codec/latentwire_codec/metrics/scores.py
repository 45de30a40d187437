# SPDX-License-Identifier: Apache-2.0
"""Two images -> how much they differ; bytes -> bits per pixel.

Every number in documents, model cards and benchmarks comes from here, so that they compare. A score takes two images of
one shape, uint8 RGB `(H, W, 3)`, as published rate-distortion figures on Kodak do: no luma conversion, no cropped
border. It raises TensorError where an image is anything else, or where the shapes differ.
"""

import io
import math
from typing import TYPE_CHECKING

import numpy as np

from latentwire_codec.images.geometry import Pixels, check_pixels
from latentwire_codec.images.writing import write_image
from latentwire_core.errors import TensorError
from latentwire_core.formats import ImageFormat

if TYPE_CHECKING:
    from torch import Tensor

_PEAK = 255.0


def psnr(a: Pixels, b: Pixels) -> float:
    """Map two images to their peak signal-to-noise ratio in dB, `10 log10(255^2 / MSE)`; needs no torch.

    The mean squared error runs over all pixels and the three RGB channels together.

    Returns:
        At least 0 dB; `inf` for equal images.
    """
    _check(a, b)
    difference = a.astype(np.float64) - b.astype(np.float64)
    mean_squared_error = float(np.mean(difference * difference))
    return 10.0 * math.log10(_PEAK * _PEAK / mean_squared_error) if mean_squared_error else math.inf


def ssim(a: Pixels, b: Pixels) -> float:
    """Map two images to their structural similarity, the mean over R, G and B; see `similarity.ssim`.

    Returns:
        -1..1, computed in float64; 1 for equal images.

    Raises:
        ValueError: a side is below 11.
    """
    from latentwire_codec.metrics import similarity

    _check(a, b, "SSIM", 11)
    return float(similarity.ssim(_tensor(a), _tensor(b))[0].mean())


def ms_ssim(a: Pixels, b: Pixels) -> float:
    """Map two images to their multi-scale structural similarity over five scales; see `similarity.ms_ssim`.

    Each of R, G and B has its own product, and the result is the mean of the three. Negative means count as 0.

    Returns:
        0..1, computed in float64; 1 for equal images. In dB, as papers plot it: `-10 log10(1 - ms_ssim)`.

    Raises:
        ValueError: a side is 160 or less.
    """
    from latentwire_codec.metrics import similarity

    # After four halvings the window still has to fit, with a step to spare.
    _check(a, b, "MS-SSIM", 161)
    return float(similarity.ms_ssim(_tensor(a), _tensor(b)).mean())


def ssimulacra2(a: Pixels, b: Pixels) -> float:
    """Map an original and its distorted image, in this order, to SSIMULACRA2.

    Returns:
        100 or less; it can be negative. Over 90 no loss is seen; 70 is high, 50 medium, 30 low quality.

    Raises:
        ValueError: a side is below 8.

    Source: Sneyers, https://github.com/cloudinary/ssimulacra2; computed by the package `ssimulacra2` (extra `bench`).
    """
    from ssimulacra2 import compute_ssimulacra2

    _check(a, b, "SSIMULACRA2", 8)
    files = [io.BytesIO(write_image(pixels, ImageFormat.PNG)) for pixels in (a, b)]
    return float(compute_ssimulacra2(*files))


def bits_per_pixel(num_bytes: int, width: int, height: int) -> float:
    """Map a file's length in bytes and its image's sides in pixels to bits per pixel.

    One pixel is one RGB triple, so that uncompressed uint8 RGB has 24. Give the sides of the original image, not of the
    padded one.

    Raises:
        ValueError: the length is negative, or a side is below 1.
    """
    if num_bytes < 0 or width < 1 or height < 1:
        raise ValueError(f"{num_bytes} bytes for {width}x{height} pixels; the length must be >= 0 and each side >= 1")
    return 8.0 * num_bytes / (width * height)


def _check(a: Pixels, b: Pixels, metric: str = "PSNR", min_side: int = 1) -> None:
    check_pixels(a)
    check_pixels(b)
    if a.shape != b.shape:
        raise TensorError(
            f"the images have shapes {a.shape} and {b.shape}; crop the padding off, so that both are equal"
        )
    height, width = a.shape[:2]
    if min(height, width) < min_side:
        raise ValueError(
            f"image is {width}x{height}; {metric} needs each side >= {min_side} (use psnr for smaller images)"
        )


def _tensor(pixels: Pixels) -> "Tensor":
    """Map uint8 `(H, W, 3)` to float64 (1,3,H,W) in [0,1]."""
    import torch

    # float64, because variances are differences of large squares: on a bright gradient with a few pixels off by one,
    # float32 puts MS-SSIM at 44.4 dB instead of 42.4.
    return torch.from_numpy(pixels.astype(np.float64)).div_(_PEAK).permute(2, 0, 1).unsqueeze(0)
