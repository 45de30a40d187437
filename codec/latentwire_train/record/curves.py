# SPDX-License-Identifier: Apache-2.0
"""The rows of a training run's log -> one picture of its curves."""

import io
from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from latentwire_train.config import LossWeights
from latentwire_train.record.log import Row

Points = npt.NDArray[np.float64]

MAX_POINTS = 200
"""The most points of a line; more points are averaged, in groups of equal number."""
LOG_SCALE_FROM = 5.0
"""A panel of losses gets a logarithmic axis where its largest number is this many times its smallest."""

ADVERSARIAL = ("adversarial", "feature_matching", "discriminator")
PARTS = [field.name for field in fields(LossWeights) if field.name not in ("kl", *ADVERSARIAL)]
LOSS, KL = "Loss: each part before its weight, and the weighted total", "KL divergence to N(0, I), nats per image"
PANELS = {
    LOSS: ["train/total", "held_out/loss", *(f"train/{part}" for part in PARTS)],
    "Adversarial loss": [f"train/{part}" for part in ADVERSARIAL],
    "PSNR, dB": ["train/psnr", "held_out/psnr"],
    KL: ["train/kl", "held_out/kl"],
    "Learning rate": ["learning_rate"],
    "Speed, images per second": ["images_per_s"],
}
"""Title -> figures; a figure that was never measured is left out, and so is a panel without figures."""


def draw_curves(rows: Sequence[Row]) -> bytes | None:
    """Map rows to a PNG file, or to None where no figure can be drawn.

    Measurements on held-out images are dots. Numbers that are not finite are left out.
    """
    series = _series(rows)
    panels = {title: shown for title, names in PANELS.items() if (shown := [name for name in names if name in series])}
    if not panels:
        return None
    lines = -(-len(panels) // 2)
    figure = Figure(figsize=(11, 2.8 * lines), dpi=110, layout="constrained")
    for place, (title, names) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(lines, min(2, len(panels)), place)
        axes.set_title(title, fontsize=10, loc="left")
        _draw(axes, {name: series[name] for name in names})
        if title in (LOSS, KL):
            values = np.concatenate([series[name][:, 1] for name in names])
            if values.min() > 0 and values.max() > LOG_SCALE_FROM * values.min():
                axes.set_yscale("log")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _series(rows: Sequence[Row]) -> dict[str, Points]:
    """Map rows to the points (n,2) of each figure, step and value, finite and at most `MAX_POINTS`."""
    collected: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, value in row.figures.items():
            if np.isfinite(value):
                collected.setdefault(name, []).append((row.step, value))
    return {name: _thinned(np.array(points)) for name, points in collected.items()}


def _thinned(points: Points) -> Points:
    group = -(-len(points) // MAX_POINTS)
    return np.array([points[index : index + group].mean(axis=0) for index in range(0, len(points), group)])


def _draw(axes: Axes, lines: dict[str, Points]) -> None:
    for name, points in lines.items():
        dots = name.startswith("held_out/") or len(points) == 1
        axes.plot(*points.T, "o:" if dots else "-", markersize=3.5, linewidth=1.3, label=name.replace("_", " "))
    axes.set_xlabel("step", fontsize=9)
    axes.tick_params(labelsize=9)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
