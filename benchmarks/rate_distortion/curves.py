# SPDX-License-Identifier: Apache-2.0
"""Rows -> curves of quality over bits per pixel; curves -> their values at a rate, and BD-rates."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from bjontegaard import bd_rate as bjontegaard_rate
from scipy.interpolate import PchipInterpolator

from benchmarks.report.rows import Row
from benchmarks.report.scores import Metric, to_db

LEAST_POINTS = 4


@dataclass(frozen=True)
class Curve:
    """The quality that a codec reaches, by ascending rate.

    Attributes:
        codec: its name.
        rates: bits per pixel.
        scores: by metric, a score at each rate; a metric that is unknown at any rate is left out.
    """

    codec: str
    rates: tuple[float, ...]
    scores: Mapping[str, tuple[float, ...]]

    @classmethod
    def of(cls, codec: str, points: Sequence[tuple[float, Mapping[str, float | None]]]) -> "Curve":
        """Map points, (rate, scores), in any order, to a curve; the first of two points with one rate is kept."""
        distinct = dict(reversed(points))
        rates = sorted(distinct)
        names = {name for scores in distinct.values() for name in scores}
        columns = {name: [distinct[rate].get(name) for rate in rates] for name in sorted(names)}
        known = {name: tuple(v for v in column if v is not None) for name, column in columns.items()}
        return cls(codec, tuple(rates), {name: v for name, v in known.items() if len(v) == len(rates)})

    def at(self, metric: Metric, rate: float) -> float | None:
        """Return the score at a rate, PCHIP over the logarithm of rates; None outside: nothing is extrapolated."""
        scores = self.scores.get(metric.name)
        if scores is None or not self.rates[0] <= rate <= self.rates[-1]:
            return None
        if len(self.rates) == 1:
            return scores[0]
        return float(PchipInterpolator(np.log(self.rates), scores)(math.log(rate)))


def image_curves(row: Row) -> dict[str, Curve]:
    """Map the row of one image to the curve of each codec."""
    points: dict[str, list[tuple[float, Mapping[str, float | None]]]] = {}
    for point in row["points"]:
        points.setdefault(point["codec"], []).append((point["bits_per_pixel"], point["scores"]))
    return {codec: Curve.of(codec, each) for codec, each in points.items()}


def averaged(rows: Sequence[Row]) -> dict[str, Curve]:
    """Map rows to the curve of each codec: at each setting, the mean rate and the mean scores over the images.

    CompressAI makes its figures in this way. MS-SSIM in dB is computed from the mean MS-SSIM. Images too small for a
    metric are left out of its mean.
    """
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        for point in row["points"]:
            found.setdefault(point["codec"], {}).setdefault(point["setting"], []).append(point)
    return {
        codec: Curve.of(
            codec,
            [
                (float(np.mean([p["bits_per_pixel"] for p in points])), mean_scores([p["scores"] for p in points]))
                for points in settings.values()
            ],
        )
        for codec, settings in found.items()
    }


def mean_scores(all_scores: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Map the scores of many images to their means."""
    means: dict[str, float | None] = {}
    for name in all_scores[0]:
        known = [scores[name] for scores in all_scores if scores[name] is not None]
        means[name] = float(np.mean(np.array(known, float))) if known else None
    ms_ssim = means.get("ms_ssim")
    if ms_ssim is not None and "ms_ssim_db" in means:
        means["ms_ssim_db"] = to_db(ms_ssim)
    return means


@dataclass(frozen=True)
class Difference:
    """A BD-rate, or the reason why it was refused.

    Attributes:
        percent: extra bytes of the second curve at equal quality, as a share of the first curve's; None: refused.
        reason: why it was refused.
        low: the lowest quality that both curves reach; the mean is over `low` to `high`.
        high: the highest quality that both curves reach.
    """

    percent: float | None
    reason: str = ""
    low: float = math.nan
    high: float = math.nan


def bd_rate(anchor: Curve, test: Curve, metric: Metric) -> Difference:
    """Map two curves to the mean difference in rate at equal quality, over the qualities that both curves reach.

    PCHIP of the logarithm of rates over quality, as in JCT-VC's sheet; computed by `bjontegaard`.
    """
    qualities = []
    for curve in (anchor, test):
        scores = curve.scores.get(metric.name)
        if scores is None:
            return Difference(None, f"{curve.codec} has no {metric.label}")
        if len(scores) < LEAST_POINTS:
            return Difference(None, f"{curve.codec} has {len(scores)} points; {LEAST_POINTS} are needed")
        quality = [metric.quality(score) for score in scores]
        if not all(later > earlier for earlier, later in pairwise(quality)):
            return Difference(None, f"{curve.codec} does not get better with every byte")
        qualities.append(quality)
    low, high = max(q[0] for q in qualities), min(q[-1] for q in qualities)
    if low >= high:
        return Difference(None, f"no quality that both reach: {_range(qualities[0])} and {_range(qualities[1])}")
    percent = bjontegaard_rate(
        anchor.rates, qualities[0], test.rates, qualities[1], method="pchip", require_matching_points=False,
        min_overlap=0,
    )  # fmt: skip
    return Difference(float(percent), "", low, high)


def _range(quality: Sequence[float]) -> str:
    return f"{quality[0]:.2f} to {quality[-1]:.2f}"
