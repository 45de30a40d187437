# SPDX-License-Identifier: Apache-2.0
"""AutoencoderKL over strips: images -> moments, latents -> images; the same function as the class computes."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.attention_processor import Attention as AttentionLayer
from diffusers.models.autoencoders.vae import Decoder, Encoder
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_blocks import DownEncoderBlock2D, UNetMidBlock2D, UpDecoderBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional

from latentwire_codec.runtime.tiling.convolution import Plain, Upsampled
from latentwire_codec.runtime.tiling.feature_map import Convolved, FeatureMap, Normalised, Pointwise, Stored, Sum
from latentwire_codec.runtime.tiling.sweep import Sweep

LOGVAR_RANGE = -30.0, 20.0
"""The range to which diffusers' posterior clamps its log-variance."""
HALF = {"conv_norm_out": nn.GroupNorm, "conv_act": nn.SiLU}
SAMPLER = {"use_conv": True, "norm": None}
PARTS: Mapping[type, Mapping[str, Any]] = {
    Encoder: HALF,
    Decoder: HALF,
    DownEncoderBlock2D: {},
    UpDecoderBlock2D: {},
    UNetMidBlock2D: {},
    Downsample2D: {**SAMPLER, "padding": 0},
    Upsample2D: {**SAMPLER, "interpolate": True, "use_conv_transpose": False},
    ResnetBlock2D: {
        **dict.fromkeys(("norm1", "norm2"), nn.GroupNorm),
        **dict.fromkeys(("time_emb_proj", "upsample", "downsample")),
        "nonlinearity": nn.SiLU,
        "output_scale_factor": 1,
    },
    AttentionLayer: {
        "group_norm": nn.GroupNorm,
        **dict.fromkeys(("spatial_norm", "norm_q", "norm_k")),
        "residual_connection": True,
        "rescale_output_factor": 1,
    },
}
"""The parts of a network that are computed here, with the attributes that they must have: a value, or its type."""


