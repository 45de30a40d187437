# SPDX-License-Identifier: Apache-2.0
"""Rows -> mean, percentiles and worst images of each VAE: tables, plots and pictures of the report."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.report.model import Model
from benchmarks.report.page import Plots, Strip, Table
from benchmarks.report.pictures import detailed_part, difference, picture
from benchmarks.report.plots import Line, line_plot
from benchmarks.report.rows import Row
from benchmarks.report.scores import Metric
from benchmarks.report.summary import PERCENTILES, Summary
from benchmarks.roundtrip.losses import QUALITY
from latentwire_codec.images.geometry import Pixels
from latentwire_codec.metrics import scores

GAIN = 4
"""By which differences are shown."""


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
    """Map rows to bytes of all raw pixels over bytes of all latents, and bits per pixel over all pixels."""
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


def beside(models: Sequence[str], rows: Sequence[Row], metrics: Sequence[Metric]) -> Table:
    """Make the table of VAEs side by side."""
    sizes = {model: ratios(rows, model) for model in models}
    means = {model: summaries(rows, model, metrics) for model in models}
    lines = [
        [f"{metric.label}, mean", *(f"{means[model][metric.name].mean:.{metric.digits}f}" for model in models)]
        for metric in metrics
        if all(metric.name in means[model] for model in models)
    ]
    for label, name, digits in (
        ("times below raw pixels, float16 latents", "float16_ratio", 1),
        (f"times below raw pixels, .lat {QUALITY}", "lat_ratio", 1),
        ("bits per pixel, float16 latents", "float16_bits_per_pixel", 3),
        (f"bits per pixel, .lat {QUALITY}", "lat_bits_per_pixel", 3),
        (f"PSNR, dB, mean, from .lat {QUALITY}", "lat_psnr_db", 2),
    ):
        lines.append([label, *(f"{sizes[model][name]:.{digits}f}" for model in models)])
    note = (
        "Scores are of float32 latents (the mode), decoded and rounded to uint8. Raw pixels are 24 bits each. Of "
        "float16 latents the numbers alone count, of .lat the whole file; all bytes of the folder together."
    )
    return Table("Side by side", ["", *models], lines, note)


def table(model: Model, folder: str, rows: Sequence[Row], metrics: Sequence[Metric]) -> Table:
    """Make the table of one VAE: mean, worst image and percentiles of each metric."""
    lines = []
    found = summaries(rows, model.name, metrics)
    for metric in metrics:
        if metric.name not in found:
            continue
        summary = found[metric.name]
        last = worst(rows, model.name, metric)[0]
        lowest = summary.lowest if metric.higher_is_better else summary.highest
        texts = (f"{value:.{metric.digits}f}" for value in (summary.mean, lowest))
        percentiles = (f"{value:.{metric.digits}f}" for value in summary.percentiles)
        lines.append([metric.label, *texts, last["file"], *percentiles])
    title = f"{model.name} ({model.autoencoder.spec.dtype}) on {len(rows)} images of {folder}"
    columns = ["", "mean", "worst", "image", *(f"{percent}%" for percent in PERCENTILES)]
    return Table(title, columns, lines, "Percentiles over images, linear between neighbours.")


def plots(models: Sequence[str], rows: Sequence[Row], metrics: Iterable[Metric]) -> Plots:
    """Plot, for each metric, the share of images that score no more."""
    svgs = []
    for metric in metrics:
        lines = []
        for colour, model in enumerate(models):
            values = sorted(value for row in rows if (value := score(row, model, metric)) is not None)
            shares = np.arange(1, len(values) + 1) / max(1, len(values)) * 100
            lines.append(Line(model, values, shares.tolist(), colour, marked=len(values) <= 50))
        if any(len(line.x) for line in lines):
            svgs.append(line_plot(lines, metric.label, "% of images at or below", y_limits=(0, 102)))
    legend = [(model, colour, False) for colour, model in enumerate(models)]
    return Plots("Over the folder", svgs, legend)


def strip(image: Pixels, row: Row, models: Sequence[Model], labels: Mapping[str, Any]) -> Strip:
    """Show an image, what each VAE makes of it, and the difference."""
    part = detailed_part(image)
    pictures = [picture(image, part, "Original", f"{image.shape[1]}x{image.shape[0]}")]
    for model in models:
        framed = model.frame(image)
        decoded = model.decode(model.encode(framed), framed)
        where = part if framed is image else detailed_part(framed)
        values = row["models"][model.name]["scores"]
        lines = [f"{label} {values[name]:.{digits}f}" for name, (label, digits) in labels.items() if values[name]]
        pictures.append(picture(decoded, where, model.name, *lines))
        shown = scores.psnr(framed, decoded)
        pictures.append(
            picture(difference(framed, decoded, GAIN), where, f"{model.name}, difference x{GAIN}", f"{shown:.2f} dB")
        )
    return Strip(row["file"], pictures)
