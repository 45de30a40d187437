# SPDX-License-Identifier: Apache-2.0
"""Latents between the integers -> the bits that the entropy coder would spend on them, as a smooth function.

It computes in floats what `traversal` and `context` compute in integers: the same neighbours, weights and scales. In
place of the tables stands the Laplace distribution of each scale. Latent optimisation descends along it; the coder does
not use it.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.context import MEAN_BITS, SCALE_BITS, WEIGHT_BITS, ContextModel
from latentwire_codec.lat.traversal import NEIGHBOURS, phases

SMALLEST_SCALE = 0.1
"""Steps; below it the slope of the bits would be too steep to descend."""


class ExpectedBits:
    """A function from the latents (C,h,w) of one image, on a device, to their bits."""

    def __init__(self, shape: tuple[int, int, int], model: ContextModel, device: torch.device) -> None:
        def placed(numbers: Integers, one: int) -> Tensor:
            return torch.from_numpy(numbers / one).float().unsqueeze(-1).to(device)

        def indices(numbers: Integers) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(numbers)).to(device)

        self._size = shape[1:]
        self._plan = [(each.kind, indices(each.places), indices(each.neighbours)) for each in phases(*self._size)]
        # From coding order to raster order.
        self._order = torch.cat([places for _, places, _ in self._plan]).argsort()
        # In steps: (C, kinds, terms, 1), and (C, kinds, 1).
        self._mean_weights = placed(model.mean_weights, 1 << MEAN_BITS + WEIGHT_BITS)
        self._mean_bias = placed(model.mean_bias, 1 << MEAN_BITS + WEIGHT_BITS)
        self._scale_weights = placed(model.scale_weights, 1 << SCALE_BITS + WEIGHT_BITS - MEAN_BITS)
        self._scale_floor = placed(model.scale_floor, 1 << SCALE_BITS + WEIGHT_BITS)

    def __call__(self, values: Tensor) -> Tensor:
        """Map float32 (C,h,w), in steps, to their bits, float32 ()."""
        plane = values.flatten(1)
        referred = self._referred(plane)
        means = []
        for kind, places, neighbours in self._plan:
            a, b, c, d = _around(plane, neighbours)
            features = torch.stack([a + b, c + d, referred[:, places]], dim=1)
            means.append((self._mean_weights[:, kind] * features).sum(dim=1) + self._mean_bias[:, kind])
        errors = (plane - torch.cat(means, dim=1)[:, self._order]).abs()
        return _laplace_bits(errors, self._scales(plane, errors)).sum()

    def _scales(self, plane: Tensor, errors: Tensor) -> Tensor:
        """Map values and the errors of their means, (C,N) each, to the expected errors."""
        edges = (4 * plane - self._beside(plane)).abs()
        referred = [self._referred(each) for each in (errors, self._beside(errors), edges)]
        scales = []
        for kind, places, neighbours in self._plan:
            a, b, c, d = _around(plane, neighbours)
            first, second, third, fourth = _around(errors, neighbours)
            near = (a - b).abs() + (c - d).abs(), (a + b - c - d).abs(), first + second, third + fourth
            features = torch.stack([*near, *(each[:, places] for each in referred)], dim=1)
            scales.append((self._scale_weights[:, kind] * features).sum(dim=1) + self._scale_floor[:, kind])
        return torch.cat(scales, dim=1)[:, self._order]

    def _referred(self, plane: Tensor) -> Tensor:
        """Map (C,N) to the channel before each channel; zeros before the first."""
        return functional.pad(plane[:-1], (0, 0, 1, 0))

    def _beside(self, plane: Tensor) -> Tensor:
        """Map (C,N) to the sum of the four neighbours of each place; a neighbour outside counts as the place itself."""
        padded = functional.pad(plane.unflatten(1, self._size).unsqueeze(0), (1, 1, 1, 1), mode="replicate")[0]
        above, below, left, right = (
            padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]
        )  # fmt: skip
        return (above + below + left + right).flatten(1)


def _around(plane: Tensor, neighbours: Tensor) -> tuple[Tensor, ...]:
    """Map (C,N) to the values at the neighbours of a phase, (C,n) each; the seed has no neighbours: zeros."""
    if not len(neighbours):
        return (plane.new_zeros(len(plane), neighbours.shape[1]),) * NEIGHBOURS
    return plane[:, neighbours].unbind(1)


def _laplace_bits(errors: Tensor, scales: Tensor) -> Tensor:
    """Map distances from the mean, and expected distances, to the bits of the interval within half a step."""
    scales = scales.clamp(min=SMALLEST_SCALE)
    beyond = (errors - 0.5).clamp(min=0)
    far = beyond / scales / math.log(2) + 1 - torch.log2(-torch.expm1(-1 / scales))
    tails = (-(errors + 0.5) / scales).exp() + (-(0.5 - errors).clamp(min=0) / scales).exp()
    near = -torch.log2(1 - tails / 2)
    return torch.where(errors > 0.5, far, near)
