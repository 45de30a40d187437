# SPDX-License-Identifier: Apache-2.0
"""Two images -> how much they differ; bytes -> bits per pixel. The project's only such formulas.

Every number in documents, model cards and benchmarks comes from here, so that they compare.
All are computed on uint8 RGB `(H, W, 3)`, as published rate-distortion
figures on Kodak are: no luma conversion, no cropped border.
"""

import io
import math
from typing import TYPE_CHECKING

import numpy as np

from latentwire_codec.images.files import write_image
from latentwire_codec.images.geometry import Pixels, check_pixels
from latentwire_core.errors import TensorError
from latentwire_core.formats import ImageFormat

if TYPE_CHECKING:
    import torch

_PEAK = 255.0
_WINDOW_SIDE = 11
_WINDOW_SIGMA = 1.5
_SSIM_MIN_SIDE = _WINDOW_SIDE
_SSIMULACRA2_MIN_SIDE = 8
_MS_SSIM_MIN_SIDE = 161  # the window still has to fit, with a step to spare, after four halvings


def psnr(a: Pixels, b: Pixels) -> float:
    """Two images -> peak signal-to-noise ratio in dB, `10 log10(255^2 / MSE)`.

    The mean squared error runs over all pixels and the three RGB channels together.

    Args:
        a: uint8 `(H, W, 3)`.
        b: the same shape; the order does not matter.

    Returns:
        At least 0 dB; `inf` for equal images.

    Raises:
        TensorError: not uint8 `(H, W, 3)`, or two shapes.
    """
    _check_pair(a, b)
    difference = a.astype(np.float64) - b.astype(np.float64)
    mean_squared_error = float(np.mean(difference * difference))
    if mean_squared_error == 0.0:
        return math.inf
    return 10.0 * math.log10(_PEAK * _PEAK / mean_squared_error)


def ssim(a: Pixels, b: Pixels) -> float:
    """Two images -> structural similarity, at most 1 (equal).

    Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, population covariance, only
    where the window lies wholly inside; the mean over positions, then over the R, G and B maps.

    Args:
        a: uint8 `(H, W, 3)`, H and W at least 11.
        b: the same shape.

    Returns:
        -1..1, computed in float64.

    Raises:
        TensorError: not uint8 `(H, W, 3)`, or two shapes.
        ValueError: a side is below 11.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural
    Similarity", 2004; computed by `pytorch_msssim`.
    """
    from pytorch_msssim import ssim as compute

    _check_pair(a, b)
    _check_side(a, "SSIM", _SSIM_MIN_SIDE)
    return float(compute(_tensor(a), _tensor(b), data_range=_PEAK, win=_window()))


def ms_ssim(a: Pixels, b: Pixels) -> float:
    """Two images -> multi-scale structural similarity, at most 1 (equal).

    Five scales with the weights 0.0448, 0.2856, 0.3001, 0.2363 and 0.1333, each half the size of
    the one before (2x2 mean; an odd side is padded with zeros first). Contrast and structure are
    averaged over positions at each scale, luminance at the last; negative means count as 0. Each
    of R, G and B has its own product, and the result is the mean of the three. The window and
    the constants are those of `ssim`.

    Args:
        a: uint8 `(H, W, 3)`, H and W over 160.
        b: the same shape.

    Returns:
        0..1, computed in float64. In dB, as papers plot it: `-10 log10(1 - ms_ssim)`.

    Raises:
        TensorError: not uint8 `(H, W, 3)`, or two shapes.
        ValueError: a side is 160 or less.

    Source: Wang et al., "Multi-scale structural similarity for image quality assessment", 2003;
    computed by `pytorch_msssim`.
    """
    from pytorch_msssim import ms_ssim as compute

    _check_pair(a, b)
    _check_side(a, "MS-SSIM", _MS_SSIM_MIN_SIDE)
    return float(compute(_tensor(a), _tensor(b), data_range=_PEAK, win=_window()))


def ssimulacra2(a: Pixels, b: Pixels) -> float:
    """Two images -> SSIMULACRA2: over 90 no loss is seen; 70 is high, 50 medium, 30 low quality; it can be negative.

    Args:
        a: the original, uint8 `(H, W, 3)`, H and W at least 8.
        b: what became of it, the same shape. The order matters.

    Returns:
        100 or less.

    Raises:
        TensorError: not uint8 `(H, W, 3)`, or two shapes.
        ValueError: a side is below 8.

    Source: Sneyers, https://github.com/cloudinary/ssimulacra2; computed by the package `ssimulacra2` (extra `bench`).
    """
    from ssimulacra2 import compute_ssimulacra2

    _check_pair(a, b)
    _check_side(a, "SSIMULACRA2", _SSIMULACRA2_MIN_SIDE)
    files = [io.BytesIO(write_image(pixels, ImageFormat.PNG)) for pixels in (a, b)]
    return float(compute_ssimulacra2(*files))


def bits_per_pixel(num_bytes: int, width: int, height: int) -> float:
    """A file's length in bytes and its image's sides in pixels -> bits per pixel.

    One pixel is one RGB triple, so uncompressed uint8 RGB has 24. Give the sides of the original
    image, not of the padded one.

    Raises:
        ValueError: the length is negative, or a side is below 1.
    """
    if num_bytes < 0 or width < 1 or height < 1:
        raise ValueError(f"{num_bytes} bytes for {width}x{height} pixels; the length must be >= 0 and each side >= 1")
    return 8.0 * num_bytes / (width * height)


def _check_pair(a: Pixels, b: Pixels) -> None:
    check_pixels(a)
    check_pixels(b)
    if a.shape != b.shape:
        raise TensorError(
            f"the images have shapes {a.shape} and {b.shape}; crop the padding off, so that both are equal"
        )


def _check_side(a: Pixels, metric: str, min_side: int) -> None:
    height, width = a.shape[:2]
    if min(height, width) < min_side:
        raise ValueError(
            f"image is {width}x{height}; {metric} needs each side >= {min_side} (use psnr for smaller images)"
        )


def _tensor(pixels: Pixels) -> "torch.Tensor":
    import torch

    # float64, because variances are differences of large squares: on a bright gradient with a few
    # pixels off by one, float32 puts MS-SSIM at 44.4 dB instead of 42.4.
    planes = torch.from_numpy(pixels.astype(np.float64)).permute(2, 0, 1)
    return planes.unsqueeze(0).contiguous()


def _window() -> "torch.Tensor":
    """Nothing -> the Gaussian of one axis, `(3, 1, 1, 11)` float64, which sums to 1.

    The library's own is float32, and that its sum misses 1 moved SSIM by 7e-6 on a photograph.
    """
    import torch

    offsets = np.arange(_WINDOW_SIDE) - _WINDOW_SIDE // 2
    weights = np.exp(-(offsets**2) / (2 * _WINDOW_SIGMA**2))
    return torch.from_numpy(weights / weights.sum()).repeat(3, 1, 1, 1)
