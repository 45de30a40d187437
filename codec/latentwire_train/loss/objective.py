# SPDX-License-Identifier: Apache-2.0
"""What a training step minimises: images and a source of noise -> the loss, its parts, and the reconstruction."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from latentwire_codec.images import pixels
from latentwire_codec.metrics.scores import psnr
from latentwire_train.networks import Network


@dataclass(frozen=True)
class Outcome:
    """The loss of a batch."""

    prediction: Tensor  # the reconstruction, float32 (B,3,H,W)
    total: Tensor  # a scalar to call `backward` on
    # Detached scalars to log, by name; among them `psnr` in dB, from the unclamped reconstruction's squared error,
    # averaged over the batch.
    parts: dict[str, Tensor]


class Objective(nn.Module, ABC):
    """Maps images to the loss.

    Args:
        network: the network that is trained.
        autocast: the dtype that the network computes in; None: float32.
    """

    statistics: nn.Module
    """What the loss keeps of the latents over the steps; a checkpoint holds its state."""

    def __init__(self, network: Network, autocast: torch.dtype | None) -> None:
        super().__init__()
        self.encoder, self.decoder = network.encoder, network.decoder
        self.statistics = nn.Module()
        self._autocast = autocast

    @abstractmethod
    def forward(self, images: Tensor, noise: Generator, step: int) -> Outcome:
        """Map images (B,3,H,W) in [-1,1], noise on their device, and the number of the step to the outcome."""

    @abstractmethod
    def judge(self, network: Network, images: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Map one held-out image (1,3,H,W) in [-1,1] to its reconstruction by any network, and to figures.

        The reconstruction is the posterior's mode, decoded, float32 (1,3,H,W). Among the figures is `loss`, as in
        training, without noise.
        """

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B,3,H,W) to mean and log-variance, float32 (B,C,h,w) each."""
        with torch.autocast(images.device.type, dtype=self._autocast, enabled=self._autocast is not None):
            mean, logvar = self.encoder(images).float().chunk(2, dim=1)
        return mean, logvar

    def decode(self, latents: Tensor) -> Tensor:
        """Map latents (B,C,h,w) to images, float32 (B,3,H,W)."""
        with torch.autocast(latents.device.type, dtype=self._autocast, enabled=self._autocast is not None):
            decoded: Tensor = self.decoder(latents)
        return decoded.float()


def psnr_of_pixels(original: Tensor, decoded: Tensor) -> float:
    """Map two images, float (1,3,H,W) in [-1,1], to the PSNR of their pixels, dB, at most 100: a mean can be taken."""
    return min(100.0, psnr(*(pixels.to_uint8(each)[0].cpu().numpy() for each in (original, decoded))))
