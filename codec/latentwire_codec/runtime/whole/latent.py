# SPDX-License-Identifier: Apache-2.0
"""LatentVAE in bfloat16, whole maps: images -> moments, latents -> images; the same function as the class computes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from latentwire_codec.networks import latent_vae
from latentwire_codec.runtime.whole.layers import Convolution


class _Block:
    """Residual block, x + conv(relu(conv(relu(x)))), written over x."""

    def __init__(self, block: latent_vae.Block) -> None:
        self._first, self._second = Convolution.of(block.conv1, relu=True), Convolution.of(block.conv2)

    def __call__(self, x: Tensor) -> Tensor:
        return self._second.add_to(x, self._first(x.relu()))


class _Shuffled:
    """A convolution and nn.PixelShuffle after it."""

    def __init__(self, layer: Any, shuffle: Any) -> None:
        self._convolution, self._shuffle = Convolution.of(layer), shuffle

    def __call__(self, x: Tensor) -> Tensor:
        shuffled: Tensor = self._shuffle(self._convolution(x))
        return shuffled.contiguous(memory_format=torch.channels_last)


Layer = Convolution | _Block | _Shuffled


class WholeLatent:
    """The network of an AutoencoderLatentVAE in float32 on the CPU -> the same in bfloat16."""

    def __init__(self, module: Any) -> None:
        encoder, decoder = module.encoder.residual, module.decoder.residual
        self._unshuffle, self._klt = encoder.unshuffle, module.encoder.klt
        self._encoder: list[Layer] = [
            Convolution.of(encoder.conv_in),
            *map(_Block, encoder.blocks_quarter),
            Convolution.of(encoder.down),
            *map(_Block, encoder.blocks_eighth),
        ]
        self._encoder_out = Convolution.of(encoder.conv_out)
        self._inverse_klt = module.decoder.iklt
        self._decoder: list[Layer] = [
            Convolution.of(decoder.conv_in),
            *map(_Block, decoder.blocks_eighth),
            _Shuffled(*decoder.up_quarter),
            *map(_Block, decoder.blocks_quarter),
            _Shuffled(*decoder.up_half),
            *map(_Block, decoder.blocks_half),
        ]
        self._decoder_out, self._shuffle = Convolution.of(decoder.conv_out), decoder.shuffle

    def encode(self, images: Tensor, pause: Callable[[], None]) -> tuple[Tensor, ...]:
        """Map images (1,3,H,W), float32, to mean and logvar, (1,C,h,w) each; `pause` is called between the layers."""
        x = _through(self._encoder, _rounded(self._unshuffle(images)), pause)
        mean, logvar = self._encoder_out(x.relu_()).float().chunk(2, dim=1)
        # The linear half carries the image: it is small, and stays in float32.
        return mean + self._klt(images), logvar.clamp(latent_vae.LOGVAR_MIN, latent_vae.LOGVAR_MAX)

    def decode(self, latents: Tensor, pause: Callable[[], None]) -> tuple[Tensor, ...]:
        """Map raw latents (1,C,h,w), float32, to images (1,3,H,W); `pause` is called between the layers."""
        x = _through(self._decoder, _rounded(latents), pause)
        return (self._shuffle(self._decoder_out(x.relu_()).float()) + self._inverse_klt(latents),)


def _through(layers: Sequence[Layer], x: Tensor, pause: Callable[[], None]) -> Tensor:
    for layer in layers:
        x = layer(x)
        pause()
    return x


def _rounded(values: Tensor) -> Tensor:
    return values.to(torch.bfloat16, memory_format=torch.channels_last)
