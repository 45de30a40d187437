# SPDX-License-Identifier: Apache-2.0
"""The outputs of a reference and of another engine for one input -> how far they differ."""

import math
from dataclasses import dataclass

from torch import Tensor

CAP_DB = 200.0
"""The PSNR of equal tensors: JSON has no infinity."""
IMAGE_RANGE = 2.0
"""Images are in [-1, 1]."""


@dataclass(frozen=True)
class Difference:
    """How far a tensor is from another.

    Attributes:
        largest: the largest absolute difference.
        psnr_db: the PSNR; its peak is 2 for images, and the range of the reference for latents.
    """

    largest: float
    psnr_db: float


def difference(operation: str, reference: Tensor, other: Tensor) -> Difference:
    """Map two tensors of one shape, latents for `encode` and images for `decode`, to their difference."""
    error = (other.double() - reference.double()).abs()
    mean_square = float(error.square().mean())
    if mean_square == 0:
        return Difference(0.0, CAP_DB)
    span = IMAGE_RANGE if operation == "decode" else float(reference.max() - reference.min())
    return Difference(float(error.max()), min(CAP_DB, 10 * math.log10(span * span / mean_square)))
