# SPDX-License-Identifier: Apache-2.0
"""Posteriors, latents and pairs of images -> the terms of a VAE's training loss.

    total = sum of weight * reconstruction term  +  weight * KL(q(z|x) || N(0, I))  +  weight * adversarial term

Images are float (B,C,H,W) in [-1,1] (a prediction may leave the range), latents float (B,C,h,w) or (B,d). Each
reconstruction term maps `(prediction, target)` of one shape to a scalar: 0 where they are equal, a mean over
elements, so that it does not depend on the batch or the crop size, with a finite gradient everywhere. Everything
is computed in float32 at least, under autocast too. LPIPS and the adversarial terms are in `discriminator.py`.

Two shapes that differ are a `TensorError`: broadcasting would train on the wrong loss without a word.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from latentwire_codec.metrics.similarity import as_float, float_pair, ms_ssim_loss
from latentwire_core.errors import TensorError
from latentwire_train.loss.lpips import Lpips
from latentwire_train.loss_weights import LossWeights

CHARBONNIER_EPS = 1e-3

# The latents


def reparameterize(mean: Tensor, logvar: Tensor, generator: Generator | None = None) -> Tensor:
    """Draw z = mean + exp(logvar / 2) * epsilon with one epsilon ~ N(0, I); gradients flow to both.

    Args:
        mean: the posterior's mean, any shape.
        logvar: its log-variance, the same shape.
        generator: where epsilon comes from, on the tensors' device; torch's global one by default.

    Source: Kingma and Welling, Auto-Encoding Variational Bayes (arXiv 1312.6114), section 2.4.
    """
    mean, logvar = float_pair(mean, logvar)
    epsilon = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return mean + (logvar / 2).exp() * epsilon


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """Map the posterior q = N(mean, exp(logvar)) to KL(q || N(0, I)) of each image, (B,), in nats, at least 0.

    The sum over an image's latent elements of (mean^2 + exp(logvar) - 1 - logvar) / 2: a sum, not a mean, so it
    grows with the number of latent elements. Divide by that number for nats per element, or by the image's number
    of values (3HW) to keep the ELBO's proportion beside a reconstruction term that is a mean, at any crop size.

    KL is not symmetric. KL(q || p), this one, is large where q has mass and the prior has none: each posterior must
    lie under the prior, and may be much narrower. KL(p || q) would ask each image's posterior to cover all of it.

    Args:
        mean: (B,C,h,w) or (B,d).
        logvar: the same shape.

    Source: arXiv 1312.6114, appendix B.
    """
    mean, logvar = float_pair(mean, logvar)
    return 0.5 * (mean.square() + torch.expm1(logvar) - logvar).flatten(1).sum(dim=1)


def quantization_noise(z_whitened: Tensor, step: float, generator: Generator | None = None) -> Tensor:
    """Add uniform noise from [-step/2, step/2) to whitened latents, any shape; the gradient is the identity.

    It stands in for rounding to multiples of `step`, whose gradient is 0 almost everywhere. Whitened, because the
    step is in standard deviations: `moments.unwhiten(quantization_noise(moments.whiten(z), 0.25))`.

    Raises:
        ValueError: the step is negative or not finite.

    Source: Balle et al., End-to-end Optimized Image Compression (arXiv 1611.01704); on a VAE's bottleneck as in
    WaLLoC (arXiv 2412.09405).
    """
    if not 0 <= step < math.inf:
        raise ValueError(f"the quantization step is {step}; it must be finite and >= 0, in standard deviations")
    z = as_float(z_whitened)
    uniform = torch.rand(z.shape, generator=generator, device=z.device, dtype=z.dtype)
    return z + step * (uniform - 0.5)


class RunningMoments(nn.Module):
    """Latents -> latents with mean 0 and variance 1 per channel, by moving moments of what `update` has seen.

    The first batches are averaged evenly, later ones exponentially: the weight of a new batch is max(1/n, 1 - decay)
    at the n-th update. The spread between batches counts as variance too, so that one latent vector for each image
    works with any batch size. Before the first update the moments are 0 and 1. The buffers `mean`, `variance` and
    `updates` belong into the checkpoint. Each process sees its own batches only.

    Args:
        channels: C of latents (B,C,h,w), or d of (B,d).
        decay: what is kept of the old moments at each update, 0 <= decay < 1.
    """

    mean: Tensor
    variance: Tensor
    updates: Tensor

    def __init__(self, channels: int, decay: float = 0.99) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; it must be at least 0 and below 1")
        self.decay = decay
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, z: Tensor) -> None:
        """Take a batch (B,C,...) into the moments; no gradient flows."""
        rows = z.to(self.mean.dtype).transpose(0, 1).flatten(1)
        self.updates += 1
        # On the device: a Python number would wait for it at every step.
        weight = (1 / self.updates).clamp(min=1 - self.decay)
        mean = rows.mean(dim=1)
        spread = rows.var(dim=1, correction=0) + (1 - weight) * (mean - self.mean).square()
        self.variance.lerp_(spread, weight)
        self.mean.lerp_(mean, weight)

    def whiten(self, z: Tensor) -> Tensor:
        """Map raw latents (B,C,...) to (z - mean) / std."""
        return (as_float(z) - self._like(self.mean, z)) / self._like(self._std(), z)

    def unwhiten(self, z: Tensor) -> Tensor:
        """Map whitened latents (B,C,...) back: z * std + mean."""
        return as_float(z) * self._like(self._std(), z) + self._like(self.mean, z)

    def _std(self) -> Tensor:
        return self.variance.sqrt().clamp(min=1e-6)  # a collapsed channel is divided by something

    @staticmethod
    def _like(per_channel: Tensor, z: Tensor) -> Tensor:
        return per_channel.reshape(-1, *[1] * (z.ndim - 2))


# The images


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

    Band i is what level i+1 cannot say about level i, so it has level i's size (each side half of the one before,
    rounded up); from the rest upwards, twice the size plus the band gives the level, and at last the images.

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

    The low-pass rest does not count: a difference in brightness costs nothing here, so it needs L1 or the like
    beside it. Equal weights of the means are the usual 4^level of the sums.

    Source: Bojanowski et al., Optimizing the Latent Space of Generative Networks (arXiv 1707.05776).
    """
    prediction, target = float_pair(prediction, target)
    bands = laplacian_bands(prediction - target, levels)[:-1]  # the pyramid is linear
    return torch.stack([band.abs().mean() for band in bands]).mean()


