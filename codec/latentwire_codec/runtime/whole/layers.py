# SPDX-License-Identifier: Apache-2.0
"""Convolutions of whole maps in bfloat16, with weights in the form that oneDNN computes with."""

import torch
from torch import Tensor, nn

from latentwire_codec.runtime.tiling.convolution import upsampling_kernels


class Convolution:
    """nn.Conv2d, and what is computed with its output while the output is in the cache: (1,I,H,W) -> (1,O,h,w).

    Maps are bfloat16 in channels_last. The operators are those that torch's own compiler makes of a convolution. The
    best form of the weights depends on the size of the map, and another size's is up to seven times slower: the form
    for the last size is kept.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int, padding: int, relu: bool = False) -> None:
        self._shape = [padding] * 2, [stride] * 2, [1, 1], 1
        self._weight = weight.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        self._bias = None if bias is None else bias.to(torch.bfloat16)
        self._after = "relu" if relu else "none"
        self._packed: tuple[torch.Size, Tensor] | None = None

    @classmethod
    def of(cls, layer: nn.Conv2d, relu: bool = False) -> "Convolution":
        """Take a layer of square stride and padding."""
        (stride, _), padding = layer.stride, layer.padding
        assert not isinstance(padding, str)
        return cls(layer.weight, layer.bias, stride, padding[0], relu)

    def __call__(self, x: Tensor) -> Tensor:
        """Map a feature map to the next."""
        weight = self._for(x.shape)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, self._bias, *self._shape, self._after, [], ""
        )
        return result

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """Add the output for `x` to `total`, in place, with one rounding."""
        weight = self._for(x.shape)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            total, x, weight, self._bias, *self._shape, "add", 1.0, None, [], None
        )
        return result

    def _for(self, shape: torch.Size) -> Tensor:
        """Return the weights in oneDNN's form for maps of a shape."""
        if self._packed is None or self._packed[0] != shape:
            packed = torch.ops.mkldnn._reorder_convolution_weight(self._weight, *self._shape, list(shape))
            self._packed = shape, packed
        return self._packed[1]


class Upsampled:
    """Nearest-neighbour upsampling by 2 and a 3x3 convolution of padding 1 after it: (1,I,H,W) -> (1,O,2H,2W).

    Each of the four pixels in a block is a 2x2 convolution of the small map: 4/9 of the multiplications.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        self._channels = layer.out_channels
        self._phases = [
            (y, x, Convolution(kernel, layer.bias, 1, 1)) for y, x, kernel in upsampling_kernels(layer.weight)
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """Map a feature map to the next."""
        height, width = x.shape[2:]
        result = torch.empty(1, self._channels, 2 * height, 2 * width, dtype=x.dtype, memory_format=torch.channels_last)
        for row, column, convolution in self._phases:
            phase = convolution(x)
            result[:, :, row::2, column::2] = phase[:, :, row : row + height, column : column + width]
        return result
