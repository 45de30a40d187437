# SPDX-License-Identifier: Apache-2.0
"""Tiny VAEs with random weights, saved as diffusers saves them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def build_kl() -> Callable[..., Any]:
    """Build an AutoencoderKL with f = 2, C = 4 and attention; keywords change its configuration."""
    import torch
    from diffusers import AutoencoderKL

    def build(**config: Any) -> Any:
        torch.manual_seed(7)
        defaults: dict[str, Any] = {
            "block_out_channels": (4, 8),
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "latent_channels": 4,
            "norm_num_groups": 2,
            "sample_size": 16,
        }
        vae: Any = AutoencoderKL(**{**defaults, **config})
        return vae.eval()

    return build


@pytest.fixture
def tiny_kl_folder(build_kl: Callable[..., Any], tmp_path: Path) -> Path:
    """Save a tiny AutoencoderKL."""
    folder = tmp_path / "tiny"
    build_kl().save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_latent_vae() -> Any:
    """Build an AutoencoderLatentVAE whose residuals are not zero."""
    import torch

    from latentwire_codec.networks.pipeline_vae import AutoencoderLatentVAE

    torch.manual_seed(7)
    vae = AutoencoderLatentVAE(widths=(4, 6, 8), encoder_depths=(1, 1), decoder_depths=(1, 1, 1), latent_space="tiny@1")
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return vae.eval()


@pytest.fixture
def tiny_vector_vae() -> Any:
    """Build an AutoencoderVectorVAE for 32x32 whose residuals are not zero."""
    import torch

    from latentwire_codec.networks.pipeline_vae import AutoencoderVectorVAE

    torch.manual_seed(7)
    vae = AutoencoderVectorVAE(image_size=32, latent_dim=6, width=4, latent_space="tiny-vector@1", scaling_factor=0.5)
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return vae.eval()