class Resnet:
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 convolution of x where the channels change."""

    def __init__(self, block: ResnetBlock2D) -> None:
        self._norms = block.norm1, block.norm2
        self._convolutions = Plain.of(block.conv1), Plain.of(block.conv2)
        self._shortcut = None if block.conv_shortcut is None else Plain.of(block.conv_shortcut)

    def __call__(self, x: FeatureMap, sweep: Sweep) -> Stored:
        """Map a feature map to the next; the memory of a stored one is reused."""
        channels = self._convolutions[0].channels
        inner_bytes = sweep.bytes(x) * channels // x.channels
        if not isinstance(x, Stored) and sweep.fits(x.stored_bytes, x) and sweep.fits(x, inner_bytes):
            x = sweep.store(x, measured=True)
        inner: FeatureMap = self._convolved(x, 0, sweep)
        # The sum is written over the inner map, or over x where there is no room for both.
        if not isinstance(x, Stored) or x.channels != channels or sweep.fits(x, inner_bytes):
            inner = sweep.store(inner, measured=True)
        into = inner if isinstance(inner, Stored) else x
        assert isinstance(into, Stored)
        through: FeatureMap = x if self._shortcut is None else Convolved(x, self._shortcut)
        return sweep.store(Sum(through, self._convolved(inner, 1, sweep)), into, measured=True)

    def _convolved(self, x: FeatureMap, index: int, sweep: Sweep) -> Convolved:
        normal = Normalised(x, self._norms[index], sweep.moments(x), silu=True)
        return Convolved(normal, self._convolutions[index])


class Attention:
    """x + attention over all places; queries are computed in strips."""

    def __init__(self, layer: AttentionLayer) -> None:
        self._layer: Any = layer

    def __call__(self, x: Stored, sweep: Sweep) -> Stored:
        """Map a feature map to the next, written over it."""
        layer = self._layer
        normal = Normalised(x, layer.group_norm, sweep.moments(x), silu=False)
        places = _places(normal.rows(0, x.height))
        keys, values = (_heads(projection(places), layer.heads) for projection in (layer.to_k, layer.to_v))
        del places
        return sweep.store(_Attended(x, normal, keys, values, layer), into=x, measured=True)


class _Attended(Pointwise):
    """x + the attention of its places, (1,C,H,W)."""

    def __init__(self, x: Stored, normal: Normalised, keys: Tensor, values: Tensor, layer: Any) -> None:
        super().__init__(x)
        self._normal, self._keys, self._values, self._layer = normal, keys, values, layer

    def rows(self, top: int, bottom: int, out: Tensor | None = None) -> Tensor:
        """Compute the attention of the places in these rows to all places, and add the source."""
        queries = _heads(self._layer.to_q(_places(self._normal.rows(top, bottom))), self._layer.heads)
        found = functional.scaled_dot_product_attention(queries, self._keys, self._values)
        answer = self._layer.to_out[0](found[0].transpose(0, 1).flatten(1))
        rows: Tensor = answer.unflatten(0, (bottom - top, self.width)).permute(2, 0, 1).unsqueeze(0)
        return torch.add(rows, self._source.rows(top, bottom), out=out)


class KLNetwork:
    """The network of an AutoencoderKL, at its device, in its dtype, in eval mode.

    Raises:
        NotImplementedError: it has parts that cannot be computed in strips.
    """

    def __init__(self, module: Any) -> None:
        check_parts(module)
        encoder, decoder = module.encoder, module.decoder
        self._encoder_in, self._encoder_out = Plain.of(encoder.conv_in), _Head(encoder)
        self._down = [
            ([Resnet(block) for block in level.resnets], [_downsampling(one) for one in level.downsamplers or ()])
            for level in encoder.down_blocks
        ]
        self._encoder_middle, self._decoder_middle = _middle(encoder.mid_block), _middle(decoder.mid_block)
        self._moments = None if module.quant_conv is None else Plain.of(module.quant_conv)
        self._latents = None if module.post_quant_conv is None else Plain.of(module.post_quant_conv)
        self._decoder_in, self._decoder_out = Plain.of(decoder.conv_in), _Head(decoder)
        self._up = [
            ([Resnet(block) for block in level.resnets], [Upsampled(one.conv) for one in level.upsamplers or ()])
            for level in decoder.up_blocks
        ]

    def encode(self, images: Tensor, sweep: Sweep) -> tuple[Tensor, ...]:
        """Map images (1,3,H,W) to mean and logvar, (1,C,h,w) each."""
        x = sweep.store(Convolved(Stored(images, sweep.device), self._encoder_in), measured=True)
        for resnets, downsampling in self._down:
            for resnet in resnets:
                x = resnet(x, sweep)
            for convolution in downsampling:
                x = sweep.store(Convolved(x, convolution), measured=True)
        for layer in self._encoder_middle:
            x = layer(x, sweep)
        moments: FeatureMap = self._encoder_out(x, sweep)
        if self._moments is not None:
            moments = Convolved(moments, self._moments)
        mean, logvar = sweep.store(moments).values.chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def decode(self, latents: Tensor, sweep: Sweep) -> tuple[Tensor, ...]:
        """Map raw latents (1,C,h,w) to images (1,3,H,W)."""
        z: FeatureMap = Stored(latents, sweep.device)
        if self._latents is not None:
            z = Convolved(z, self._latents)
        middle = sweep.store(Convolved(z, self._decoder_in), measured=True)
        for layer in self._decoder_middle:
            middle = layer(middle, sweep)
        x: FeatureMap = middle
        del middle  # the levels below overwrite and release it
        for resnets, upsampling in self._up:
            for resnet in resnets:
                x = resnet(x, sweep)
            for convolution in upsampling:
                x = Convolved(x, convolution)
        return (sweep.store(self._decoder_out(x, sweep)).values,)


class _Head:
    """The end of an encoder or a decoder: conv(silu(norm(x)))."""

    def __init__(self, half: Any) -> None:
        self._norm, self._convolution = half.conv_norm_out, Plain.of(half.conv_out)

    def __call__(self, x: FeatureMap, sweep: Sweep) -> Convolved:
        return Convolved(Normalised(x, self._norm, sweep.moments(x), silu=True), self._convolution)


def _middle(block: Any) -> list[Resnet | Attention]:
    first, *others = block.resnets
    layers: list[Resnet | Attention] = [Resnet(first)]
    for attention, resnet in zip(block.attentions, others, strict=True):
        if attention is not None:
            layers.append(Attention(attention))
        layers.append(Resnet(resnet))
    return layers


def _downsampling(layer: Any) -> Plain:
    # The class pads by one below and to the right before it convolves.
    return Plain(layer.conv.weight, layer.conv.bias, 2, (0, 1))


def _places(rows: Tensor) -> Tensor:
    """Map (1,C,n,W) to (n*W,C)."""
    return rows[0].permute(1, 2, 0).flatten(0, 1)


def _heads(places: Tensor, heads: int) -> Tensor:
    """Map (places,C) to (1,heads,places,C/heads)."""
    split: Tensor = places.unflatten(-1, (heads, -1))
    return split.transpose(0, 1).unsqueeze(0)


def check_parts(module: Any) -> None:
    """Refuse a network with parts that PARTS does not name; raises NotImplementedError."""
    halves = module.encoder, module.decoder
    middles = [half.mid_block for half in halves]
    levels = [*module.encoder.down_blocks, *module.decoder.up_blocks]
    parts = [*halves, *middles, *levels]
    for level in [*middles, *levels]:
        for name in ("resnets", "attentions", "downsamplers", "upsamplers"):
            parts += [part for part in getattr(level, name, None) or () if part is not None]
    if not all(type(part) in PARTS and _has(part, PARTS[type(part)]) for part in parts):
        raise NotImplementedError(f"this {type(module).__name__} has parts that are not computed in strips")


def _has(part: Any, attributes: Mapping[str, Any]) -> bool:
    found = {name: getattr(part, name) for name in attributes}
    return all(
        isinstance(found[name], value) if isinstance(value, type) else found[name] == value
        for name, value in attributes.items()
    )
