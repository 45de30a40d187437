# SPDX-License-Identifier: Apache-2.0
"""A density of one number -> the single normal distribution that is closest to it, by either direction of KL."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import rel_entr
from scipy.stats import norm

from benchmarks.latent_space.pictures import BLUE, GREY, ORANGE, new_figure, save_figure

Array = npt.NDArray[np.float64]

GRID = np.linspace(-8, 8, 1601)  # where densities are evaluated; integrals are sums over it
MEANS, STDS = np.linspace(-3, 3, 61), np.geomspace(0.2, 4, 61)  # the normal distributions that are tried


@dataclass(frozen=True)
class Fit:
    """A normal distribution, and how far it is from the density by the divergence that it minimises, in nats."""

    mean: float
    std: float
    divergence: float


def normal(mean: float, std: float) -> Array:
    """Return the density of N(mean, std^2) on `GRID`."""
    return np.asarray(norm.pdf(GRID, mean, std))


def two_modes() -> Array:
    """Return the density in docs/vae.md, on `GRID`: two normal distributions, 40 % and 60 %."""
    return np.asarray(0.4 * normal(-1.6, 0.5) + 0.6 * normal(1.6, 0.5))


def kl(one: Array, other: Array) -> float:
    """Return KL(one || other) of two densities on `GRID`, in nats."""
    return float(rel_entr(one, np.maximum(other, np.finfo(float).tiny)).sum() * (GRID[1] - GRID[0]))


def closest(density: Array, *, reverse: bool) -> Fit:
    """Map a density p on `GRID` to the normal distribution q that is closest to it.

    `reverse` minimises KL(q || p), as a VAE does with its prior as p; else KL(p || q), as maximum likelihood does.
    """
    fits = []
    for mean in MEANS:
        for std in STDS:
            q = normal(float(mean), float(std))
            fits.append(Fit(float(mean), float(std), kl(q, density) if reverse else kl(density, q)))
    return min(fits, key=lambda fit: fit.divergence)


def draw(path: Path) -> dict[str, Fit]:
    """Draw a density with two modes and the closest normal distribution by either direction; return the two."""
    density = two_modes()
    fits = {f"KL({name}) smallest": closest(density, reverse=name == "q ‖ p") for name in ("q ‖ p", "p ‖ q")}
    figure = new_figure(2.6, width=7.5)
    for axes, (name, fit), colour in zip(figure.subplots(1, 2, sharey=True), fits.items(), (BLUE, ORANGE), strict=True):
        axes.fill_between(GRID, density, color=GREY, alpha=0.4, lw=0, label="p, two modes")
        axes.plot(GRID, normal(fit.mean, fit.std), color=colour, lw=2, label="q, one normal distribution")
        axes.set_title(f"{name}: mean {fit.mean:.2f}, std {fit.std:.2f}", fontsize=9, loc="left")
        axes.set(xlim=(-5, 5), ylim=(0, 0.95), yticks=[])
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=8, loc="upper left")
    save_figure(figure, path)
    return fits
