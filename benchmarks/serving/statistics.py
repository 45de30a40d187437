# SPDX-License-Identifier: Apache-2.0
"""Moments of calls -> rates, latencies and shares; moments that calls are to begin at."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Self

import numpy as np


@dataclass(frozen=True)
class Percentiles:
    """Of latencies, in seconds: each is the smallest that so many percent do not exceed."""

    p50: float
    p95: float
    p99: float
    count: int

    @classmethod
    def of(cls, latencies: Sequence[float]) -> Self:
        """Map at least one latency to the percentiles."""
        ordered = sorted(latencies)
        p50, p95, p99 = (ordered[ceil(len(ordered) * percent / 100) - 1] for percent in (50, 95, 99))
        return cls(p50, p95, p99, len(ordered))


@dataclass(frozen=True)
class Window:
    """A stretch of a steady run that begins and ends with an answer.

    Attributes:
        begun_s: when the answer came that it begins behind.
        ended_s: when the last answer in it came.
        answers: in it.
    """

    begun_s: float
    ended_s: float
    answers: int

    @property
    def rate(self) -> float:
        """Return answers a second."""
        return self.answers / (self.ended_s - self.begun_s)

    @classmethod
    def of(cls, ends: Sequence[float], warm_s: float) -> "Window | None":
        """Map the moments of answers to the window behind the warming up; None where there are too few.

        It begins with the last answer of the warming up, or with the first of all where that had none: a batch that
        answers at once is then counted whole or not at all.

        Args:
            ends: ascending.
            warm_s: the moment at which the run was warm.
        """
        before = sum(end <= warm_s for end in ends)
        start = max(0, before - 1)
        if len(ends) - start < 2 or ends[-1] == ends[start]:
            return None
        return cls(ends[start], ends[-1], len(ends) - start - 1)


def arrivals(rate: float, count: int, seed: int) -> list[float]:
    """Return the moments of a Poisson process, in seconds from its beginning.

    Args:
        rate: arrivals a second, on average.
        count: of arrivals.
        seed: of the gaps between them.
    """
    gaps: list[float] = np.random.default_rng(seed).exponential(1 / rate, count).cumsum().tolist()
    return gaps


@dataclass(frozen=True)
class Drift:
    """How much a number changed over a long run.

    Attributes:
        first: mean of its first hundred samples.
        last: mean of its last hundred.
    """

    first: float
    last: float

    @property
    def ratio(self) -> float:
        """Return the last over the first."""
        return self.last / self.first

    @classmethod
    def of(cls, samples: Sequence[float], count: int = 100) -> Self:
        """Map samples, at least twice as many as are averaged, to the means at both ends."""
        return cls(sum(samples[:count]) / count, sum(samples[-count:]) / count)
