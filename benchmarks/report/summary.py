# SPDX-License-Identifier: Apache-2.0
"""Numbers of many images -> mean and percentiles."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class Summary:
    """What is said of a number of each image.

    Attributes:
        count: of images that have it.
        mean: over them.
        lowest: the smallest.
        highest: the largest.
        percentiles: at PERCENTILES, linear between neighbours.
    """

    count: int
    mean: float
    lowest: float
    highest: float
    percentiles: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Summary | None":
        """Map numbers, None where an image has none, to their summary; None where no image has one."""
        known = np.array([value for value in values if value is not None])
        if not known.size:
            return None
        percentiles = tuple(float(value) for value in np.percentile(known, PERCENTILES))
        return cls(known.size, float(known.mean()), float(known.min()), float(known.max()), percentiles)
