# SPDX-License-Identifier: Apache-2.0
"""Pairs of images -> the reconstruction terms of a VAE's training loss.

Images are float (B,C,H,W) in [-1,1]; a prediction may leave the range. Each term maps `(prediction, target)` of one
shape to a scalar: 0 where they are equal, a mean over elements, so that it does not depend on the batch or the crop
size, with a finite gradient everywhere. Everything is computed in float32 at least, under autocast too.

Two shapes that differ are a `TensorError`: broadcasting would silently train on the wrong loss.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentwire_codec.metrics.similarity import float_pair, ms_ssim_loss
from latentwire_core.errors import TensorError
from latentwire_train.config import ConfigError, LossWeights
from latentwire_train.loss.lpips import Lpips

CHARBONNIER_EPS = 1e-3


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Map two images to the mean of |difference|."""
    return F.l1_loss(*float_pair(prediction, target))


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Map two images to the mean of difference^2. PSNR in dB, before rounding, is 10 log10(4 / mse)."""
    return F.mse_loss(*float_pair(prediction, target))


def charbonnier(prediction: Tensor, target: Tensor, eps: float = CHARBONNIER_EPS) -> Tensor:
    """Map two images to the mean of sqrt(difference^2 + eps^2) - eps: L1 with a round bottom.

    About |difference| - eps where it is much above eps, difference^2 / (2 eps) where it is much below, and exactly 0
    at equality (the usual form without "- eps" has the same gradient). eps = 0 is L1.

    Raises:
        ValueError: eps is negative.

    Source: Charbonnier et al., Two deterministic half-quadratic regularization algorithms (ICIP 1994); as a loss
    LapSRN (arXiv 1710.01992), with eps = 1e-3.
    """
    prediction, target = float_pair(prediction, target)
    return _charbonnier(prediction - target, eps)


def _charbonnier(d: Tensor, eps: float) -> Tensor:
    if eps < 0:
        raise ValueError(f"eps is {eps}; it must be >= 0")
    if eps == 0:
        return d.abs().mean()
    # The same as sqrt(d^2 + eps^2) - eps, without subtracting two numbers that are nearly equal.
    square = d.square()
    return (square / ((square + eps * eps).sqrt() + eps)).mean()


def laplacian_bands(images: Tensor, levels: int) -> list[Tensor]:
    """Map images (B,C,H,W), any size, to `levels` band-pass images, fine to coarse, and the low-pass rest.

    Band i is the difference of level i and level i+1 enlarged, so it has the size of level i. Each level has half the
    sides of the level before, rounded up. From the rest upwards, an enlarged level plus the band gives the next level.

    Source: Burt and Adelson, The Laplacian Pyramid as a Compact Image Code (1983), here with the 4-tap binomial
    filter (1 3 3 1) / 8, which keeps half-size pixels centred on the four that they replace.
    """
    channels = images.shape[1]
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=images.device, dtype=images.dtype) / 8
    kernel = torch.outer(taps, taps).expand(channels, 1, 4, 4)
    bands = []
    with torch.autocast(images.device.type, enabled=False):
        for _ in range(levels):
            padded = images
            for axis in (2, 3):  # not F.pad: the gradient of its replication fails when compiled (torch 2.13)
                side = images.shape[axis]
                first, last = padded.narrow(axis, 0, 1), padded.narrow(axis, side - 1, 1)
                padded = torch.cat([first, padded, *[last] * (1 + side % 2)], dim=axis)
            half = F.conv2d(padded, kernel, stride=2, groups=channels)
            twice = F.interpolate(half, scale_factor=2, mode="bilinear", align_corners=False)
            bands.append(images - twice[..., : images.shape[2], : images.shape[3]])
            images = half
    return [*bands, images]


def laplacian_pyramid(prediction: Tensor, target: Tensor, levels: int = 3) -> Tensor:
    """Map two images to the L1 distance of their Laplacian bands: mean over a band's elements, then over bands.

    The low-pass rest does not count, so a difference in brightness costs nothing: use L1 or another term beside it.
    Equal weights of the means are the usual 4^level of the sums.

    Source: Bojanowski et al., Optimizing the Latent Space of Generative Networks (arXiv 1707.05776).
    """
    prediction, target = float_pair(prediction, target)
    bands = laplacian_bands(prediction - target, levels)[:-1]  # the pyramid is linear
    return torch.stack([band.abs().mean() for band in bands]).mean()


def haar_bands(images: Tensor) -> Tensor:
    """Map images (B,C,H,W), H and W even, to their orthonormal Haar transform (B,4,C,H/2,W/2): LL, LH, HL, HH.

    LL is half the sum of each 2x2 block; LH is low along the rows (left and right pixels are added) and high along
    the columns, HL the reverse. The sum of squares is kept.

    Raises:
        TensorError: a side is odd.
    """
    height, width = images.shape[-2:]
    if height % 2 or width % 2:
        raise TensorError(f"image is {width}x{height}; each level of the Haar transform needs even sides")
    top, bottom = images[..., 0::2, :], images[..., 1::2, :]
    (a, b), (c, d) = ((rows[..., 0::2], rows[..., 1::2]) for rows in (top + bottom, top - bottom))
    return torch.stack([a + b, c + d, a - b, c - d], dim=1) / 2


def haar_wavelet(prediction: Tensor, target: Tensor, levels: int = 1, eps: float = CHARBONNIER_EPS) -> Tensor:
    """Map two images to the Charbonnier distance (L1 with eps = 0) of their Haar bands LH, HL and HH.

    The mean over elements and over levels; each level transforms the LL of the level before. LL itself does not count,
    so a difference in brightness costs nothing: use L1 or another term beside it.

    Raises:
        TensorError: a side is not a multiple of 2^levels.

    Source: LiteVAE (arXiv 2405.14477), section 4.3.
    """
    prediction, target = float_pair(prediction, target)
    low = prediction - target  # the transform is linear
    terms = []
    for _ in range(levels):
        bands = haar_bands(low)
        low = bands[:, 0]
        terms.append(_charbonnier(bands[:, 1:], eps))
    return torch.stack(terms).mean()


class ReconstructionLoss(nn.Module):
    """Maps prediction and target (B,3,H,W) in [-1,1] to the weighted sum of the reconstruction terms, and each term.

    It has no weights to train: leave it out of checkpoints and optimizers. `.to(device)` moves LPIPS, a result of
    `lpips_from`. Terms with weight 0 are not computed; `kl` and the adversarial weights are not used here.

    Raises:
        ConfigError: no reconstruction term has a weight, or LPIPS has one and is not given.
    """

    TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # noqa: RUF012 (a table, read only)
        "l1": l1,
        "mse": mse,
        "charbonnier": charbonnier,
        "ms_ssim": ms_ssim_loss,
        "laplacian": laplacian_pyramid,
        "wavelet": haar_wavelet,
    }

    def __init__(self, weights: LossWeights, lpips: Lpips | None = None) -> None:
        super().__init__()
        names = [*self.TERMS, "lpips"]
        self.weights = {name: getattr(weights, name) for name in names if getattr(weights, name)}
        if not self.weights:
            raise ConfigError(f"every reconstruction term is off; give one of {', '.join(names)} a weight")
        if weights.lpips and lpips is None:
            raise ConfigError(f"loss.weights.lpips is {weights.lpips}; load it with lpips_from(folder), or set it to 0")
        self.lpips = lpips if weights.lpips else None

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum, to call `backward` on, and name -> term, unweighted and detached, to log."""
        terms = {name: self.TERMS[name](prediction, target) for name in self.weights if name != "lpips"}
        if self.lpips is not None:
            terms["lpips"] = self.lpips(prediction, target)
        total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return total, {name: term.detach() for name, term in terms.items()}
