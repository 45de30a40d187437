# SPDX-License-Identifier: Apache-2.0
"""Images and a source of noise -> the loss of a VAE, its parts, and the reconstruction.

    images ─ encoder ─ mean, logvar ─ reparameterize ─ (+) ─ decoder ─ prediction ─ reconstruction terms ─┐
                          │                             └ quantization noise, in standard deviations      ├ total
                          └─ KL(q(z|x) || N(0, I)) ───────────────────────────────────────────────────────┘

The adversarial terms are `adversary.py`'s.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from latentwire_train.config import AutoencoderKind, LossConfig
from latentwire_train.loss.images import ReconstructionLoss, mse
from latentwire_train.loss.latents import RunningMoments, kl_divergence, quantization_noise, reparameterize
from latentwire_train.loss.lpips import lpips_from
from latentwire_train.networks import Network

# Under a KL term latents are near N(0, I), and their moments settle in a hundred steps.
MOMENTS_DECAY = 0.99


@dataclass(frozen=True)
class Outcome:
    """The loss of a batch."""

    prediction: Tensor  # the reconstruction, float32 (B,3,H,W)
    total: Tensor  # a scalar to call `backward` on
    # Unweighted and detached scalars: the reconstruction terms by name, `kl` in nats per image, and `psnr` in dB, from
    # the unclamped reconstruction's squared error, averaged over the batch.
    parts: dict[str, Tensor]


class Objective(nn.Module):
    """Maps images to the loss.

    The kind `ae` leaves out the posterior's noise and the KL. The latents have C `channels`. `autocast` is the dtype
    that the network computes in; None: float32.

    Raises:
        CheckpointError: LPIPS's weights cannot be read.
        ConfigError: no reconstruction term has a weight.
    """

    def __init__(
        self,
        network: Network,
        config: LossConfig,
        kind: AutoencoderKind,
        channels: int,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = network.encoder, network.decoder
        self.moments = RunningMoments(channels, MOMENTS_DECAY)
        self._config, self._kind, self._autocast = config, kind, autocast
        lpips = lpips_from(config.lpips) if config.weights.lpips else None
        self.reconstruction = ReconstructionLoss(config.weights, lpips)

    def forward(self, images: Tensor, noise: Generator, kl_weight: float) -> Outcome:
        """Map images (B,3,H,W) in [-1,1], noise on their device, and the weight of nats per value to the outcome."""
        with torch.autocast(images.device.type, dtype=self._autocast, enabled=self._autocast is not None):
            mean, logvar = self.encoder(images).float().chunk(2, dim=1)
            z = mean if self._kind is AutoencoderKind.AE else reparameterize(mean, logvar, noise)
            if self._config.quantization_step:
                if self.training:
                    self.moments.update(mean.detach())
                whitened = self.moments.whiten(z)
                z = self.moments.unwhiten(quantization_noise(whitened, self._config.quantization_step, noise))
            prediction = self.decoder(z).float()
        total, parts = self.reconstruction(prediction, images)
        if self._kind is AutoencoderKind.VAE:
            kl = kl_divergence(mean, logvar).mean()
            total = total + kl_weight * kl / images[0].numel()
            parts["kl"] = kl.detach()
        parts["psnr"] = 10 * torch.log10(4 / mse(prediction.detach(), images))
        return Outcome(prediction, total, parts)
