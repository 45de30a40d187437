# SPDX-License-Identifier: Apache-2.0
"""Models of drawn faces -> attribute vectors and edits with them; pictures of faces, samples, latents, a morph."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
from matplotlib.axes import Axes

from benchmarks.latent_space.comparison import SEED, Findings
from benchmarks.latent_space.datasets import Dataset
from benchmarks.latent_space.measures import distance
from benchmarks.latent_space.models import Model, Pixels
from benchmarks.latent_space.pictures import BLUE, GREY, ORANGE, draw_rows, mosaic, new_figure, save_figure, show
from latentwire_cli.picture import sheet, to_gif
from latentwire_core.files import write_whole
from latentwire_lab.attributes import Attributes
from latentwire_lab.fitting import fit_attributes, unusable
from latentwire_lab.paths import along_line, along_sphere, prior_samples

CONTROL = "random labels"
EDITED = ("Smiling", "Eyeglasses", "Wearing_Hat", "Blond_Hair", "Goatee", CONTROL)
STRENGTHS = (-2.0, -1.0, 0.0, 1.0, 2.0)
COLUMNS = 10
MORPH_FRAMES = 11
HISTOGRAMS = 4


def fit(found: Findings, data: Dataset) -> Attributes:
    """Fit a vector to each label of the training images, and to random ones; measure them on the test images."""
    values = np.concatenate([found.latents.values, found.test_latents.values])
    held_out = np.arange(len(values)) >= len(data.train)
    labels = {
        name: np.concatenate([known, data.test_labels[name]]).astype(np.int64)
        for name, known in data.train_labels.items()
    }
    labels[CONTROL] = np.where(np.random.default_rng(SEED).random(len(values)) < 0.5, 1, -1)
    for name in unusable(labels, held_out):
        del labels[name]
    return fit_attributes(replace(found.latents, values=values), labels, held_out)


def fitted_names(attributes: Attributes) -> list[str]:
    """Return the names of the vectors of true labels, the best first."""
    names = [name for name in attributes.vectors if name != CONTROL]
    return sorted(names, key=lambda name: -attributes.vectors[name].held_out.balanced_accuracy.value)


def mean_accuracy(attributes: Attributes) -> float:
    """Return the mean balanced accuracy of the vectors of true labels."""
    names = fitted_names(attributes)
    return float(np.mean([attributes.vectors[name].held_out.balanced_accuracy.value for name in names]))


def edits(model: Model, attributes: Attributes, face: Pixels) -> dict[str, Pixels]:
    """Map a face (S,S,3) to the images (K,S,S,3) that `STRENGTHS` of each of `EDITED` make of it."""
    latents = model.encode(face[np.newaxis]).mode()
    rows = {}
    for name in EDITED:
        if name in attributes.vectors:
            edited = [attributes.edit(latents, {name: strength}).values for strength in STRENGTHS]
            rows[name] = model.decode(replace(latents, values=np.concatenate(edited)))
    return rows


def plain_face(model: Model, data: Dataset) -> Pixels:
    """Return the best reconstructed test face among the faces with the fewest edited attributes."""
    counts = np.sum([values > 0 for name, values in data.test_labels.items() if name in EDITED], axis=0)
    plain = data.test[counts == counts.min()]
    face: Pixels = plain[np.argmin(distance(model.reconstruct(plain), plain))]
    return face


def accuracies(attributes: Attributes) -> dict[str, dict[str, float]]:
    """Map vectors to their balanced accuracies on test images, 0..1, with the ends of the intervals."""
    return {name: asdict(vector.held_out.balanced_accuracy) for name, vector in attributes.vectors.items()}


def draw_data(data: Dataset, path: Path) -> None:
    """Draw training images."""
    figure = new_figure(2.0)
    show(figure.subplots(), mosaic(data.train[: 3 * 14], 14))
    save_figure(figure, path)


def draw_reconstructions(models: Mapping[str, Model], data: Dataset, path: Path) -> None:
    """Draw test images and each model's reconstructions."""
    originals = data.test[:COLUMNS]
    rows = [originals, *(model.reconstruct(originals) for model in models.values())]
    draw_rows(path, rows, ["original", *models])


def draw_samples(models: Mapping[str, Model], findings: Mapping[str, Findings], path: Path) -> None:
    """Draw images that each model decodes from N(0, I), and from a normal distribution fitted to its latents."""
    rows, labels = [], []
    for name, model in models.items():
        rows.append(model.decode(prior_samples(model.info, range(COLUMNS))))
        rows.append(model.decode_points(findings[name].gaussian.draw(COLUMNS, SEED)))
        labels += [f"{name}\nN(0, I)", f"{name}\nfitted normal"]
    draw_rows(path, rows, labels)


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
    captions = [f"{strength:+g}" if strength else "0" for strength in STRENGTHS]
    draw_rows(path, list(rows.values()), labels, captions, row_height=1.04, width=5.9)


def draw_morph(model: Model, data: Dataset, still: Path, moving: Path) -> None:
    """Draw the path from one test face to another, along the line and along the sphere, as PNG and GIF."""
    start, end = model.encode(data.test[:2]).mode().split()
    ways = {"line": along_line, "sphere": along_sphere}
    paths = [model.decode(way(start, end, MORPH_FRAMES)) for way in ways.values()]
    draw_rows(still, paths, list(ways), row_height=0.8)
    pairs = zip(*(frames.repeat(2, axis=1).repeat(2, axis=2) for frames in paths), strict=True)
    write_whole(moving, to_gif([sheet([pair], captions=[f"along the {name}" for name in ways]) for pair in pairs]))
