# SPDX-License-Identifier: Apache-2.0
"""Rows, and JSON files of CompressAI -> curves of quality over bits per pixel; their values at a rate, and BD-rates."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import numpy as np
from bjontegaard import bd_rate as bjontegaard_rate
from scipy.interpolate import PchipInterpolator

from benchmarks.report.rows import Row
from benchmarks.report.scores import Metric, to_db

LEAST_POINTS = 4
RATE = "bpp"
PSNR_KEYS, MS_SSIM_KEYS = ("psnr-rgb", "psnr"), ("ms-ssim-rgb", "ms-ssim")
OWN_KEYS = ("ssim", "ssimulacra2", "butteraugli", "lpips")
# Keys of each metric in `results`; the first is written. MS-SSIM in dB is left to the plot tools.
KEYS = {"psnr_db": PSNR_KEYS, "ms_ssim": MS_SSIM_KEYS, **{name: (name,) for name in OWN_KEYS}}


@dataclass(frozen=True)
class Curve:
    """The quality that a codec reaches, by ascending rate."""

    codec: str  # its name
    rates: tuple[float, ...]  # bits per pixel
    # by metric, a score at each rate; a metric that is unknown at any rate is left out
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

    CompressAI makes its figures in this way. MS-SSIM in dB is computed from the mean MS-SSIM. An image too small for
    a metric is left out of this metric's mean.
    """
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        for point in row["points"]:
            found.setdefault(point["codec"], {}).setdefault(point["setting"], []).append(point)

    def mean(points: Sequence[Row]) -> tuple[float, Mapping[str, float | None]]:
        return fmean(point["bits_per_pixel"] for point in points), mean_scores([point["scores"] for point in points])

    return {codec: Curve.of(codec, list(map(mean, settings.values()))) for codec, settings in found.items()}


def mean_scores(all_scores: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Map the scores of many images to their means."""
    means: dict[str, float | None] = {}
    for name in all_scores[0]:
        known = [score for scores in all_scores if (score := scores[name]) is not None]
        means[name] = fmean(known) if known else None
    ms_ssim = means.get("ms_ssim")
    if ms_ssim is not None and "ms_ssim_db" in means:
        means["ms_ssim_db"] = to_db(ms_ssim)
    return means


@dataclass(frozen=True)
class Difference:
    """A BD-rate, or the reason why it was refused."""

    # extra bytes of the second curve at equal quality, as a share of the first curve's; None: refused
    percent: float | None
    reason: str = ""  # why it was refused
    low: float = math.nan  # the lowest quality that both curves reach; the mean is over `low` to `high`
    high: float = math.nan  # the highest quality that both curves reach


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
        reached = " and ".join(f"{quality[0]:.2f} to {quality[-1]:.2f}" for quality in qualities)
        return Difference(None, f"no quality that both reach: {reached}")
    ends = {"require_matching_points": False, "min_overlap": 0}
    percent = bjontegaard_rate(anchor.rates, qualities[0], test.rates, qualities[1], method="pchip", **ends)
    return Difference(float(percent), "", low, high)


def write_curves(curves: Iterable[Curve], description: str, folder: Path) -> list[Path]:
    """Write one file a curve into a folder, named after its codec; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for curve in curves:
        results = {RATE: curve.rates}
        results |= {keys[0]: curve.scores[name] for name, keys in KEYS.items() if name in curve.scores}
        path = folder / (re.sub(r"[^a-z0-9]+", "-", curve.codec.lower()).strip("-") + ".json")
        text = json.dumps({"name": curve.codec, "description": description, "results": results}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def read_curves(paths: Sequence[Path]) -> list[Curve]:
    """Map files to their curves; each has another name.

    Raises:
        ValueError: a file is not from CompressAI, or two curves have one name.
        OSError: a file cannot be read.
    """
    curves = [read_curve(path) for path in paths]
    if len({curve.codec for curve in curves}) < len(curves):
        names = "; ".join(curve.codec for curve in curves)
        raise ValueError(f"two curves have one name: {names}; change `name` in one of the files")
    return curves


def read_curve(path: Path) -> Curve:
    """Map a file with `name` and `results`, lists of `bpp`, `psnr-rgb`, `ms-ssim-rgb` ..., to a curve.

    Raises:
        ValueError: the file has another form.
        OSError: the file cannot be read.
    """
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        name, results = str(read["name"]), read["results"]
        found = {ours: next((results[key] for key in keys if key in results), None) for ours, keys in KEYS.items()}
        points = []
        for index, rate in enumerate(results[RATE]):
            scores = {ours: float(column[index]) for ours, column in found.items() if column is not None}
            if "ms_ssim" in scores:
                scores["ms_ssim_db"] = to_db(scores["ms_ssim"])
            points.append((float(rate), scores))
    except (AttributeError, IndexError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is no result of CompressAI ({type(error).__name__}: {error}); it needs `name` and `results` with "
            f"equally long lists `{RATE}` and `{PSNR_KEYS[0]}` or `{MS_SSIM_KEYS[0]}`"
        ) from error
    if not points:
        raise ValueError(f"{path} has no points")
    return Curve.of(f"{name}, read", [(rate, dict(scores)) for rate, scores in points])
