# SPDX-License-Identifier: Apache-2.0
"""3x3 convolution with a quarter of the multiplications: padded rows (1,I,H+2,W+2) -> (1,O,H,W).

Winograd's F(4x4, 3x3): an output tile of 4x4 takes 36 multiplications instead of 144, as 36 matrix products over all
tiles. In exact arithmetic it is the same function; in float32 its rounding error is two to three times that of the
direct sum. In half precision it would be too large. (Lavin and Gray, Fast Algorithms for Convolutional Neural
Networks, 2016.)
"""

import math
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

TILE = 4
REACH = 6
"""The side of the input patch that one output tile depends on."""
FILTER = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
"""G of the paper's equation 5: the interpolation points 0, 1, -1, 2, -2 and infinity."""
SCRATCH = 1 << 22
"""Transformed elements in work at a time: 16 MiB of float32 stay in a CPU's last cache on the way to the product."""


class Winograd:
    """A 3x3 convolution of stride 1 over channels_last rows that are already padded.

    Args:
        weight: (O,I,3,3), float32 or float64.
        bias: (O,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        filters = torch.tensor(FILTER, dtype=torch.float64)
        # Columns before rows, as the patches are transformed below.
        both = torch.einsum("ja,ib->jiba", filters, filters).reshape(REACH * REACH, -1).to(weight.dtype)
        taps = weight.permute(2, 3, 1, 0).flatten(0, 1)  # (9,I,O)
        self._weight = (both @ taps.flatten(1)).unflatten(1, taps.shape[1:])  # (36,I,O)
        self._bias = bias

    def __call__(self, padded: Tensor, out: Tensor) -> None:
        """Write the convolution of (1,I,H+2,W+2), H and W multiples of 4, to (1,O,H,W), both in channels_last."""
        pixels, outputs = padded[0].permute(1, 2, 0), out[0].permute(1, 2, 0)
        down, across = (side // TILE for side in outputs.shape[:2])
        tiles = outputs.unflatten(1, (across, TILE)).unflatten(0, (down, TILE))
        n_in, n_out = self._weight.shape[1:]
        band = max(1, min(down, SCRATCH // (REACH * REACH * across * max(n_in, n_out))))
        for top in range(0, down, band):
            count = min(band, down - top)
            self._transform(pixels[TILE * top : TILE * (top + count) + 2], tiles[top : top + count])

    def _transform(self, pixels: Tensor, output: Tensor) -> None:
        """Compute rows of tiles: (4n+2,W+2,I) -> (n,4,W/4,4,O)."""
        n_in, n_out = self._weight.shape[1:]
        count, _, across, _, _ = output.shape
        tiles = (count, across)
        rows = _scratch.take("rows", pixels, REACH, count, pixels.shape[1], n_in)
        _analyse([pixels[i : i + TILE * count - 3 : TILE] for i in range(REACH)], rows)
        patches = _scratch.take("patches", pixels, REACH, REACH, *tiles, n_in)
        _analyse([rows[:, :, j : j + TILE * across - 3 : TILE] for j in range(REACH)], patches)
        products = _scratch.take("products", pixels, REACH, REACH, *tiles, n_out)
        flat = [matrix.view(REACH * REACH, count * across, -1) for matrix in (patches, products)]
        torch.bmm(flat[0], self._weight, out=flat[1])
        columns = _scratch.take("columns", pixels, TILE, REACH, *tiles, n_out)
        _synthesise(products, columns)
        tile_rows = [output[:, i].permute(2, 0, 1, 3) for i in range(TILE)]
        _synthesise([columns[:, i] for i in range(REACH)], tile_rows, self._bias)


class _Scratch(threading.local):
    """Buffers for one band of tiles, kept for the next call of the thread: fresh memory costs as much as the sums."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """Return a buffer of a shape, whatever is in it."""
        elements = math.prod(shape)
        kept = self._buffers.get((name, like.dtype))
        if kept is None or kept.numel() < elements:
            # One that is made in inference mode could not be written to outside of it.
            with torch.inference_mode(False):
                kept = self._buffers[name, like.dtype] = torch.empty(elements, dtype=like.dtype)
        return kept[:elements].view(shape)


_scratch = _Scratch()


def _analyse(inputs: Sequence[Tensor], outputs: Tensor) -> None:
    """Apply the paper's B^T, six slices to six; common sums are computed once."""
    a, b = _scratch.take("sums", inputs[0], 2, *inputs[0].shape)
    d0, d1, d2, d3, d4, d5 = inputs
    torch.sub(d4, d2, alpha=4, out=a)
    torch.sub(d3, d1, alpha=4, out=b)
    torch.add(a, b, out=outputs[1])
    torch.sub(a, b, out=outputs[2])
    torch.sub(d4, d2, out=a)
    torch.sub(d3, d1, out=b)
    torch.add(a, b, alpha=2, out=outputs[3])
    torch.sub(a, b, alpha=2, out=outputs[4])
    torch.sub(d4, d2, alpha=5, out=outputs[0]).add_(d0, alpha=4)
    torch.sub(d5, d3, alpha=5, out=outputs[5]).add_(d1, alpha=4)


def _synthesise(
    products: Sequence[Tensor] | Tensor, outputs: Sequence[Tensor] | Tensor, bias: Tensor | None = None
) -> None:
    """Apply the paper's A^T, six slices to four, and add the bias."""
    m0, m1, m2, m3, m4, m5 = products
    near, near_odd, far, far_odd = _scratch.take("sums", m0, 4, *m0.shape)
    torch.add(m1, m2, out=near)
    torch.sub(m1, m2, out=near_odd)
    torch.add(m3, m4, out=far)
    torch.sub(m3, m4, out=far_odd)
    if bias is not None:
        near += bias
        near_odd += bias
    torch.add(m0, near, out=outputs[0]).add_(far)
    torch.add(near_odd, far_odd, alpha=2, out=outputs[1])
    torch.add(near, far, alpha=4, out=outputs[2])
    torch.add(near_odd, far_odd, alpha=8, out=outputs[3]).add_(m5)
