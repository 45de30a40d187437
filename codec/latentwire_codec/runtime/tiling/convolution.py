# SPDX-License-Identifier: Apache-2.0
"""Convolutions: padded rows -> output rows written in place, with as little arithmetic as algebra allows."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentwire_codec.runtime.tiling.transforms import TILE
from latentwire_codec.runtime.tiling.winograd import Winograd

# With fewer channels the transforms of a Winograd convolution cost more than the multiplications that it saves.
WINOGRAD_CHANNELS = 32


class Convolution(Protocol):
    """Maps padded rows (1,I,rows,columns) to (1,O,windows down * scale, windows across * scale).

    Attributes:
        channels: O.
        kernel: side of its window.
        stride: input rows from one window to the next.
        scale: side of the block of pixels that comes from one window.
        before: rows and columns of zeros that it needs above and to the left.
        after: rows and columns of zeros that it needs below and to the right.
        tile: windows down and across must be multiples of it.
    """

    channels: int
    kernel: int
    stride: int
    scale: int
    before: int
    after: int
    tile: int

    def __call__(self, padded: Tensor, out: Tensor) -> None:
        """Write the output of padded rows, both in channels_last."""


class Plain:
    """nn.Conv2d, weight (O,I,k,k): one pixel from each window; `padding` counts the zeros before and after."""

    scale = 1

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, int]) -> None:
        self.channels, _, _, self.kernel = weight.shape
        self.stride = stride
        self.before, self.after = padding
        self._bias = bias
        self._weight: Tensor | None = None
        self._winograd: Winograd | None = None
        self.tile = 1
        if (self.kernel, stride) == (3, 1) and _winograd_pays(weight):
            self._winograd, self.tile = Winograd(weight, bias), TILE
        else:
            self._weight = weight

    @classmethod
    def of(cls, layer: nn.Conv2d) -> "Plain":
        """Take a layer of square kernel, stride and padding."""
        (stride, _), padding = layer.stride, layer.padding
        assert not isinstance(padding, str)
        return cls(layer.weight, layer.bias, stride, (padding[0], padding[0]))

    def __call__(self, padded: Tensor, out: Tensor) -> None:
        """Write rows."""
        if self._winograd is not None:
            self._winograd(padded, out)
            return
        assert self._weight is not None  # one of the two is there
        if (self.kernel, self.stride) == (1, 1):
            # A matrix product can write in place, a convolution only to new memory.
            pixels = padded[0].permute(1, 2, 0).flatten(0, 1)
            outputs = out[0].permute(1, 2, 0).view(-1, self.channels)
            matrix = self._weight.flatten(1).mT
            if self._bias is None:
                torch.mm(pixels, matrix, out=outputs)
            else:
                torch.addmm(self._bias, pixels, matrix, out=outputs)
        else:
            out.copy_(functional.conv2d(padded, self._weight, self._bias, self.stride))


class Shuffled:
    """nn.Conv2d of stride 1 and nn.PixelShuffle after it: a block of scale x scale pixels from each window."""

    stride = 1

    def __init__(self, layer: nn.Conv2d, scale: int) -> None:
        # The place in the block comes before the channel, so that all channels of a pixel are copied at once.
        order = torch.arange(layer.out_channels).view(-1, scale * scale).mT.flatten()
        bias = None if layer.bias is None else layer.bias[order]
        plain = Plain.of(layer)
        self._convolution = Plain(layer.weight[order], bias, 1, (plain.before, plain.after))
        self.channels, self.scale = layer.out_channels // scale**2, scale
        self.kernel, self.before, self.after = plain.kernel, plain.before, plain.after
        self.tile = self._convolution.tile

    def __call__(self, padded: Tensor, out: Tensor) -> None:
        """Write `scale` times as many rows."""
        _shuffle(self._convolution, padded, self.scale, out)


class Upsampled:
    """Nearest-neighbour upsampling by 2 and a 3x3 convolution of padding 1 after it: 2x2 pixels from each window.

    Each of the four pixels depends on only 2x2 places of the small grid, with sums of the given weights: that takes 4/9
    of the multiplications. Winograd's method computes all four as one convolution with four times the channels, and
    takes 1/4 of the multiplications.
    """

    kernel, stride, scale, before, after = 3, 1, 2, 1, 1

    def __init__(self, layer: nn.Conv2d) -> None:
        self.channels = layer.out_channels
        self._bias = layer.bias
        self._whole: Plain | None = None
        if _winograd_pays(layer.weight):
            bias = None if layer.bias is None else layer.bias.repeat(4)
            self._whole = Plain(_phases(layer.weight).flatten(0, 2), bias, 1, (1, 1))
            self.tile = self._whole.tile
        else:
            self.tile = 1
            self._kernels = upsampling_kernels(layer.weight)

    def __call__(self, padded: Tensor, out: Tensor) -> None:
        """Write twice as many rows as the small grid has."""
        if self._whole is not None:
            _shuffle(self._whole, padded, 2, out)
            return
        height, width = (side - 2 for side in padded.shape[2:])
        for y, x, kernel in self._kernels:
            seen = padded[:, :, y : y + height + 1, x : x + width + 1]
            out[:, :, y::2, x::2] = functional.conv2d(seen, kernel, self._bias)


def upsampling_kernels(weight: Tensor) -> list[tuple[int, int, Tensor]]:
    """Map the weight (O,I,3,3) of `Upsampled` to the 2x2 kernel of each of the four pixels: row, column, (O,I,2,2)."""
    phases = _phases(weight)
    return [
        (y, x, phases[y, x, :, :, y : y + 2, x : x + 2].contiguous(memory_format=torch.channels_last))
        for y in (0, 1)
        for x in (0, 1)
    ]


def _phases(weight: Tensor) -> Tensor:
    """Map (O,I,3,3) to one kernel on the small grid for each of 2x2 pixels: (2,2,O,I,3,3), most of them half zeros."""
    # One matrix for the upper pixel, one for the lower: rows of the small grid (above, here, below) by kernel rows.
    seen = torch.tensor([[[1, 0, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 1]]], dtype=torch.float64)
    seen = seen.to(weight.device)
    return torch.einsum("yra,xcb,oiab->yxoirc", seen, seen, weight.double()).to(weight.dtype)


def _shuffle(convolution: Plain, padded: Tensor, scale: int, out: Tensor) -> None:
    """Write the block of scale x scale pixels of each place; its channels hold the block, place before channel."""
    height, width = (side // scale for side in out.shape[2:])
    blocks = torch.empty(height, width, scale, scale, out.shape[1], dtype=out.dtype, device=out.device)
    convolution(padded, blocks.flatten(2).permute(2, 0, 1).unsqueeze(0))
    pixels = out[0].permute(1, 2, 0).unflatten(1, (width, scale)).unflatten(0, (height, scale))
    pixels.copy_(blocks.transpose(1, 2))


def _winograd_pays(weight: Tensor) -> bool:
    exact = weight.dtype in (torch.float32, torch.float64)
    return weight.device.type == "cpu" and exact and min(weight.shape[:2]) >= WINOGRAD_CHANNELS
