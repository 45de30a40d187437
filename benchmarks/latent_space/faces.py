# SPDX-License-Identifier: Apache-2.0
"""Models of drawn faces -> pictures: the faces, reconstructions, prior samples, latents, attributes, edits, a morph."""

from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist

import numpy as np
from matplotlib.axes import Axes

from benchmarks.latent_space.attributes import CONTROL, STRENGTHS, fitted_names
from benchmarks.latent_space.comparison import SEED, Findings
from benchmarks.latent_space.datasets import Dataset
from benchmarks.latent_space.models import Model, Pixels
from benchmarks.latent_space.pictures import (
    BLUE,
    GREY,
    ORANGE,
    mosaic,
    new_figure,
    save_figure,
    show_rows,
)
from latentwire_cli.picture import sheet, to_gif
from latentwire_core.files import write_whole
from latentwire_lab.attributes import Attributes
from latentwire_lab.paths import along_line, along_sphere, prior_samples

COLUMNS = 10
MORPH_FRAMES = 11
HISTOGRAMS = 4


def draw_data(data: Dataset, path: Path) -> None:
    """Draw training images."""
    figure = new_figure(2.0)
    count = 3 * 14
    axes = figure.subplots()
    axes.imshow(mosaic(data.train[:count], 14))
    axes.set_axis_off()
    save_figure(figure, path)


def draw_reconstructions(models: Mapping[str, Model], data: Dataset, path: Path) -> None:
    """Draw test images and each model's reconstructions."""
    originals = data.test[:COLUMNS]
    rows = [originals, *(model.reconstruct(originals) for model in models.values())]
    figure = new_figure(0.86 * len(rows))
    show_rows(figure, rows, ["original", *models])
    save_figure(figure, path)


def draw_samples(models: Mapping[str, Model], findings: Mapping[str, Findings], path: Path) -> None:
    """Draw images that each model decodes from N(0, I), and from a normal distribution fitted to its latents."""
    rows, labels = [], []
    for name, model in models.items():
        rows.append(model.decode(prior_samples(model.info, range(COLUMNS))))
        rows.append(model.decode_points(findings[name].gaussian.draw(COLUMNS, SEED)))
        labels += [f"{name}\nN(0, I)", f"{name}\nfitted normal"]
    figure = new_figure(0.86 * len(rows))
    show_rows(figure, rows, labels)
    save_figure(figure, path)


def draw_latents(findings: Mapping[str, Findings], path: Path) -> None:
    """Draw histograms of the most active dimensions against the normal curve, and each dimension's KS distance."""
    figure = new_figure(2.0 * len(findings))
    grid = figure.subplots(len(findings), HISTOGRAMS + 1, width_ratios=[1] * HISTOGRAMS + [1.6])
    for row, (name, found) in zip(grid, findings.items(), strict=True):
        statistics = found.statistics
        chosen = np.argsort(-statistics.mean_variance)[:HISTOGRAMS]
        for panel, dimension in zip(row, chosen, strict=False):
            _histogram(panel, statistics.samples[dimension])
            panel.set_title(f"dimension {dimension}, KS {statistics.ks[dimension]:.2f}", fontsize=8)
        row[0].set_ylabel(name, fontsize=9)
        row[-1].bar(np.arange(len(statistics.ks)), np.sort(statistics.ks)[::-1], color=BLUE, width=1)
        row[-1].set_ylim(0, 0.5)
        row[-1].set_title("KS distance of each dimension, sorted", fontsize=8)
        row[-1].tick_params(labelsize=7)
    save_figure(figure, path)


def _histogram(panel: Axes, samples: np.typing.NDArray[np.float32]) -> None:
    reach = max(3.5, 3 * float(samples.std()))
    panel.hist(samples, bins=50, range=(-reach, reach), density=True, color=BLUE, alpha=0.75)
    curve = np.linspace(-reach, reach, 201)
    panel.plot(curve, [NormalDist().pdf(point) for point in curve], color=ORANGE, lw=1.5)
    panel.set_yticks([])
    panel.tick_params(labelsize=7)


def draw_attributes(attributes: Attributes, path: Path) -> None:
    """Draw the balanced accuracy of each vector on test images, random labels included, with its interval."""
    names = [*fitted_names(attributes), *([CONTROL] if CONTROL in attributes.vectors else [])]
    figure = new_figure(0.4 + 0.2 * len(names), width=6.5)
    axes = figure.subplots()
    for place, name in enumerate(names):
        share = attributes.vectors[name].held_out.balanced_accuracy
        colour = ORANGE if name == CONTROL else BLUE
        axes.plot([100 * share.low, 100 * share.high], [place, place], color=colour, lw=2, solid_capstyle="butt")
        axes.plot(100 * share.value, place, "o", ms=4, color=colour)
    axes.axvline(50, color=GREY, lw=1, ls="--")
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("balanced accuracy on test images, %, with 95 % intervals (50 %: a guess)", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    save_figure(figure, path)


def draw_edits(rows: Mapping[str, Pixels], attributes: Attributes, path: Path) -> None:
    """Draw a face with each attribute vector added, in `STRENGTHS`."""
    labels = []
    for name in rows:
        share = attributes.vectors[name].held_out.balanced_accuracy
        labels.append(f"{name.replace('_', ' ')}\n{100 * share.value:.0f} %")
    figure = new_figure(1.0 * len(rows) + 0.2, width=5.9)
    show_rows(figure, list(rows.values()), labels, [f"{strength:+g}" if strength else "0" for strength in STRENGTHS])
    save_figure(figure, path)


def draw_morph(model: Model, data: Dataset, still: Path, moving: Path) -> None:
    """Draw the path from one test face to another, along the line and along the sphere, as PNG and GIF."""
    start, end = model.encode(data.test[:2]).mode().split()
    paths = {
        "line": model.decode(along_line(start, end, MORPH_FRAMES)),
        "sphere": model.decode(along_sphere(start, end, MORPH_FRAMES)),
    }
    figure = new_figure(1.6)
    show_rows(figure, [*paths.values()], list(paths))
    save_figure(figure, still)
    large = {name: frames.repeat(2, axis=1).repeat(2, axis=2) for name, frames in paths.items()}
    pairs = zip(*large.values(), strict=True)
    write_whole(moving, to_gif([sheet([pair], captions=[f"along the {name}" for name in paths]) for pair in pairs]))
