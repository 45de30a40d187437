# SPDX-License-Identifier: Apache-2.0
"""Two images -> how unlike their structure is, with a gradient; `metrics` has the published measure of what is done."""

import torch
import torch.nn.functional as F
from torch import Tensor

from latentwire_codec.metrics.pairs import float_pair
from latentwire_core.errors import TensorError

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW_SIDE, WINDOW_SIGMA = 11, 1.5
"""The smallest side of an image, and the width of the Gaussian."""


def ms_ssim_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Map two images, float (B,C,H,W) in [-1,1], to 1 - MS-SSIM, 0..1; the mean over images and channels.

    As `metrics.ms_ssim` (11x11 Gaussian, sigma 1.5), on images mapped to [0,1]. Five scales need a side over 160;
    below, those that fit are used (sides over 80: four, over 40: three, over 20: two, else one) and the weights of
    these scales divided by their sum. So a 64 px crop has 64, 32 and 16 px; its values compare only with crops that
    have as many scales. A contrast or luminance below 1e-3 counts as 1e-3 (the root's gradient at 0 is infinite).

    Raises:
        TensorError: a side is below 11.

    Source: Wang et al., Multi-scale structural similarity for image quality assessment (2003); as a loss Zhao et
    al., Loss Functions for Image Restoration with Neural Networks (arXiv 1511.08861).
    """
    prediction, target = float_pair(prediction, target)
    height, width = prediction.shape[-2:]
    if min(height, width) < WINDOW_SIDE:
        raise TensorError(f"image is {width}x{height}; MS-SSIM needs each side >= {WINDOW_SIDE} (use another term)")
    scales = 1
    while scales < len(MS_SSIM_WEIGHTS) and min(height, width) > (WINDOW_SIDE - 1) * 2**scales:
        scales += 1
    # All five are taken as published, though their sum is 1.0001.
    divisor = sum(MS_SSIM_WEIGHTS[:scales]) if scales < len(MS_SSIM_WEIGHTS) else 1.0
    x, y = (prediction + 1) / 2, (target + 1) / 2
    similarity = torch.ones((), device=x.device, dtype=x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        for scale, weight in enumerate(MS_SSIM_WEIGHTS[:scales], start=1):
            ssim, contrast = _ssim(x, y)
            term = contrast if scale < scales else ssim
            similarity = similarity * term.clamp(min=1e-3) ** (weight / divisor)
            if scale < scales:
                padding = [side % 2 for side in x.shape[-2:]]
                x, y = (F.avg_pool2d(image, 2, padding=padding) for image in (x, y))
    return 1 - similarity.mean()


def _ssim(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Map two images in [0,1] to SSIM, and to its contrast and structure alone, each (B,C)."""
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
