# SPDX-License-Identifier: Apache-2.0
"""Rows -> averaged curves and BD-rates; curves -> tables, plots and strips of the report."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.rate_distortion.codecs import Codec
from benchmarks.rate_distortion.curves import Curve, Difference, bd_rate, image_curves
from benchmarks.report.page import Plots, Strip, Table
from benchmarks.report.pictures import detailed_part, picture
from benchmarks.report.plots import Line, line_plot
from benchmarks.report.rows import Row
from benchmarks.report.scores import Metric, Scores
from latentwire_codec.images.geometry import Pixels
from latentwire_codec.metrics import scores

RATES = (0.05, 0.1, 0.15, 0.25, 0.5, 1.0)  # bits per pixel of the tables
NOT_REACHABLE = "not reachable"
TICKS = (0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2)
SHOWN_RATES = 1.2  # bits per pixel at which plots end: this benchmark is about low rates
# Metrics of plots and BD-rates: MS-SSIM only in dB.
COMPARED = ("psnr_db", "ssim", "ms_ssim_db", "ssimulacra2", "butteraugli", "lpips")

Differences = dict[str, dict[str, Difference]]  # BD-rates of one codec, by the other codec and by metric


def compared(metrics: Iterable[Metric]) -> list[Metric]:
    """Return the metrics that plots and BD-rates show."""
    return [metric for metric in metrics if metric.name in COMPARED]


def rate_tables(curves: Mapping[str, Curve], metrics: Iterable[Metric]) -> list[Table]:
    """Make the table of each metric: codecs at the rates."""
    note = (
        "Averaged curves: at each setting the mean rate and the mean score over all images, then PCHIP over the "
        f"logarithm of the rate. Nothing is extrapolated: '{NOT_REACHABLE}' is a rate outside the measured rates of "
        "the codec. Every byte of a file counts."
    )

    def shown(curve: Curve, metric: Metric, rate: float) -> str:
        score = curve.at(metric, rate)
        return NOT_REACHABLE if score is None else f"{score:.{metric.digits}f}"

    tables: list[Table] = []
    for metric in metrics:
        title = f"{metric.label} at equal bits per pixel"
        rows = [
            [name, *(shown(curve, metric, r) for r in RATES), f"{curve.rates[0]:.3f} to {curve.rates[-1]:.3f}"]
            for name, curve in curves.items()
            if metric.name in curve.scores
        ]
        columns = ["codec", *(f"{rate:g}" for rate in RATES), "measured at"]
        tables.append(Table(title, columns, rows, "" if tables else note))
    return tables


def differences(name: str, curves: Mapping[str, Curve], metrics: Iterable[Metric]) -> Differences:
    """Map the name of a codec to its BD-rates against each other codec."""
    return {
        other: {metric.name: bd_rate(curve, curves[name], metric) for metric in compared(metrics)}
        for other, curve in curves.items()
        if other != name
    }


def per_image(name: str, rows: Sequence[Row], metrics: Iterable[Metric]) -> dict[str, dict[str, list[float]]]:
    """Map the name of a codec to the BD-rates of each image that has one, by the other codec and by metric."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for other, each in differences(name, image_curves(row), metrics).items():
            for metric, difference in each.items():
                kept = found.setdefault(other, {}).setdefault(metric, [])
                kept += [] if difference.percent is None else [difference.percent]
    return found


def difference_table(
    name: str, found: Differences, images: Mapping[str, Mapping[str, Sequence[float]]], metrics: Iterable[Metric]
) -> Table:
    """Make the table of BD-rates of one codec, with three rows for each other codec."""
    columns = compared(metrics)
    rows = []
    for other, each in found.items():
        cells = [each[metric.name] for metric in columns]
        own = [images.get(other, {}).get(metric.name, []) for metric in columns]
        rows.append([other, *("refused" if d.percent is None else f"{d.percent:+.1f}%" for d in cells)])
        reached = ("" if d.percent is None else f"{d.low:.2f} to {d.high:.2f}" for d in cells)
        rows.append([f"{other}: qualities", *reached])
        if any(own):
            rows.append([f"{other}: median of images", *(f"{median(v):+.1f}% of {len(v)}" if v else "" for v in own)])
    note = (
        f"Bytes that {name} needs beyond those of the other codec at equal quality, in percent: below 0 it needs "
        "fewer. First row: over the averaged curves. Second row: the qualities that both reach, over which the mean is "
        "taken; Butteraugli and LPIPS in dB. Third row: the median over images, each with its own curves, and how many "
        "images have a BD-rate. PCHIP, at least four points, package bjontegaard."
    )
    return Table(f"BD-rate of {name}", ["against", *(metric.label for metric in columns)], rows, note)


def refusals(name: str, found: Differences, metrics: Iterable[Metric]) -> list[str]:
    """List why BD-rates were refused."""
    labels = {metric.name: metric.label for metric in metrics}
    return [
        f"{name} against {other}, {labels[metric]}: {difference.reason}"
        for other, each in found.items()
        for metric, difference in each.items()
        if difference.percent is None
    ]


def plots(
    curves: Mapping[str, Curve], read: Iterable[str], limits: Mapping[str, Scores], metrics: Iterable[Metric]
) -> Plots:
    """Plot each metric over the rate, with the limit that unquantized latents set; curves from files are dashed."""
    dashed, drawn = set(read), []
    for metric in metrics:
        lines = []
        for colour, (name, curve) in enumerate(curves.items()):
            points = zip(curve.rates, curve.scores.get(metric.name, ()), strict=False)
            rates, scores = tuple(zip(*(p for p in points if p[0] <= SHOWN_RATES), strict=True)) or ((), ())
            if not rates:
                continue
            lines.append(Line(name, rates, scores, colour, dashed=name in dashed))
            limit = limits.get(name, {}).get(metric.name)
            if limit is not None:
                lines.append(Line("", (rates[0], rates[-1]), (limit, limit), colour, dashed=True, marked=False))
        lowest = min((value for line in lines for value in line.y), default=0.0)
        bottom = metric.shown_from if metric.shown_from is not None and lowest < metric.shown_from else None
        drawn.append(line_plot(lines, "bits per pixel", metric.label, ticks=TICKS, y_limits=(bottom, None)))
    note = (
        "Averaged curves. A dashed level line is the score of unquantized latents: more bits cannot exceed it. "
        + ("Dashed curves were read from files." if dashed else "")
    ).strip()
    return Plots("Quality over rate", drawn, note)


def strip(title: str, image: Pixels, row: Row, codecs: Sequence[Codec], rate: float) -> Strip:
    """Show an image as each codec makes it at the largest setting that is not above a rate, or at its smallest."""
    part = detailed_part(image)
    height, width = image.shape[:2]
    pictures = [picture(image, part, "Original", f"{width}x{height}")]
    for codec in codecs:
        points = sorted((p for p in row["points"] if p["codec"] == codec.name), key=lambda point: int(point["bytes"]))
        within = [point for point in points if point["bits_per_pixel"] <= rate]
        point: dict[str, Any] = (within or points[:1])[-1]
        ((_, payload),) = codec.encode(image, [point["setting"]])
        decoded = codec.decode(payload, image)
        bits = scores.bits_per_pixel(len(payload), width, height)
        line = f"{len(payload):,} bytes, {bits:.3f} bpp"
        score = f"{scores.psnr(image, decoded):.2f} dB, setting {point['setting']}"
        warning = "" if within else "cannot be smaller"
        pictures.append(picture(decoded, part, codec.name, line, score, warning=warning))
    return Strip(title, pictures)