def haar_bands(images: Tensor) -> Tensor:
    """Map images (B,C,H,W), H and W even, to their orthonormal Haar transform (B,4,C,H/2,W/2): LL, LH, HL, HH.

    LL is half the sum of each 2x2 block; LH is low along the rows (their left and right are added) and high along
    the columns, HL the other way round. The sum of squares is kept.

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

    Mean over elements and over levels; each level transforms the LL of the one before. LL itself does not count: a
    difference in brightness costs nothing here, so it needs L1 or the like beside it.

    Raises:
        TensorError: a side is no multiple of 2^levels.

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


# All terms together


class ReconstructionLoss(nn.Module):
    """Prediction and target (B,3,H,W) in [-1,1] -> the weighted sum of the reconstruction terms, and each term.

    It has nothing to train: leave it out of checkpoints and optimizers. `.to(device)` moves LPIPS.

    Args:
        weights: terms with weight 0 are not computed; `kl` and the adversarial ones are the loop's.
        lpips: what `lpips_from` gives; needed where `weights.lpips` is not 0.

    Raises:
        ValueError: no reconstruction term has a weight, or LPIPS has one and is not given.
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
            raise ValueError(f"every reconstruction term is off; give one of {', '.join(names)} a weight")
        if weights.lpips and lpips is None:
            raise ValueError(f"the weight of lpips is {weights.lpips}; load it with lpips_from(folder), or set it to 0")
        self.lpips = lpips if weights.lpips else None

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum, to call `backward` on, and the terms by name: unweighted and detached, to log."""
        terms = {name: self.TERMS[name](prediction, target) for name in self.weights if name != "lpips"}
        if self.lpips is not None:
            terms["lpips"] = self.lpips(prediction, target)
        total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return total, {name: term.detach() for name, term in terms.items()}
