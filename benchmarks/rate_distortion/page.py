# SPDX-License-Identifier: Apache-2.0
"""Curves -> the tables, plots and strips of the report."""

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

RATES = (0.05, 0.1, 0.15, 0.25)
"""Bits per pixel of the tables."""
NOT_REACHABLE = "not reachable"
NO_BREAK = "\N{NO-BREAK SPACE}"
TICKS = (0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2)
SHOWN_RATES = 1.0
"""Bits per pixel beyond which plots say nothing of low rates."""
INTEGRATED = ("psnr_db", "ssim", "ms_ssim_db", "ssimulacra2", "butteraugli", "lpips")
"""BD-rates are over these; that over MS-SSIM is over its dB."""


def rate_tables(curves: Mapping[str, Curve], metrics: Iterable[Metric]) -> list[Table]:
    """Make the table of each metric: codecs at the rates."""
    note = (
        "Averaged curves: at each setting the mean rate and the mean score over all images, then PCHIP over the "
        f"logarithm of the rate. Nothing is extrapolated: '{NOT_REACHABLE}' is a rate outside of what the codec was "
        "measured at. Every byte of a file counts."
    )
    return [
        Table(
            f"{metric.label} at equal bits per pixel",
            ["codec", *(f"{rate:g}" for rate in RATES), "measured at"],
            [
                [name, *(shown(curve.at(metric, rate), metric) for rate in RATES), _measured_rates(curve)]
                for name, curve in curves.items()
                if metric.name in curve.scores
            ],
            note if number == 0 else "",
        )
        for number, metric in enumerate(metrics)
    ]


def shown(score: float | None, metric: Metric) -> str:
    """Map a score at a rate to text."""
    return NOT_REACHABLE if score is None else f"{score:.{metric.digits}f}"


def _measured_rates(curve: Curve) -> str:
    return f"{curve.rates[0]:.3f} to {curve.rates[-1]:.3f}"


def differences(name: str, curves: Mapping[str, Curve], metrics: Iterable[Metric]) -> dict[str, dict[str, Difference]]:
    """Map the name of a codec to its BD-rates against each other one, by that one's name and by metric."""
    return {
        other: {m.name: bd_rate(curve, curves[name], m) for m in metrics if m.name in INTEGRATED}
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
                if difference.percent is not None:
                    kept.append(difference.percent)
    return found


def difference_table(
    name: str,
    found: Mapping[str, Mapping[str, Difference]],
    images: Mapping[str, Mapping[str, Sequence[float]]],
    metrics: Sequence[Metric],
) -> Table:
    """Make the table of BD-rates of one codec."""
    columns = [metric for metric in metrics if metric.name in INTEGRATED]
    rows = []
    for other, each in found.items():
        cells = [_percent(each[metric.name], images.get(other, {}).get(metric.name)) for metric in columns]
        rows.append([other, *cells])
    note = (
        f"Bytes that {name} needs beyond those of the other codec at equal quality, in percent: below 0 it needs "
        "fewer. First over the averaged curves; below it the qualities that both reach, over which the mean is taken; "
        "then the median over images, each with its own curves, and how many have one. PCHIP, at least four points, "
        "package bjontegaard."
    )
    return Table(f"BD-rate of {name}", ["against", *(metric.label for metric in columns)], rows, note)


def _percent(difference: Difference, images: Sequence[float] | None) -> str:
    if difference.percent is None:
        return "refused"
    text = f"{difference.percent:+.1f}%\n{difference.low:.2f} to {difference.high:.2f}".replace(" ", NO_BREAK)
    return text + (f"\n{median(images):+.1f}% of {len(images)}".replace(" ", NO_BREAK) if images else "")


def refusals(name: str, found: Mapping[str, Mapping[str, Difference]], metrics: Sequence[Metric]) -> list[str]:
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
    """Plot each metric over the rate, with the limit that unquantized latents set; `read` are not of this run."""
    dashed = set(read)
    colours = {name: index for index, name in enumerate(curves)}
    svgs = []
    for metric in metrics:
        lines = []
        for name, curve in reversed(list(curves.items())):
            if metric.name not in curve.scores:
                continue
            points = [p for p in zip(curve.rates, curve.scores[metric.name], strict=True) if p[0] <= SHOWN_RATES]
            if not points:
                continue
            limit = limits.get(name, {}).get(metric.name)
            if limit is not None:
                ends = (points[0][0], points[-1][0])
                lines.append(Line(name, ends, (limit, limit), colours[name], dashed=True, marked=False))
            rates, scores = zip(*points, strict=True)
            lines.append(Line(name, rates, scores, colours[name], dashed=name in dashed))
        lowest = min((value for line in lines for value in line.y), default=0.0)
        bottom = metric.shown_from if metric.shown_from is not None and lowest < metric.shown_from else None
        svgs.append(line_plot(lines, "bits per pixel", metric.label, ticks=TICKS, y_limits=(bottom, None)))
    legend = [(name, colours[name], name in dashed) for name in curves]
    note = (
        "Averaged curves. A dashed level line is what latents decode to as they were encoded, not quantized: more bits "
        "do not help them."
    )
    return Plots("Quality over rate", svgs, legend, note + (" Dashed curves were read from files." if dashed else ""))


def strip(title: str, image: Pixels, row: Row, codecs: Sequence[Codec], rate: float) -> Strip:
    """Show an image as each codec makes it with the most bytes that are not above a rate, or the fewest it can."""
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
