# SPDX-License-Identifier: Apache-2.0
"""AutoencoderKL in bfloat16, whole maps: images -> moments, latents -> images; the same function as the class computes.

The sum that the residual blocks add to stays in float32: in bfloat16 it is the largest part of the rounding error.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.attention_processor import Attention as AttentionLayer
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional

from latentwire_codec.runtime.tiling.kl import LOGVAR_RANGE, check_parts
from latentwire_codec.runtime.whole import kernels
from latentwire_codec.runtime.whole.layers import Convolution, Upsampled


class _Map:
    """A feature map, float32 or bfloat16, and its sums."""

    def __init__(self, values: Tensor, sums: Tensor | None = None) -> None:
        self.values = values
        self._sums = sums

    def normalised(self, layer: nn.GroupNorm, silu: bool = True) -> Tensor:
        sums = kernels.measure(self.values) if self._sums is None else self._sums
        return kernels.normalise(self.values, sums, layer, silu)

    def plus(self, term: Tensor) -> "_Map":
        """Add a bfloat16 map; this map must not be used any more."""
        return _Map(*kernels.add(self.values, term))


class _Resnet:
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 convolution of x where the channels change."""

    def __init__(self, block: ResnetBlock2D) -> None:
        self._norms = block.norm1, block.norm2
        self._convolutions = Convolution.of(block.conv1), Convolution.of(block.conv2)
        self._shortcut = None if block.conv_shortcut is None else Convolution.of(block.conv_shortcut)

    def __call__(self, x: _Map) -> _Map:
        (first, second), (one, two) = self._convolutions, self._norms
        inner = second(_Map(first(x.normalised(one))).normalised(two))
        if self._shortcut is not None:
            x = _Map(self._shortcut(x.values.bfloat16()))
        return x.plus(inner)


class _Attention:
    """x + attention over all places."""

    def __init__(self, layer: AttentionLayer) -> None:
        self._norm, self._heads = layer.group_norm, layer.heads
        self._projections = [
            nn.Module.to(copy.deepcopy(part), torch.bfloat16)
            for part in (layer.to_q, layer.to_k, layer.to_v, layer.to_out[0])
        ]

    def __call__(self, x: _Map) -> _Map:
        normal = x.normalised(self._norm, silu=False)
        places = normal[0].permute(1, 2, 0).flatten(0, 1)
        *inputs, out = self._projections
        queries, keys, values = (
            part(places).unflatten(-1, (self._heads, -1)).transpose(0, 1).unsqueeze(0) for part in inputs
        )
        found = functional.scaled_dot_product_attention(queries, keys, values)
        answer = out(found[0].transpose(0, 1).flatten(1))
        return x.plus(answer.unflatten(0, normal.shape[2:]).permute(2, 0, 1).unsqueeze(0))


class _Head:
    """The end of an encoder or a decoder: conv(silu(norm(x)))."""

    def __init__(self, half: Any) -> None:
        self._norm, self._convolution = half.conv_norm_out, Convolution.of(half.conv_out)

    def __call__(self, x: _Map) -> Tensor:
        return self._convolution(x.normalised(self._norm))


class _Downsampled:
    """A convolution of stride 2; the class pads by one below and to the right before it convolves."""

    def __init__(self, layer: Any) -> None:
        self._convolution = Convolution(layer.conv.weight, layer.conv.bias, 2, 0)

    def __call__(self, x: _Map) -> _Map:
        _, channels, height, width = x.values.shape
        shape = 1, channels, height + 1, width + 1
        padded = torch.empty(shape, dtype=torch.bfloat16, memory_format=torch.channels_last)
        padded[:, :, :height, :width] = x.values
        padded[:, :, height] = padded[:, :, :, width] = 0
        return _Map(self._convolution(padded))


class _Upsampled:
    def __init__(self, layer: Any) -> None:
        self._layer = Upsampled(layer.conv)

    def __call__(self, x: _Map) -> _Map:
        return _Map(self._layer(x.values.bfloat16()))


Layer = _Resnet | _Attention | _Downsampled | _Upsampled


class WholeKL:
    """The network of an AutoencoderKL in float32 on the CPU, in eval mode -> the same in bfloat16.

    Raises:
        NotImplementedError: it has parts that are not known here.
    """

    def __init__(self, module: Any) -> None:
        check_parts(module)
        encoder, decoder = module.encoder, module.decoder
        self._encoder_in, self._encoder_out = Convolution.of(encoder.conv_in), _Head(encoder)
        self._decoder_in, self._decoder_out = Convolution.of(decoder.conv_in), _Head(decoder)
        self._encoder: list[Layer] = []
        for level in encoder.down_blocks:
            self._encoder += [*map(_Resnet, level.resnets), *map(_Downsampled, level.downsamplers or ())]
        self._encoder += _middle(encoder.mid_block)
        self._decoder: list[Layer] = _middle(decoder.mid_block)
        for level in decoder.up_blocks:
            self._decoder += [*map(_Resnet, level.resnets), *map(_Upsampled, level.upsamplers or ())]
        # These two are small: they stay in float32.
        self._moments, self._latents = module.quant_conv, module.post_quant_conv

    def encode(self, images: Tensor, pause: Callable[[], None]) -> tuple[Tensor, ...]:
        """Map images (1,3,H,W), float32, to mean and logvar, (1,C,h,w) each; `pause` is called between the layers."""
        x = _Map(self._encoder_in(_rounded(images)))
        moments = self._encoder_out(_through(self._encoder, x, pause)).float()
        if self._moments is not None:
            moments = self._moments(moments)
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def decode(self, latents: Tensor, pause: Callable[[], None]) -> tuple[Tensor, ...]:
        """Map raw latents (1,C,h,w), float32, to images (1,3,H,W); `pause` is called between the layers."""
        z = latents if self._latents is None else self._latents(latents)
        x = _Map(self._decoder_in(_rounded(z)))
        return (self._decoder_out(_through(self._decoder, x, pause)),)


def _through(layers: list[Layer], x: _Map, pause: Callable[[], None]) -> _Map:
    for layer in layers:
        x = layer(x)
        pause()
    return x


def _rounded(values: Tensor) -> Tensor:
    return values.to(torch.bfloat16, memory_format=torch.channels_last)


def _middle(block: Any) -> list[Layer]:
    first, *others = block.resnets
    layers: list[Layer] = [_Resnet(first)]
    for attention, resnet in zip(block.attentions, others, strict=True):
        if attention is not None:
            layers.append(_Attention(attention))
        layers.append(_Resnet(resnet))
    return layers
