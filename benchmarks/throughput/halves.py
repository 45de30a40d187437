# SPDX-License-Identifier: Apache-2.0
"""A network as diffusers loads it -> its encoder and its decoder as modules, for engines that compile a graph."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

TRIAL_SIDE = 64

Half = Callable[[Tensor], Tensor]


class Encoder(nn.Module):
    """Images -> the mode of their latents."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Any:
        """Map images (B,3,H,W) to latents (B,C,h,w)."""
        answer = self.module.encode(images)
        return answer.latents if hasattr(answer, "latents") else answer.latent_dist.mode()


class Decoder(nn.Module):
    """Latents -> their images."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, latents: Tensor) -> Any:
        """Map latents (B,C,h,w) to images (B,3,H,W)."""
        return self.module.decode(latents).sample


def compile_halves(module: Any, compiled: Callable[[nn.Module, Tensor], Half]) -> tuple[Half, Half]:
    """Map a float32 network to its encode and decode; `compiled` maps one of them, and an example, to a function."""
    images = torch.zeros(1, 3, TRIAL_SIDE, TRIAL_SIDE)
    encoder = Encoder(module)
    with torch.inference_mode():
        latents = encoder(images)
    return compiled(encoder, images), compiled(Decoder(module), latents.clone())
