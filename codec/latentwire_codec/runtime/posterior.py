# SPDX-License-Identifier: Apache-2.0
"""An encoder's diagonal Gaussian: mean and log-variance -> mode or seeded sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentwire_core.errors import TensorError
from latentwire_core.noise import seeded_noise


@dataclass(frozen=True)
class Posterior:
    """N(mean, exp(logvar)) over raw latents.

    Attributes:
        mean: float32 (B,C,h,w).
        logvar: float32 (B,C,h,w), clamped to -30..20; None for a VAE without one.
    """

    mean: Tensor
    logvar: Tensor | None

    def mode(self) -> Tensor:
        """Return the most likely latents, float32 (B,C,h,w)."""
        return self.mean

    def sample(self, seeds: Sequence[int]) -> Tensor:
        """Draw latents, float32 (B,C,h,w): mean + exp(logvar / 2) * seeded_noise, one seed for each image.

        Raises:
            TensorError: the number of seeds is not B, a seed is out of range, or there is no logvar.
        """
        if self.logvar is None:
            raise TensorError("this VAE has no log-variance to sample with; ask for the mode")
        if len(seeds) != len(self.mean):
            raise TensorError(f"{len(seeds)} seeds for {len(self.mean)} images; give one for each")
        channels, height, width = self.mean.shape[1:]
        noise = np.stack([seeded_noise(seed, (channels, height, width)) for seed in seeds])
        return self.mean + (self.logvar / 2).exp() * torch.from_numpy(noise).to(self.mean.device)
