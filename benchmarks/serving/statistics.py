# SPDX-License-Identifier: Apache-2.0
"""Moments of calls -> rates, latencies and drift; a rate -> moments of arrivals."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Self

import numpy as np


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of latencies, in seconds: the smallest latency that at least p percent do not exceed."""

    p50: float
    p95: float
    p99: float
    count: int

    @classmethod
    def of(cls, latencies: Sequence[float]) -> Self:
        """Map at least one latency to the percentiles."""
        p50, p95, p99 = np.percentile(latencies, (50, 95, 99), method="inverted_cdf").tolist()
        return cls(p50, p95, p99, len(latencies))


@dataclass(frozen=True)
class Window:
    """A stretch of a steady run between two answers."""

    begun_s: float  # moment of the answer just before the window
    ended_s: float  # moment of the last answer in the window
    answers: int

    @property
    def rate(self) -> float:
        """Return answers per second."""
        return self.answers / (self.ended_s - self.begun_s)

    @classmethod
    def of(cls, ends: Sequence[float], warm_s: float) -> "Window | None":
        """Map ascending moments of answers to the window behind the warming up; None where there are too few answers.

        The window begins with the last answer of the warming up, or with the first answer where no answer came so
        early. A batch whose answers come at once then counts as a whole or not at all.
        """
        start = max(0, sum(end <= warm_s for end in ends) - 1)
        if len(ends) - start < 2 or ends[-1] == ends[start]:
            return None
        return cls(ends[start], ends[-1], len(ends) - start - 1)


def arrivals(rate: float, count: int, seed: int) -> list[float]:
    """Return the moments of a Poisson process of a mean rate per second, in seconds from its beginning."""
    gaps: list[float] = np.random.default_rng(seed).exponential(1 / rate, count).cumsum().tolist()
    return gaps


@dataclass(frozen=True)
class Drift:
    """The change of a number over a long run: the means of the first and of the last samples."""

    first: float
    last: float

    @property
    def ratio(self) -> float:
        """Return the last over the first."""
        return self.last / self.first

    @classmethod
    def of(cls, samples: Sequence[float], count: int = 100) -> Self:
        """Map at least 2 * `count` samples to the means of the first and the last `count`."""
        return cls(fmean(samples[:count]), fmean(samples[-count:]))
