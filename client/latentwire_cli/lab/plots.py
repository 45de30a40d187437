# SPDX-License-Identifier: Apache-2.0
"""Statistics of latents -> a page of plots, PNG."""

import io
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from latentwire_lab.statistics import KS, LatentStatistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_HISTOGRAMS = 16
COLUMNS = 4
MIN_BINS, MAX_BINS = 15, 60
# Half the width of a histogram, in standard deviations, at least in those of N(0, 1).
REACH = 4.0
# Inches.
WIDTH, LINE, OVERVIEW, HISTOGRAM = 13.0, 0.21, 3.4, 2.5
BLUE, ORANGE, GREY = "#4477aa", "#cc5522", "#aaaaaa"


def report_page(statistics: LatentStatistics, title: str, lines: Sequence[str]) -> bytes:
    """Map statistics, a title and the text below it to a PNG file: an overview, and the most active dimensions."""
    from matplotlib.figure import Figure

    shown = np.argsort(-statistics.mean_variance, kind="stable")[:MAX_HISTOGRAMS]
    rows = -(-len(shown) // COLUMNS)
    heights = [LINE * (len(lines) + 2), OVERVIEW, HISTOGRAM * rows]
    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=110, layout="constrained")
    head, overview, below = figure.subfigures(3, 1, height_ratios=heights, squeeze=False).flat
    head.text(0.01, 0.92, title, va="top", fontsize=13, fontweight="bold")
    head.text(0.01, 0.92 - 1.6 / (len(lines) + 2), "\n".join(lines), va="top", fontsize=10, linespacing=1.3)
    panels = overview.subplots(1, COLUMNS)
    for panel, plot in zip(panels, (_spread, _distances, _information, _correlation), strict=True):
        plot(panel, statistics)
    which = "the" if len(shown) == len(statistics.mean) else f"the {len(shown)} most active"
    below.suptitle(f"Samples of {which} dimensions, and the density of N(0, 1)", x=0.01, ha="left", fontsize=10)
    grid = below.subplots(rows, COLUMNS, squeeze=False).flat
    for panel, dimension in zip(grid, shown, strict=False):
        _histogram(panel, statistics, int(dimension))
    for panel in grid[len(shown) :]:
        panel.set_axis_off()
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def nats(value: float) -> str:
    """Show a KL divergence with three digits, and without an exponent."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def _spread(panel: "Axes", statistics: LatentStatistics) -> None:
    numbers = np.arange(len(statistics.mean))
    panel.axhspan(-1, 1, color=ORANGE, alpha=0.15, lw=0, label="N(0, 1)")
    panel.axhline(0, color=ORANGE, lw=0.8)
    panel.margins(y=0.3)  # room for the legend
    panel.errorbar(numbers, statistics.mean, statistics.std, fmt="o", ms=3, lw=1, color=BLUE, label="samples")
    _finish(panel, "mean and standard deviation")
    panel.legend(fontsize=8, loc="upper right")


def _distances(panel: "Axes", statistics: LatentStatistics) -> None:
    panel.bar(np.arange(len(statistics.ks)), statistics.ks, color=BLUE)
    panel.axhline(KS[0], color=ORANGE, lw=1, ls="--", label=f"limit {KS[0]:g}")
    panel.set_ylim(0, max(1.25 * float(statistics.ks.max()), 1.5 * KS[0]))
    _finish(panel, "KS distance to N(0, 1)")
    panel.legend(fontsize=8, loc="upper right")


def _information(panel: "Axes", statistics: LatentStatistics) -> None:
    """Plot the KL divergence of each dimension, or without log-variances the variance of the mean."""
    colours = [BLUE if active else GREY for active in statistics.active]
    known = statistics.kl is not None
    values = statistics.kl if statistics.kl is not None else statistics.mean_variance
    panel.bar(np.arange(len(values)), values, color=colours)
    _finish(panel, ("KL, nats per image" if known else "variance of the mean") + " (grey: inactive)")


def _correlation(panel: "Axes", statistics: LatentStatistics) -> None:
    from matplotlib.ticker import MaxNLocator

    image = panel.imshow(statistics.correlation, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    panel.figure.colorbar(image, ax=panel, shrink=0.8)
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(panel, "correlation of samples")


def _finish(panel: "Axes", title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    panel.set_title(title, fontsize=10)
    panel.set_xlabel("dimension", fontsize=9)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.tick_params(labelsize=8)


def _histogram(panel: "Axes", statistics: LatentStatistics, dimension: int) -> None:
    """Plot a dimension's samples against the density of N(0, 1)."""
    samples, mean, std = (each[dimension] for each in (statistics.samples, statistics.mean, statistics.std))
    low, high = min(-REACH, mean - REACH * std), max(REACH, mean + REACH * std)
    bins = int(np.clip(2 * len(samples) ** 0.5, MIN_BINS, MAX_BINS))
    counts, edges = np.histogram(samples, bins, (low, high))
    panel.stairs(counts / (len(samples) * (edges[1] - edges[0])), edges, fill=True, color=BLUE, alpha=0.75)
    curve = np.linspace(low, high, 241)
    panel.plot(curve, [NormalDist().pdf(point) for point in curve], color=ORANGE, lw=1.5)
    kl = "" if statistics.kl is None else f", KL {nats(statistics.kl[dimension])}"
    active = "" if statistics.active[dimension] else " (inactive)"
    panel.set_title(
        f"dimension {dimension}{active}\nmean {mean:z.2f}, std {std:.2f}, KS {statistics.ks[dimension]:.3f}{kl}",
        fontsize=9,
    )
    panel.set_yticks([])
    panel.tick_params(labelsize=8)
