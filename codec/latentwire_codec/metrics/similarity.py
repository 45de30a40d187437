# SPDX-License-Identifier: Apache-2.0
"""Two image tensors -> how alike their structure is, with a gradient: SSIM and MS-SSIM.

`scores` measures with these formulas in float64, `ms_ssim_loss` trains with them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from latentwire_core.errors import TensorError

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW_SIDE, WINDOW_SIGMA = 11, 1.5
"""The smallest side of an image, and the width of the Gaussian."""


def as_float(x: Tensor) -> Tensor:
    """Return a tensor in float32, or in its own dtype where that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def float_pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return two tensors of one shape, each as `as_float` does.

    Raises:
        TensorError: their shapes differ; broadcasting would silently compare values that do not belong together.
    """
    if a.shape != b.shape:
        raise TensorError(f"the tensors have shapes {tuple(a.shape)} and {tuple(b.shape)}; both must be equal")
    return as_float(a), as_float(b)


def ms_ssim_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Map two images, float (B,C,H,W) in [-1,1], to 1 - MS-SSIM, 0..1; the mean over images and channels.

    A contrast or luminance below 1e-3 counts as 1e-3, because the root's gradient at 0 is infinite. The values of small
    crops compare only with crops that have as many scales; see `ms_ssim`.

    Raises:
        TensorError: the shapes differ, or a side is below 11.

    Source: as a loss Zhao et al., Loss Functions for Image Restoration with Neural Networks (arXiv 1511.08861).
    """
    prediction, target = float_pair(prediction, target)
    return 1 - ms_ssim((prediction + 1) / 2, (target + 1) / 2, least=1e-3).mean()


def ms_ssim(x: Tensor, y: Tensor, least: float = 0.0) -> Tensor:
    """Map two images, float (B,C,H,W) in [0,1], to their multi-scale structural similarity, (B,C).

    Each scale is half the size of the one before (2x2 mean; an odd side is padded with zeros first). Contrast and
    structure are averaged over positions at each scale, luminance at the last. Five scales need a side over 160; on
    smaller images only the scales that fit are used (sides over 80: four, over 40: three, over 20: two, else one), with
    their weights divided by the sum of these weights. A crop of 64 px has three scales: 64, 32 and 16 px.

    A contrast or luminance below `least` counts as `least`. Shape and dtype of the images are the same.

    Raises:
        TensorError: a side is below 11.

    Source: Wang et al., Multi-scale structural similarity for image quality assessment (2003).
    """
    height, width = x.shape[-2:]
    if min(height, width) < WINDOW_SIDE:
        raise TensorError(f"image is {width}x{height}; MS-SSIM needs each side >= {WINDOW_SIDE} (use another term)")
    scales = 1
    while scales < len(MS_SSIM_WEIGHTS) and min(height, width) > (WINDOW_SIDE - 1) * 2**scales:
        scales += 1
    # All five weights are taken as published, though their sum is 1.0001.
    divisor = sum(MS_SSIM_WEIGHTS[:scales]) if scales < len(MS_SSIM_WEIGHTS) else 1.0
    similarity = torch.ones((), device=x.device, dtype=x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        for scale, weight in enumerate(MS_SSIM_WEIGHTS[:scales], start=1):
            whole, contrast = ssim(x, y)
            term = contrast if scale < scales else whole
            similarity = similarity * term.clamp(min=least) ** (weight / divisor)
            if scale < scales:
                padding = [side % 2 for side in x.shape[-2:]]
                x, y = (F.avg_pool2d(image, 2, padding=padding) for image in (x, y))
    return similarity


def ssim(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Map two images, float (B,C,H,W) in [0,1], to SSIM, and to its contrast and structure alone, each (B,C).

    Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, population covariance, only where the window lies
    wholly inside; the mean over positions.

    Source: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity (2004).
    """
    channels = x.shape[1]
    offsets = torch.arange(WINDOW_SIDE, device=x.device, dtype=x.dtype) - WINDOW_SIDE // 2
    window = torch.exp(-offsets.square() / (2 * WINDOW_SIGMA**2))
    window = (window / window.sum()).repeat(5 * channels, 1, 1, 1)
    # Variances are small differences of large numbers. In channels_last a GPU would round them to TF32 (10 bits).
    maps = torch.cat([x, y, x * x, y * y, x * y], dim=1).contiguous()
    maps = F.conv2d(F.conv2d(maps, window, groups=5 * channels), window.mT, groups=5 * channels)
    mean_x, mean_y, square_x, square_y, product = maps.chunk(5, dim=1)
    c1, c2 = 0.01**2, 0.03**2
    contrast = (2 * (product - mean_x * mean_y) + c2) / (square_x - mean_x**2 + square_y - mean_y**2 + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * contrast).mean(dim=(2, 3)), contrast.mean(dim=(2, 3))
