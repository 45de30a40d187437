# SPDX-License-Identifier: Apache-2.0
"""LatentVAE over strips: images -> moments, latents -> images; the same function as the class computes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentwire_codec.networks import latent_vae
from latentwire_codec.runtime.tiling.convolution import Plain, Shuffled
from latentwire_codec.runtime.tiling.feature_map import Convolved, Rectified, Stored, Sum
from latentwire_codec.runtime.tiling.sweep import Sweep


class Block:
    """Residual block: x + conv(relu(conv(relu(x))))."""

    def __init__(self, block: latent_vae.Block) -> None:
        self._convolutions = Plain.of(block.conv1), Plain.of(block.conv2)

    def __call__(self, x: Stored, sweep: Sweep) -> Stored:
        """Map a feature map to the next, written over it."""
        first, second = self._convolutions
        inner = Convolved(Rectified(x), first)
        return sweep.store(Sum(x, Convolved(Rectified(inner), second)), into=x)


class LatentNetwork:
    """The network of an AutoencoderLatentVAE, at its device, in its dtype."""

    def __init__(self, module: Any) -> None:
        encoder, decoder = module.encoder.residual, module.decoder.residual
        self._klt = Plain.of(module.encoder.klt)
        self._unshuffle = encoder.unshuffle
        self._encoder_in, self._down = Plain.of(encoder.conv_in), Plain.of(encoder.down)
        self._encoder_blocks = [list(map(Block, blocks)) for blocks in (encoder.blocks_quarter, encoder.blocks_eighth)]
        self._encoder_out = Plain.of(encoder.conv_out)
        self._inverse_klt = _shuffled(*module.decoder.iklt)
        self._decoder_in = Plain.of(decoder.conv_in)
        self._up = [_shuffled(*layers) for layers in (decoder.up_quarter, decoder.up_half)]
        self._decoder_blocks = [
            list(map(Block, blocks)) for blocks in (decoder.blocks_eighth, decoder.blocks_quarter, decoder.blocks_half)
        ]
        self._decoder_out = _shuffled(decoder.conv_out, decoder.shuffle)

    def encode(self, images: Tensor, sweep: Sweep) -> tuple[Tensor, ...]:
        """Map images (1,3,H,W) to mean and logvar, (1,C,h,w) each."""
        folded = self._unshuffle(images).contiguous(memory_format=torch.channels_last)
        x = sweep.store(Convolved(Stored(folded, sweep.device), self._encoder_in))
        quarter, eighth = self._encoder_blocks
        x = _through(quarter, x, sweep)
        x = _through(eighth, sweep.store(Convolved(x, self._down)), sweep)
        moments = sweep.store(Convolved(Rectified(x), self._encoder_out)).values
        linear = sweep.store(Convolved(Stored(images, sweep.device), self._klt)).values
        mean, logvar = moments.chunk(2, dim=1)
        return mean + linear, logvar.clamp(latent_vae.LOGVAR_MIN, latent_vae.LOGVAR_MAX)

    def decode(self, latents: Tensor, sweep: Sweep) -> tuple[Tensor, ...]:
        """Map raw latents (1,C,h,w) to images (1,3,H,W)."""
        z = Stored(latents, sweep.device)
        eighth, *larger = self._decoder_blocks
        x = _through(eighth, sweep.store(Convolved(z, self._decoder_in)), sweep)
        for up, blocks in zip(self._up, larger, strict=True):
            x = _through(blocks, sweep.store(Convolved(x, up)), sweep)
        residual = Convolved(Rectified(x), self._decoder_out)
        return (sweep.store(Sum(Convolved(z, self._inverse_klt), residual)).values,)


def _through(blocks: Sequence[Block], x: Stored, sweep: Sweep) -> Stored:
    for block in blocks:
        x = block(x, sweep)
    return x


def _shuffled(layer: Any, shuffle: Any) -> Shuffled:
    return Shuffled(layer, shuffle.upscale_factor)
