# SPDX-License-Identifier: Apache-2.0
"""Small models of handwritten digits -> a picture of two dimensions, and a picture of the effect of the KL's weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import SubFigure

from benchmarks.latent_space.datasets import Dataset, Plan
from benchmarks.latent_space.models import Model, Pixels, Recipe
from benchmarks.latent_space.pictures import BLUE, GREEN, ORANGE, markdown, mosaic, new_figure, save_figure, show
from latentwire_codec.metrics.scores import psnr
from latentwire_lab.paths import prior_samples
from latentwire_lab.statistics import posterior_statistics

DIMENSIONS = 16
VAE, AE = "digits-vae", "digits-ae"
PLANE_VAE, PLANE_AE = "plane-vae", "plane-ae"
WEIGHT = 0.1  # weight of the KL divergence, per value of an image, in the models that do not vary it

PLANE_SIDE = 13
REACH = 2.5  # standard deviations on each side of the mean that a plane shows
SHOWN_SAMPLES = 20


@dataclass(frozen=True)
class Weighed:
    """A model that was trained with a weight of the KL divergence."""

    weight: float
    psnr: float  # PSNR of reconstructions of the test images, dB, mean
    kl: float  # KL divergence of the training images, nats per image
    active: int  # number of active dimensions among `DIMENSIONS`
    samples: Pixels  # decoded samples of N(0, I), uint8 (N,S,S,3)


def recipes(data: Dataset, plan: Plan) -> dict[str, Recipe]:
    """Return the recipes of all models of digits; equal weights share a model."""

    def recipe(dimensions: int, weight: float) -> Recipe:
        settings = (f"model.options={{latent_dim = {dimensions}}}", f"loss.weights.kl={weight}")
        return Recipe(data.folder, data.side, plan.digit_steps, plan.batch_size, (*settings, "data.held_out_share=0.1"))

    return {
        AE: recipe(DIMENSIONS, WEIGHT).plain(),
        PLANE_VAE: recipe(2, WEIGHT),
        PLANE_AE: recipe(2, WEIGHT).plain(),
        **{weighed_name(weight): recipe(DIMENSIONS, weight) for weight in (WEIGHT, *plan.weights)},
    }


def weighed_name(weight: float) -> str:
    """Return the name of the model that was trained with a weight."""
    return VAE if weight == WEIGHT else f"{VAE}-{weight:g}"


def weigh(models: Mapping[str, Model], data: Dataset, weights: Sequence[float]) -> list[Weighed]:
    """Measure the model of each weight of the KL divergence."""
    found = []
    for weight in weights:
        model = models[weighed_name(weight)]
        statistics = posterior_statistics([model.encode(data.train)])
        quality = float(np.mean(list(map(psnr, data.test, model.reconstruct(data.test)))))
        samples = model.decode(prior_samples(model.info, range(SHOWN_SAMPLES)))
        found.append(Weighed(weight, quality, statistics.total_kl or 0.0, int(statistics.active.sum()), samples))
    return found


def draw_weights(found: Sequence[Weighed], path: Path) -> None:
    """Draw PSNR, KL and active dimensions over the weight, and samples of each."""
    figure = new_figure(4.4)
    left, right = figure.subfigures(1, 2, width_ratios=[5, 4], squeeze=False).flat
    panels = left.subplots(3, 1, sharex=True)
    weights = [each.weight for each in found]
    shown = {"psnr": "PSNR, dB", "kl": "KL, nats\nper image", "active": f"active\nof {DIMENSIONS}"}
    for panel, (field, name), colour in zip(panels, shown.items(), (BLUE, ORANGE, GREEN), strict=True):
        values = [getattr(each, field) for each in found]
        panel.plot(weights, values, "o-", color=colour)
        panel.set_xscale("log")
        panel.set_ylabel(name, fontsize=9)
        panel.tick_params(labelsize=8)
        panel.set_ylim(0, 1.2 * max(*values, 1))
        panel.grid(alpha=0.3)
    panels[-1].set_xlabel("weight of the KL divergence", fontsize=9)
    panels[0].set_title("16 dimensions, handwritten digits", fontsize=9, loc="left")
    rows = right.subplots(len(found), 1, squeeze=False).flat
    for panel, each in zip(rows, found, strict=True):
        show(panel, mosaic(each.samples, SHOWN_SAMPLES // 2), f"samples of N(0, I), weight {each.weight:g}")
    save_figure(figure, path)


def draw_planes(models: Mapping[str, Model], data: Dataset, path: Path) -> None:
    """Draw the two dimensions of an autoencoder and a VAE: the places of digits, and the decoded places."""
    figure = new_figure(8.6)
    upper, lower = figure.subfigures(2, 1, squeeze=False).flat
    _plane(upper, models[PLANE_AE], data, "autoencoder")
    _plane(lower, models[PLANE_VAE], data, "VAE")
    save_figure(figure, path)


def _plane(figure: SubFigure, model: Model, data: Dataset, title: str) -> None:
    points = model.means(data.train)
    left, right = figure.subplots(1, 2)
    centre, reach = points.mean(axis=0), REACH * points.std(axis=0)
    for digit, labels in data.train_labels.items():
        chosen = points[labels > 0]
        left.scatter(chosen[:, 0], chosen[:, 1], s=5, label=digit, color=f"C{digit}", linewidths=0)
    left.set_title(f"{title}: posterior means of the training digits", fontsize=9, loc="left")
    left.legend(fontsize=7, markerscale=2, ncol=2, loc="upper right", handletextpad=0, borderpad=0.3)
    left.tick_params(labelsize=8)
    axes = [np.linspace(middle - far, middle + far, PLANE_SIDE) for middle, far in zip(centre, reach, strict=True)]
    grid = np.stack(np.meshgrid(axes[0], axes[1][::-1]), axis=-1).reshape(-1, 2)
    edges = [(axis[0] - (axis[1] - axis[0]) / 2, axis[-1] + (axis[1] - axis[0]) / 2) for axis in axes]
    right.imshow(mosaic(model.decode_points(grid), PLANE_SIDE, gap=0), extent=(*edges[0], *edges[1]), aspect="auto")
    right.set_title("decoded at each place", fontsize=9, loc="left")
    right.tick_params(labelsize=8)
    left.set_xlim(edges[0])
    left.set_ylim(edges[1])


def table(found: Sequence[Weighed]) -> str:
    """Map the models to a Markdown table."""
    rows = [
        [f"{each.weight:g}", f"{each.psnr:.2f}", f"{each.kl:.1f}", f"{each.active} of {DIMENSIONS}"] for each in found
    ]
    return markdown(["weight of the KL divergence", "PSNR, dB", "KL, nats per image", "active dimensions"], rows)


def numbers(found: Weighed) -> dict[str, float]:
    """Map a model's figures to plain values."""
    return {"weight": found.weight, "psnr": found.psnr, "kl_nats": found.kl, "active_dimensions": found.active}
