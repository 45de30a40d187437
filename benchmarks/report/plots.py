# SPDX-License-Identifier: Apache-2.0
"""Curves -> SVG that stands inside a page and takes its colours from it, light or dark; by matplotlib."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

COLOURS = 10
"""That the page's style sheet has, as --series-0 and so on."""
# About the width of a phone, so that the letters keep their size there; inches of 72 SVG units.
_WIDTH, _HEIGHT = 4.9, 3.5
_INK, _FAINT = "#010203", "#040506"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "text.color": _INK,
    "grid.color": _FAINT,
    "grid.linewidth": 0.5,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_numbers = count()


@dataclass(frozen=True)
class Line:
    """One line of a plot.

    Attributes:
        label: as in the legend.
        x: ascending.
        y: as many.
        colour: 0..COLOURS - 1.
        dashed: not measured in this run, or a limit.
        marked: whether each point has a mark.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int
    dashed: bool = False
    marked: bool = True


def line_plot(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    ticks: Sequence[float] = (),
    y_limits: tuple[float | None, float | None] | None = None,
) -> str:
    """Map lines to an SVG element.

    Args:
        lines: later ones lie above earlier ones.
        x_label: below.
        y_label: above.
        ticks: of a logarithmic x axis; none: the axis is linear.
        y_limits: bottom and top, each where it is not None; None: as the lines need.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for line in lines:
            axes.plot(
                line.x, line.y, color=_sentinel(line.colour), linewidth=1.2 if line.dashed else 1.8,
                linestyle="--" if line.dashed else "-", marker="o" if line.marked else None,
                markersize=3 if len(line.x) > 1 else 6,
            )  # fmt: skip
        axes.set_xlabel(x_label)
        axes.set_title(y_label, loc="left", fontsize=10)
        if y_limits is not None:
            bottom, top = y_limits
            axes.set_ylim(bottom, top)
        if ticks:
            _logarithmic(axes, ticks)
        axes.grid(alpha=0.35)
        return _inline(figure, f"{y_label} against {x_label}")


def _logarithmic(axes: Axes, ticks: Sequence[float]) -> None:
    axes.set_xscale("log")
    left, right = axes.get_xlim()
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if left <= tick <= right]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _sentinel(colour: int) -> str:
    return f"#07080{colour % COLOURS:x}"


def _inline(figure: Figure, label: str) -> str:
    """Map a figure to an element that names no address, has ids of its own, and colours of the page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    # Without its own size the element takes the width of its place.
    svg = re.sub(r'(<svg)( [^>]*?)? height="[^"]*"', r"\1\2", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    prefix = f"plot{next(_numbers)}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", svg)
    svg = svg.replace(_INK, "currentColor").replace(_FAINT, "var(--faint)")
    for colour in range(COLOURS):
        svg = svg.replace(_sentinel(colour), f"var(--series-{colour})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
