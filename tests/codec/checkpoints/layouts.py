# SPDX-License-Identifier: Apache-2.0
"""A diffusers VAE's tensors -> their names and shapes in other layouts; no line in common with the package.

What the package reads is written here the other way round, from diffusers' names.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentwire_codec.checkpoints.checkpoint import Checkpoint, load_checkpoint
from latentwire_core.errors import CheckpointError

Tensors = dict[str, Tensor]

ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def to_ldm(tensors: Mapping[str, Tensor], levels: int) -> Tensors:
    """Give an AutoencoderKL's tensors LDM's names; attention becomes 1x1 convolutions."""
    ldm: Tensors = {}
    for name, tensor in tensors.items():
        new = name.replace("conv_norm_out.", "norm_out.").replace("conv_shortcut.", "nin_shortcut.")
        new = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", new)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0\.", r"down.\1.downsample.", new)
        new = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", new)
        new = re.sub(r"up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"up.{levels - 1 - int(m[1])}.upsample.", new)
        new = re.sub(r"mid_block\.resnets\.(\d)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", new)
        for diffusers, original in ATTENTION.items():
            new = new.replace(f"mid_block.attentions.0.{diffusers}.", f"mid.attn_1.{original}.")
        is_projection = "mid.attn_1" in new and tensor.ndim == 2
        ldm[new] = tensor[:, :, None, None].contiguous() if is_projection else tensor.clone()
    return ldm


def to_flux2(tensors: Mapping[str, Tensor], levels: int) -> Tensors:
    """Give an AutoencoderKLFlux2's tensors the names that its makers use."""
    ldm = to_ldm(tensors, levels)
    moved = {"quant_conv.": "encoder.quant_conv.", "post_quant_conv.": "decoder.post_quant_conv."}
    for name in list(ldm):
        for old, new in moved.items():
            if name.startswith(old):
                ldm[name.replace(old, new, 1)] = ldm.pop(name)
    del ldm["bn.num_batches_tracked"]
    return ldm


def to_taesd(tensors: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
    """Give an AutoencoderTiny's tensors TAESD's names: the encoder's and the decoder's, which counts one layer more."""
    encoder = {
        name.removeprefix("encoder.layers."): tensor.clone()
        for name, tensor in tensors.items()
        if name.startswith("encoder.")
    }
    decoder = {}
    for name, tensor in tensors.items():
        if name.startswith("decoder."):
            position, _, rest = name.removeprefix("decoder.layers.").partition(".")
            decoder[f"{int(position) + 1}.{rest}"] = tensor.clone()
    return encoder, decoder


def to_wan(tensors: Mapping[str, Tensor]) -> Tensors:
    """Give an AutoencoderKLWan's tensors Wan 2.1's names."""
    parts = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6"}
    wan: Tensors = {}
    for name, tensor in tensors.items():
        new = re.sub(r"^quant_conv\.", "conv1.", name)
        new = re.sub(r"^post_quant_conv\.", "conv2.", new)
        new = new.replace("conv_in.", "conv1.").replace("norm_out.", "head.0.").replace("conv_out.", "head.2.")
        new = re.sub(r"mid_block\.resnets\.(\d)\.", lambda m: f"middle.{2 * int(m[1])}.", new)
        new = new.replace("mid_block.attentions.0.", "middle.1.")
        new = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)\.", lambda m: f"upsamples.{4 * int(m[1]) + int(m[2])}.", new)
        new = re.sub(r"up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"upsamples.{4 * int(m[1]) + 3}.", new)
        new = new.replace("down_blocks.", "downsamples.").replace("conv_shortcut.", "shortcut.")
        if "samples." in new or "middle." in new:
            for diffusers, original in parts.items():
                new = re.sub(rf"^((?:en|de)coder\.[a-z]+\.\d+)\.{diffusers}\.", rf"\1.{original}.", new)
        wan[new] = tensor.clone()
    return wan


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(str(path), **options)
    return str(caught.value)


@torch.inference_mode()
def check(checkpoint: Checkpoint, module: Any) -> None:
    """The checkpoint is the module: the same tensors, and the same images from the same latents."""
    found, wanted = checkpoint.module.state_dict(), module.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    images = torch.randn(1, 3, 16, 16)
    loaded: Any = checkpoint.module
    latents = module.encode(images).latent_dist.mode()
    assert torch.equal(loaded.encode(images).latent_dist.mode(), latents)
    assert torch.equal(loaded.decode(latents).sample, module.decode(latents).sample)
