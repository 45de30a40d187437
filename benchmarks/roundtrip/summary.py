# SPDX-License-Identifier: Apache-2.0
"""Rows -> mean, percentiles and worst images of each VAE: tables, plots and pictures of the report."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.report.model import Model
from benchmarks.report.page import Plots, Strip, Table, table
from benchmarks.report.pictures import detailed_part, difference, picture
from benchmarks.report.plots import Line, line_plot
from benchmarks.report.rows import Row
from benchmarks.report.scores import Metric
from benchmarks.roundtrip.losses import OPERATIONS, QUALITY, SIDE, Times, shown
from latentwire_codec.images.geometry import Pixels
from latentwire_codec.metrics import scores

GAIN = 4  # factor by which differences are shown
PERCENTILES = (5, 25, 50, 75, 95)
SIZES = {
    "times below raw pixels, float16 latents": ("float16_ratio", 1),
    f"times below raw pixels, .lat {QUALITY}": ("lat_ratio", 1),
    "bits per pixel, float16 latents": ("float16_bits_per_pixel", 3),
    f"bits per pixel, .lat {QUALITY}": ("lat_bits_per_pixel", 3),
    f"PSNR, dB, mean, from .lat {QUALITY}": ("lat_psnr_db", 2),
}


@dataclass(frozen=True)
class Summary:
    """A number over many images."""

    count: int  # how many images have it
    mean: float  # over these images
    lowest: float  # the smallest
    highest: float  # the largest
    percentiles: tuple[float, ...]  # at PERCENTILES, linear between neighbours

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Summary | None":
        """Map numbers, None where an image has none, to their summary; None where no image has one."""
        known = np.array([value for value in values if value is not None])
        if not known.size:
            return None
        percentiles = tuple(float(value) for value in np.percentile(known, PERCENTILES))
        return cls(known.size, float(known.mean()), float(known.min()), float(known.max()), percentiles)

    def worst(self, metric: Metric) -> float:
        """Return the score of the worst image."""
        return self.lowest if metric.higher_is_better else self.highest


def score(row: Row, model: str, metric: Metric) -> float | None:
    """Return a score of an image by a VAE."""
    value: float | None = row["models"][model]["scores"][metric.name]
    return value


def worst(rows: Iterable[Row], model: str, metric: Metric) -> list[Row]:
    """Return the rows that have a score, the worst first."""
    known = [(value, row) for row in rows if (value := score(row, model, metric)) is not None]
    return [row for _, row in sorted(known, key=lambda pair: metric.quality(pair[0]))]


def summaries(rows: Sequence[Row], model: str, metrics: Iterable[Metric]) -> dict[str, Summary]:
    """Map rows to the summary of each metric that any image has."""
    found = {metric.name: Summary.of([score(row, model, metric) for row in rows]) for metric in metrics}
    return {name: summary for name, summary in found.items() if summary is not None}


def ratios(rows: Sequence[Row], model: str) -> dict[str, float]:
    """Map rows to the bytes of all raw pixels over those of all latents, and to bits per pixel over all pixels."""
    found = [row["models"][model] for row in rows]
    pixels = sum(each["width"] * each["height"] for each in found)
    raw, half, lat = (sum(each[name] for each in found) for name in ("raw_bytes", "float16_bytes", "lat_bytes"))
    return {
        "float16_ratio": raw / half,
        "lat_ratio": raw / lat,
        "float16_bits_per_pixel": 8 * half / pixels,
        "lat_bits_per_pixel": 8 * lat / pixels,
        "lat_psnr_db": fmean(each["lat_psnr_db"] for each in found),
    }


def coarse(rows: Sequence[Row], model: str) -> dict[str, float]:
    """Map rows to the mean PSNR in dB of latents rounded at each step, and of the model in bfloat16."""
    found = [row["models"][model] for row in rows]
    means = {
        f"rounded at {step}": fmean(each["rounded_psnr_db"][step] for each in found)
        for step in found[0]["rounded_psnr_db"]
    }
    if "bfloat16_psnr_db" in found[0]:
        means["in bfloat16"] = fmean(each["bfloat16_psnr_db"] for each in found)
    return means


def beside(models: Sequence[Model], rows: Sequence[Row], metrics: Sequence[Metric], times: Times) -> Table:
    """Make the table of VAEs side by side."""
    names = [model.name for model in models]
    lines: dict[str, list[str]] = {"parameters": [f"{model.autoencoder.spec.parameters:,}" for model in models]}
    for name in names:
        means, sizes = summaries(rows, name, metrics), ratios(rows, name)
        for metric in metrics:
            lines.setdefault(f"{metric.label}, mean (worst)", []).append(_mean(means.get(metric.name), metric))
        whole = fmean(row["models"][name]["psnr_db"] for row in rows)
        for label, found in coarse(rows, name).items():
            lines.setdefault(f"PSNR, dB, {label} (loss)", []).append(f"{found:.3f} ({whole - found:z.3f})")
        for label, (key, digits) in SIZES.items():
            lines.setdefault(label, []).append(f"{sizes[key]:.{digits}f}")
        for each in OPERATIONS if times else ():
            lines.setdefault(f"{each} {SIDE}x{SIDE}, ms (ratio)", []).append(shown(times, name, each))
    note = (
        "Scores: the mode of the posterior, raw, decoded and rounded to uint8. Rounded at s: latents rounded to "
        "multiples of s standard deviations of their channel. Raw pixels have 24 bits. For float16 only the numbers "
        "count, for .lat the whole file; ratios and bits per pixel are over all bytes of the folder."
    )
    return Table("Side by side", ["", *names], [[label, *cells] for label, cells in lines.items()], note)


def _mean(summary: Summary | None, metric: Metric) -> str:
    if summary is None:
        return "image too small"
    return f"{summary.mean:.{metric.digits + 1}f} ({summary.worst(metric):.{metric.digits}f})"


def percentiles(model: Model, folder: str, rows: Sequence[Row], metrics: Sequence[Metric]) -> Table:
    """Make the table of one VAE: mean, worst image and percentiles of each metric."""
    found = summaries(rows, model.name, metrics)

    def number(pick: Any) -> Any:
        return lambda metric: f"{pick(metric):.{metric.digits}f}"

    columns = {
        "": lambda metric: metric.label,
        "mean": number(lambda metric: found[metric.name].mean),
        "worst": number(lambda metric: found[metric.name].worst(metric)),
        "image": lambda metric: worst(rows, model.name, metric)[0]["file"],
        **{
            f"{percent}%": number(lambda metric, place=place: found[metric.name].percentiles[place])
            for place, percent in enumerate(PERCENTILES)
        },
    }
    title = f"{model.name} ({model.autoencoder.spec.dtype}) on {len(rows)} images of {folder}"
    known = [metric for metric in metrics if metric.name in found]
    return table(title, known, columns, "Percentiles over images, linear between neighbours.")


def plots(models: Sequence[str], rows: Sequence[Row], metrics: Iterable[Metric]) -> Plots:
    """Plot, for each metric, the share of images that score at most so much."""
    drawn = []
    for metric in metrics:
        lines = []
        for colour, model in enumerate(models):
            values = sorted(value for row in rows if (value := score(row, model, metric)) is not None)
            shares = np.arange(1, len(values) + 1) / max(1, len(values)) * 100
            lines.append(Line(model, values, shares.tolist(), colour, marked=len(values) <= 50))
        if any(len(line.x) for line in lines):
            drawn.append(line_plot(lines, metric.label, "% of images at or below", y_limits=(0, 102)))
    return Plots("Over the folder", drawn)


def strip(image: Pixels, row: Row, models: Sequence[Model], labels: Mapping[str, Any]) -> Strip:
    """Show an image, what each VAE makes of it, and the difference."""
    part = detailed_part(image)
    pictures = [picture(image, part, "Original", f"{image.shape[1]}x{image.shape[0]}")]
    for model in models:
        framed = model.frame(image)
        decoded = model.decode(model.encode(framed), framed)
        where = part if framed is image else detailed_part(framed)
        found = row["models"][model.name]["scores"]
        lines = [f"{label} {found[name]:.{digits}f}" for name, (label, digits) in labels.items() if found[name]]
        pictures.append(picture(decoded, where, model.name, *lines))
        title, psnr = f"{model.name}, difference x{GAIN}", f"{scores.psnr(framed, decoded):.2f} dB"
        pictures.append(picture(difference(framed, decoded, GAIN), where, title, psnr))
    return Strip(row["file"], pictures)
