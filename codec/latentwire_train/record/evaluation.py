# SPDX-License-Identifier: Apache-2.0
"""A network and held-out images -> figures of reconstructions from the posterior's mode, and some of these images."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentwire_codec.images import pixels
from latentwire_codec.metrics.scores import psnr
from latentwire_codec.metrics.similarity import ms_ssim_loss
from latentwire_train.data.views import View
from latentwire_train.loss.images import ReconstructionLoss
from latentwire_train.loss.latents import RunningMoments, kl_divergence
from latentwire_train.networks import Network

SHOWN = 16
"""The most images in a picture."""
MS_SSIM_MIN_SIDE = 161
"""The smallest side for all five scales of MS-SSIM; with fewer scales, figures of two sizes would not compare."""


@dataclass(frozen=True)
class Evaluation:
    """A measurement on held-out images."""

    # `held_out/psnr` (dB, mean over images, rounded to uint8), `held_out/loss` (reconstruction and KL, as in training,
    # without noise), `held_out/kl` (nats per image), `held_out/ms_ssim` where images are large enough for its five
    # scales, `held_out/psnr_rounded` (dB, latents rounded to the step of the training's noise).
    figures: dict[str, float]
    originals: Tensor  # uint8 (B,3,H,W), the first held-out images
    reconstructions: Tensor  # uint8 (B,3,H,W), their reconstructions


@torch.no_grad()
def evaluate(
    network: Network,
    view: View,
    reconstruction: ReconstructionLoss,
    *,
    kl_weight: float,
    moments: RunningMoments,
    quantization_step: float,
    batch_size: int,
) -> Evaluation:
    """Map a network in eval mode and a view of the held-out images, read in batches, to the evaluation.

    `kl_weight` weighs the nats per value of the image. Latents are whitened by `moments` and rounded to
    `quantization_step`, in standard deviations; 0 rounds nothing.
    """
    device = next(network.module.parameters()).device
    columns: dict[str, list[float]] = {}
    shown: list[tuple[Tensor, Tensor]] = []
    for batch in view.batches(batch_size):
        for original, x in zip(batch.pixels.split(1), batch.images(device).split(1), strict=True):
            mean, logvar = network.encoder(x).float().chunk(2, dim=1)
            y = network.decoder(mean).float()
            kl = kl_divergence(mean, logvar).item()
            row = {
                "psnr": _psnr(original, y),
                "loss": reconstruction(y, x)[0].item() + kl_weight * kl / x.numel(),
                "kl": kl,
            }
            if min(x.shape[-2:]) >= MS_SSIM_MIN_SIDE:
                row["ms_ssim"] = 1 - ms_ssim_loss(y, x).item()
            if quantization_step:
                rounded = torch.round(moments.whiten(mean) / quantization_step) * quantization_step
                row["psnr_rounded"] = _psnr(original, network.decoder(moments.unwhiten(rounded)).float())
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
            if len(shown) < SHOWN:
                shown.append((original, pixels.to_uint8(y).permute(0, 3, 1, 2).cpu()))
    originals, reconstructions = (torch.cat(part) for part in zip(*shown, strict=True))
    figures = {f"held_out/{name}": float(np.mean(values)) for name, values in columns.items()}
    return Evaluation(figures, originals, reconstructions)


def _psnr(original: Tensor, decoded: Tensor) -> float:
    """Map uint8 (1,3,H,W) and float (1,3,H,W) to dB, at most 100, so that a mean can be taken."""
    return min(100.0, psnr(original[0].permute(1, 2, 0).numpy(), pixels.to_uint8(decoded)[0].cpu().numpy()))
