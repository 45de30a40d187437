# SPDX-License-Identifier: Apache-2.0
"""3x3 convolution with a quarter of the multiplications: padded rows (1,I,H+2,W+2) -> (1,O,H,W).

Winograd's F(4x4, 3x3): an output tile of 4x4 takes 36 multiplications instead of 144, as 36 matrix products over all
tiles (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016). In exact arithmetic it is the same
function. In float32 its rounding error depends on the points of interpolation: with the points below it is about three
times the error of the direct sum, with the paper's points five times (Barabasz et al., Error Analysis and Improving the
Accuracy of Winograd Convolution for Deep Neural Networks, 2020). In half precision it would be too large.
"""

import math
import threading

import torch
from torch import Tensor

from latentwire_codec.runtime.tiling import transforms
from latentwire_codec.runtime.tiling.transforms import REACH, TILE

FILTER = [
    [1, 0, 0],
    [1 / 3, 1 / 3, 1 / 3],
    [-1 / 3, 1 / 3, -1 / 3],
    [-16 / 15, -8 / 15, -4 / 15],
    [1 / 15, -2 / 15, 4 / 15],
    [0, 0, 1],
]
"""G of the interpolation points 0, 1, -1, 1/2, -2 and infinity."""
SCRATCH = 1 << 22
"""Transformed elements in work at a time: 16 MiB of float32 stay in a CPU's last-level cache up to the product."""

TILES = 256
"""Tiles in a product, at least: each product reads all weights."""


class Winograd:
    """A convolution of stride 1, weight (O,I,3,3) in float32 or float64, over padded rows in channels_last."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        filters = torch.tensor(FILTER, dtype=torch.float64)
        # Columns before rows, in the order of the transformed patches.
        both = torch.einsum("ja,ib->jiba", filters, filters).reshape(REACH * REACH, -1).to(weight.dtype)
        taps = weight.permute(2, 3, 1, 0).flatten(0, 1)  # (9,I,O)
        self._weight = (both @ taps.flatten(1)).unflatten(1, taps.shape[1:])  # (36,I,O)
        self._bias = (torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias).detach()

    def __call__(self, padded: Tensor, out: Tensor) -> None:
        """Write the convolution of (1,I,H+2,W+2), H and W multiples of 4, to (1,O,H,W), both in channels_last."""
        pixels, outputs = padded[0].permute(1, 2, 0), out[0].permute(1, 2, 0)
        down, across = (side // TILE for side in outputs.shape[:2])
        n_in, n_out = self._weight.shape[1:]
        band = max(-(-TILES // across), SCRATCH // (REACH * REACH * across * max(n_in, n_out)))
        for top in range(0, down, band):
            end = min(top + band, down)
            self._convolve(pixels[TILE * top : TILE * end + 2], outputs[TILE * top : TILE * end])

    def _convolve(self, pixels: Tensor, output: Tensor) -> None:
        """Compute rows of tiles: (4n+2,4t+2,I) -> (4n,4t,O)."""
        n_in, n_out = self._weight.shape[1:]
        tiles = [side // TILE for side in output.shape[:2]]
        patches = _scratch.take("patches", pixels, REACH, REACH, *tiles, n_in)
        products = _scratch.take("products", pixels, REACH, REACH, *tiles, n_out)
        transforms.analyse(pixels.numpy(), patches.numpy())
        flat = [planes.view(REACH * REACH, -1, planes.shape[-1]) for planes in (patches, products)]
        torch.bmm(flat[0], self._weight, out=flat[1])
        transforms.synthesise(products.numpy(), self._bias.numpy(), output.numpy())


class _Scratch(threading.local):
    """Buffers for one band of tiles, kept for the thread's next call: new memory costs as much time as the sums."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """Return a buffer of a shape, with arbitrary contents."""
        elements = math.prod(shape)
        kept = self._buffers.get((name, like.dtype))
        if kept is None or kept.numel() < elements:
            # A buffer made in inference mode could not be written to outside of it.
            with torch.inference_mode(False):
                kept = self._buffers[name, like.dtype] = torch.empty(elements, dtype=like.dtype)
        return kept[:elements].view(shape)


_scratch = _Scratch()
