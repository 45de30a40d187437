# SPDX-License-Identifier: Apache-2.0
"""A network as diffusers loads it -> its encoder and its decoder as modules, for engines that compile a graph."""

import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from latentwire_core.extras import install_hint

TRIAL_SIDE = 64

Half = Callable[[Tensor], Tensor]


def refusal(packages: Iterable[str], device: str) -> str:
    """Return why an engine of these packages is not measured on a device; empty: it is."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed: {install_hint('peers')}"
    return "" if device == "cpu" else "engines of other makers are measured on CPUs only"


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
