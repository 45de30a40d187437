# SPDX-License-Identifier: Apache-2.0
"""Samples (n,D) -> the linear encoder and decoder that reconstruct them best, found without training.

The best linear autoencoder is spanned by the principal components, the Karhunen-Loeve transform; with variance 1 a
linear VAE ends there, apart from some shrinking (Lucas et al., Don't Blame the ELBO!, arXiv 1911.02469, after Tipping
and Bishop, Probabilistic PCA, 1999).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

MIN_STD = 0.01
"""The smallest standard deviation of a component that is scaled to 1; with few samples a component may vary by less."""


@dataclass(frozen=True)
class LinearPair:
    """x -> analysis @ x + bias = z, and z -> synthesis @ z + mean.

    Attributes:
        analysis: (C,D), the strongest component first.
        bias: (C,).
        synthesis: (D,C).
        mean: (D,), of the samples.
    """

    analysis: Tensor
    bias: Tensor
    synthesis: Tensor
    mean: Tensor

    @torch.no_grad()
    def fill(self, analysis: nn.Conv2d | nn.Linear, synthesis: nn.Conv2d | nn.Linear) -> None:
        """Make two layers compute the pair; the kernel of a convolution is a row of its matrix."""
        for layer, weight, bias in ((analysis, self.analysis, self.bias), (synthesis, self.synthesis, self.mean)):
            layer.weight.copy_(weight.reshape(layer.weight.shape))
            cast(Tensor, layer.bias).copy_(bias)


def principal_components(batches: Iterable[Tensor], count: int, unit_variance: bool) -> LinearPair:
    """Map batches of samples, each (n,D), to the linear pair of their first components.

    Args:
        batches: many more samples in all than there are components; components beyond their number stay near 0.
        count: C, at most D.
        unit_variance: give each component variance 1; else its axis has length 1.
    """
    number, total, products = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        samples = batch.double()
        number, total, products = number + len(samples), total + samples.sum(dim=0), products + samples.mT @ samples
    mean = total / number
    variances, axes = torch.linalg.eigh(products / number - mean.outer(mean))  # in ascending order
    rows = axes.T.flip(0)[:count]
    stds = variances.flip(0)[:count, None].clamp(min=MIN_STD**2).sqrt() if unit_variance else 1.0
    return LinearPair(rows / stds, -(rows / stds) @ mean, (rows * stds).T, mean)
