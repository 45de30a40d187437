# SPDX-License-Identifier: Apache-2.0
"""The rows of a training run's log -> one picture of its curves. Needs Matplotlib."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter, MaxNLocator

from latentwire_train.loss_weights import LossWeights
from latentwire_train.record.log import Row

Points = npt.NDArray[np.float64]

MAX_POINTS = 200
"""Of a line; more of them are averaged, in groups of equal number."""
LOG_SCALE_FROM = 5.0
"""A panel whose largest number is so many times its smallest gets a logarithmic axis, where it may have one."""
HELD_OUT = "held_out/"
INK, GREY = "#222222", "#8c8c8c"
# Okabe and Ito's colours, which people with any colour vision tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F6A00")

ADVERSARIAL = ("adversarial", "feature_matching", "discriminator")
PARTS = tuple(field.name for field in fields(LossWeights) if field.name not in ("kl", *ADVERSARIAL))


@dataclass(frozen=True)
class Panel:
    """One part of the picture.

    Attributes:
        title: with the unit.
        lines: what is drawn, from a figure's name to its label; a panel that has none of them is left out.
        log_scale: whether it may have a logarithmic axis.
        from_zero: whether its axis begins at 0.
    """

    title: str
    lines: dict[str, str]
    log_scale: bool = False
    from_zero: bool = False


WIDE = (
    Panel(
        "Loss: its parts, each before its weight, and their weighted total",
        {"train/total": "total", "held_out/loss": "total, held out"} | {f"train/{part}": part for part in PARTS},
        log_scale=True,
    ),
    Panel("Adversarial loss", {f"train/{part}": part.replace("_", " ") for part in ADVERSARIAL}),
)
SMALL = (
    Panel("PSNR, dB", {"train/psnr": "training samples", "held_out/psnr": "held-out images"}),
    Panel(
        "KL divergence to N(0, I), nats per image",
        {"train/kl": "training samples", "held_out/kl": "held-out images"},
        log_scale=True,
    ),
    Panel("Learning rate", {"learning_rate": ""}, from_zero=True),
    Panel("Speed, images per second", {"images_per_s": ""}, from_zero=True),
)


class _PlainLogFormatter(LogFormatter):
    """20,000 and 0.05, where LogFormatter would have 2x10^4 and 5x10^-2; as many labels as it would have."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:,g}" if super().__call__(x, pos) else ""


def draw_curves(rows: Sequence[Row]) -> bytes | None:
    """Map rows to a PNG file; None where they hold nothing that is drawn.

    The parts of the loss are above, with those of an adversarial loss beside them; PSNR, KL, learning rate and speed
    below, each where it was measured. Measurements on held-out images are dots. What is not finite is left out.
    """
    series = _series(rows)
    wide, small = ([panel for panel in panels if panel.lines.keys() & series.keys()] for panels in (WIDE, SMALL))
    if not wide and not small:
        return None
    heights = [1.4] * bool(wide) + [1.0] * -(-len(small) // 2)
    figure = Figure(figsize=(11, 2.6 * sum(heights)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    lines = [wide] * bool(wide) + [small[index : index + 2] for index in range(0, len(small), 2)]
    for index, panels in enumerate(lines):
        columns = grid[index].subgridspec(1, len(panels))
        for column, panel in enumerate(panels):
            _draw(figure.add_subplot(columns[column]), panel, series)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _series(rows: Sequence[Row]) -> dict[str, Points]:
    """Map rows to the points (n,2) of each figure: step and value, finite."""
    collected: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, value in row.figures.items():
            if np.isfinite(value):
                collected.setdefault(name, []).append((row.step, value))
    return {name: np.array(points) for name, points in collected.items()}


def _thinned(points: Points) -> Points:
    """Map points to at most `MAX_POINTS`, each the mean of as many neighbours (the last of what is left)."""
    group = -(-len(points) // MAX_POINTS)
    return np.array([points[index : index + group].mean(axis=0) for index in range(0, len(points), group)])


def _draw(axes: Axes, panel: Panel, series: dict[str, Points]) -> None:
    shown = {name: _thinned(series[name]) for name in panel.lines if name in series}
    values = np.concatenate([points[:, 1] for points in shown.values()])
    if panel.log_scale and values.min() > 0 and values.max() > LOG_SCALE_FROM * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_PlainLogFormatter())
        axes.yaxis.set_minor_formatter(_PlainLogFormatter(labelOnlyBase=False, minor_thresholds=(1, 0.4)))
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    colours = iter(COLOURS)
    for name, points in shown.items():
        total = name in ("train/total", "held_out/loss")
        axes.plot(
            *points.T,
            label=panel.lines[name],
            color=INK if total else next(colours),
            linewidth=1.8 if total else 1.3,
            linestyle=":" if name.startswith(HELD_OUT) else "-",
            marker="o" if name.startswith(HELD_OUT) or len(points) == 1 else "",
            markersize=3.5,
        )
    axes.set_title(panel.title, fontsize=10, loc="left", color=INK)
    axes.set_xlabel("step", fontsize=8.5, color=GREY)
    axes.set_xlim(0, 1.02 * max(points[-1, 0] for points in series.values()))
    if panel.from_zero:
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.tick_params(labelsize=8.5, color=GREY, which="both")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(shown) > 1:
        axes.legend(fontsize=8.5, frameon=False, loc="best")
