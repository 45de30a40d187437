# SPDX-License-Identifier: Apache-2.0
"""The diagonal Gaussian that an encoder gives: mean and log-variance -> mode or seeded sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentwire_codec.errors import TensorError

MAX_SEED = 2**64 - 1


def seeded_noise(seed: int, shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """Map a seed and the shape (C,h,w) of one image's latents to standard normal noise of that shape.

    The noise depends on these two alone: not on the batch, the device, the dtype or the library that asks. The
    algorithm is part of the interface: the words of Philox4x64-10 with the key (seed, C * 2^40 + h * 2^20 + w) and
    the counters 1, 2, ..., two by two through Box and Muller in float64: with u = (word1 >> 11) + 1 and
    v = word2 >> 11, each times 2^-53, the pair sqrt(-2 ln u) * (cos 2 pi v, sin 2 pi v), in C order, rounded to
    float32.

    Args:
        seed: 0 .. 2^64 - 1.
        shape: (C, h, w); h and w below 2^20.

    Returns:
        float32 (C,h,w).

    Raises:
        TensorError: the seed is out of range.

    Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011).
    """
    if not 0 <= seed <= MAX_SEED:
        raise TensorError(f"seed is {seed}; it must be in 0..2^64-1")
    channels, height, width = shape
    count = channels * height * width
    key = np.array([seed, (channels << 40) + (height << 20) + width], dtype=np.uint64)
    words = np.random.Philox(key=key).random_raw(count + count % 2).reshape(-1, 2) >> np.uint64(11)
    radius = np.sqrt(-2.0 * np.log((words[:, 0] + np.uint64(1)) * 2.0**-53))
    angle = (2.0 * np.pi * 2.0**-53) * words[:, 1]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return pairs.reshape(-1)[:count].astype(np.float32).reshape(shape)


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
