# SPDX-License-Identifier: Apache-2.0
"""Mean and spread of a feature map, from its strips -> factor and offset of a group normalisation."""

import torch
from torch import Tensor, nn


class Moments:
    """Mean and squared deviation of each channel over the rows seen so far, in float64.

    Strips are centred before they are squared, and joined by the update of Chan, Golub and LeVeque (1979), so that no
    digits are lost where the mean is far from 0.
    """

    def __init__(self, channels: int, device: torch.device) -> None:
        self._count = 0
        self._mean = torch.zeros(channels, dtype=torch.float64, device=device)
        self._deviation = torch.zeros_like(self._mean)

    def add(self, rows: Tensor) -> None:
        """Add the values of rows (1,C,n,W)."""
        values = rows[0].permute(1, 2, 0).flatten(0, 1)
        values = values if values.dtype == torch.float64 else values.float()
        mean = values.mean(dim=0)
        deviation = (values - mean).square_().sum(dim=0)
        count = self._count + len(values)
        step = mean.double() - self._mean
        self._mean += step * (len(values) / count)
        self._deviation += deviation.double() + step.square() * (self._count * len(values) / count)
        self._count = count

    def normalisation(self, layer: nn.GroupNorm) -> tuple[Tensor, Tensor]:
        """Return factor and offset, (1,C,1,1) each, float32 at least: the layer computes factor * x + offset."""
        means = self._mean.view(layer.num_groups, -1)
        mean = means.mean(dim=1, keepdim=True)
        deviation = self._deviation.view(layer.num_groups, -1) / self._count + (means - mean).square()
        scale = torch.rsqrt(deviation.mean(dim=1, keepdim=True) + layer.eps)
        factor = layer.weight.double() * scale.expand_as(means).flatten()
        offset = layer.bias.double() - factor * mean.expand_as(means).flatten()
        dtype = torch.promote_types(layer.weight.dtype, torch.float32)
        return factor.to(dtype).view(1, -1, 1, 1), offset.to(dtype).view(1, -1, 1, 1)
