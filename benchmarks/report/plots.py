# SPDX-License-Identifier: Apache-2.0
"""Curves -> plots by matplotlib as SVG, one drawing for light pages and one for dark pages."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

MARKERS = "osD^v<>PX*"
SIZE, LEGEND_LINE = (5.6, 3.6), 0.19  # Inches: a plot without its legend, and each line of the legend
LEGEND_COLUMNS = 2
Limits = tuple[float | None, float | None]
_STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "svg.hashsalt": "latentwire",
}


@dataclass(frozen=True)
class Plot:
    """A plot as two images inside a page."""

    title: str  # what it shows
    light: str  # data address of the SVG for light pages
    dark: str  # data address of the SVG for dark pages


@dataclass(frozen=True)
class Line:
    """One line of a plot."""

    label: str  # its text in the legend; empty: it has no place there
    x: Sequence[float]  # ascending
    y: Sequence[float]  # as many numbers
    colour: int  # number of its colour and its marks
    dashed: bool = False  # whether it is a limit, or was not measured in this run
    marked: bool = True  # whether each point has a mark


def line_plot(
    lines: Sequence[Line], x_label: str, y_label: str, *, ticks: Sequence[float] = (), y_limits: Limits = (None, None)
) -> Plot:
    """Map lines to a plot; earlier lines lie above later ones.

    With ticks the x axis is logarithmic. Limits of the y axis are bottom and top; None: as the lines need.
    """
    drawings = []
    for base in ("default", "dark_background"):
        with style.context([base, _STYLE]):
            drawings.append(_draw(lines, x_label, y_label, ticks, y_limits))
    return Plot(f"{y_label} against {x_label}", *drawings)


def _draw(lines: Sequence[Line], x_label: str, y_label: str, ticks: Sequence[float], y_limits: Limits) -> str:
    labels = sum(bool(line.label) for line in lines)
    width, height = SIZE
    figure = Figure(figsize=(width, height + LEGEND_LINE * -(-labels // LEGEND_COLUMNS)))
    axes = figure.add_subplot()
    for place, line in enumerate(lines):
        axes.plot(
            line.x,
            line.y,
            f"C{line.colour % len(MARKERS)}",
            label=line.label,
            zorder=3 - place / len(lines),
            linewidth=1.2 if line.dashed else 1.8,
            linestyle="--" if line.dashed else "-",
            marker=MARKERS[line.colour % len(MARKERS)] if line.marked else None,
            markersize=4 if len(line.x) > 1 else 7,
        )
    axes.set_xlabel(x_label)
    axes.set_title(y_label, loc="left", fontsize=10)
    axes.set_ylim(*y_limits)
    if ticks:
        _logarithmic(axes, ticks)
    if labels > 1:
        figure.legend(loc="outside lower left", ncols=LEGEND_COLUMNS)
    file = io.BytesIO()
    # Without a date the same lines give the same bytes.
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def _logarithmic(axes: Axes, ticks: Sequence[float]) -> None:
    axes.set_xscale("log")
    left, right = axes.get_xlim()
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if left <= tick <= right]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
