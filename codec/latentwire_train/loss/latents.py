# SPDX-License-Identifier: Apache-2.0
"""Posteriors and latents -> the KL term of a VAE's training loss, and the noise that training adds.

    total = sum of weight * reconstruction term  +  weight * KL(q(z|x) || N(0, I))  +  weight * adversarial term

Latents are float (B,C,h,w) or (B,d). Everything is computed in float32 at least, under autocast too. Two shapes that
differ are a `TensorError`.
"""

import math

import torch
from torch import Generator, Tensor, nn

from latentwire_codec.metrics.similarity import as_float, float_pair


def reparameterize(mean: Tensor, logvar: Tensor, generator: Generator | None = None) -> Tensor:
    """Draw z = mean + exp(logvar / 2) * epsilon, any shape, with one epsilon ~ N(0, I); gradients flow to both.

    Source: Kingma and Welling, Auto-Encoding Variational Bayes (arXiv 1312.6114), section 2.4.
    """
    mean, logvar = float_pair(mean, logvar)
    epsilon = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return mean + (logvar / 2).exp() * epsilon


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """Map the posterior q = N(mean, exp(logvar)) to each image's KL(q || N(0, I)), (B,), in nats, at least 0.

    The sum over an image's latent elements of (mean^2 + exp(logvar) - 1 - logvar) / 2: a sum, not a mean, so it
    grows with the number of latent elements. Divide by that number for nats per element, or by the image's number
    of values (3HW) to keep the ELBO's proportion to a reconstruction term that is a mean, at any crop size.

    KL is not symmetric. KL(q || p), used here, is large where q has mass and the prior has no mass: each posterior must
    lie under the prior, and may be much narrower. KL(p || q) would make each image's posterior cover the whole prior.

    Source: arXiv 1312.6114, appendix B.
    """
    mean, logvar = float_pair(mean, logvar)
    return 0.5 * (mean.square() + torch.expm1(logvar) - logvar).flatten(1).sum(dim=1)


def quantization_noise(z_whitened: Tensor, step: float, generator: Generator | None = None) -> Tensor:
    """Add uniform noise from [-step/2, step/2) to whitened latents, any shape; the gradient is the identity.

    The noise stands in for rounding to multiples of `step`, whose gradient is 0 almost everywhere. The latents are
    whitened, because the step is in standard deviations:
    `moments.unwhiten(quantization_noise(moments.whiten(z), 0.25))`.

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
    """Maps latents to latents with mean 0 and variance 1 per channel, by the moving moments of earlier batches.

    The first batches are averaged evenly, later batches exponentially: the weight of a new batch is max(1/n, 1 - decay)
    at the n-th update. The spread between batches counts as variance too, so that latent vectors work with any batch
    size. Before the first update the moments are 0 and 1. The buffers `mean`, `variance` and `updates` belong into the
    checkpoint. Each process sees its own batches only. `channels` is C of latents (B,C,h,w), or d of (B,d).
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
        # It stays on the device: a Python number would wait for the device at every step.
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
        return self.variance.sqrt().clamp(min=1e-6)  # a collapsed channel has no spread to divide by

    @staticmethod
    def _like(per_channel: Tensor, z: Tensor) -> Tensor:
        return per_channel.reshape(-1, *[1] * (z.ndim - 2))
