# SPDX-License-Identifier: Apache-2.0
"""A network and held-out images -> figures of reconstructions from the posterior's mode, and some of these images."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentwire_codec.images import pixels
from latentwire_codec.metrics.similarity import ms_ssim_loss
from latentwire_train.data.views import View
from latentwire_train.loss.objective import Objective
from latentwire_train.networks import Network

SHOWN = 16
"""The most images in a picture."""
MS_SSIM_MIN_SIDE = 161
"""The smallest side for all five scales of MS-SSIM; with fewer scales, figures of two sizes would not compare."""


@dataclass(frozen=True)
class Evaluation:
    """A measurement on held-out images."""

    # The figures of `Objective.judge` and, where images are large enough for its five scales, MS-SSIM; means over
    # images, by names such as `held_out/psnr`.
    figures: dict[str, float]
    originals: Tensor  # uint8 (B,3,H,W), the first held-out images
    reconstructions: Tensor  # uint8 (B,3,H,W), their reconstructions


@torch.no_grad()
def evaluate(network: Network, view: View, objective: Objective, batch_size: int) -> Evaluation:
    """Map a network in eval mode and a view of the held-out images, read in batches, to the evaluation."""
    device = next(network.module.parameters()).device
    columns: dict[str, list[float]] = {}
    shown: list[tuple[Tensor, Tensor]] = []
    for batch in view.batches(batch_size):
        for original, x in zip(batch.pixels.split(1), batch.images(device).split(1), strict=True):
            y, row = objective.judge(network, x)
            if min(x.shape[-2:]) >= MS_SSIM_MIN_SIDE:
                row["ms_ssim"] = 1 - ms_ssim_loss(y, x).item()
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
            if len(shown) < SHOWN:
                shown.append((original, pixels.to_uint8(y).permute(0, 3, 1, 2).cpu()))
    originals, reconstructions = (torch.cat(part) for part in zip(*shown, strict=True))
    figures = {f"held_out/{name}": float(np.mean(values)) for name, values in columns.items()}
    return Evaluation(figures, originals, reconstructions)
