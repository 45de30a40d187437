# SPDX-License-Identifier: Apache-2.0
"""The objective of a VAE: terms of the reconstruction, and the KL divergence of the posterior.

    images ─ encoder ─ mean, logvar ─ reparameterize ─ (+) ─ decoder ─ prediction ─ reconstruction terms ─┐
                          │                             └ quantization noise, in standard deviations      ├ total
                          └─ KL(q(z|x) || N(0, I)) ───────────────────────────────────────────────────────┘

The adversarial terms are `adversary.py`'s.
"""

import torch
from torch import Generator, Tensor

from latentwire_train.config import AutoencoderKind, LossConfig
from latentwire_train.loss.images import ReconstructionLoss, mse
from latentwire_train.loss.latents import RunningMoments, kl_divergence, quantization_noise, reparameterize
from latentwire_train.loss.lpips import lpips_from
from latentwire_train.loss.objective import Objective, Outcome, psnr_of_pixels
from latentwire_train.networks import Network

# Under a KL term latents are near N(0, I), and their moments settle in a hundred steps.
MOMENTS_DECAY = 0.99


class VariationalObjective(Objective):
    """Maps images to the weighted sum of reconstruction terms and KL.

    The kind `ae` leaves out the posterior's noise and the KL.

    Args:
        network: the network that is trained.
        config: the terms of the loss.
        kind: a variational autoencoder or a plain one.
        channels: C of the latents.
        autocast: the dtype that the network computes in; None: float32.

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
        super().__init__(network, autocast)
        self._moments = RunningMoments(channels, MOMENTS_DECAY)
        self.statistics = self._moments
        self._config, self._kind = config, kind
        lpips = lpips_from(config.lpips) if config.weights.lpips else None
        self._reconstruction = ReconstructionLoss(config.weights, lpips)

    def forward(self, images: Tensor, noise: Generator, step: int) -> Outcome:
        """Map images (B,3,H,W) in [-1,1], noise on their device, and the number of the step to the outcome.

        Among the parts are the reconstruction terms by name, unweighted, and `kl` in nats per image.
        """
        mean, logvar = self.encode(images)
        z = mean if self._kind is AutoencoderKind.AE else reparameterize(mean, logvar, noise)
        if self._config.quantization_step:
            if self.training:
                self._moments.update(mean.detach())
            whitened = self._moments.whiten(z)
            z = self._moments.unwhiten(quantization_noise(whitened, self._config.quantization_step, noise))
        prediction = self.decode(z)
        total, parts = self._reconstruction(prediction, images)
        if self._kind is AutoencoderKind.VAE:
            kl = kl_divergence(mean, logvar).mean()
            warmth = min(1.0, (step + 1) / max(1, self._config.kl_warmup_steps))
            total = total + warmth * self._config.weights.kl * kl / images[0].numel()
            parts["kl"] = kl.detach()
        parts["psnr"] = 10 * torch.log10(4 / mse(prediction.detach(), images))
        return Outcome(prediction, total, parts)

    def judge(self, network: Network, images: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Map one held-out image to its reconstruction and its figures: see `Objective.judge`.

        The figures: `psnr`, dB; `loss`; `kl`, nats; `psnr_rounded`, dB, with latents rounded to the step of the noise.
        """
        mean, logvar = network.encoder(images).float().chunk(2, dim=1)
        decoded = network.decoder(mean).float()
        kl = kl_divergence(mean, logvar).item()
        loss = self._reconstruction(decoded, images)[0].item() + self._config.weights.kl * kl / images.numel()
        figures = {"psnr": psnr_of_pixels(images, decoded), "loss": loss, "kl": kl}
        if step := self._config.quantization_step:
            rounded = torch.round(self._moments.whiten(mean) / step) * step
            again = network.decoder(self._moments.unwhiten(rounded)).float()
            figures["psnr_rounded"] = psnr_of_pixels(images, again)
        return decoded, figures
