# SPDX-License-Identifier: Apache-2.0
"""A tiny VAE (f = 2, C = 4) with random weights, in a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL


def save_tiny(folder: Path, change: Callable[[Any], object] = lambda vae: None) -> str:
    torch.manual_seed(7)
    vae: Any = AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
        scaling_factor=0.5,
        shift_factor=0.25,
    )
    change(vae)
    vae.save_pretrained(folder)
    return str(folder)
