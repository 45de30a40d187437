# SPDX-License-Identifier: Apache-2.0
"""A model and a data set -> measurements of its latent space, the same for an autoencoder and a VAE."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from benchmarks.latent_space.datasets import Dataset, Plan
from benchmarks.latent_space.measures import Gaussian, components, distance, frechet, nearest, steps, unevenness
from benchmarks.latent_space.models import Model, Pixels
from latentwire_codec.metrics.scores import psnr
from latentwire_core.latents import Latents
from latentwire_lab.paths import along_line, along_sphere, prior_samples
from latentwire_lab.statistics import LatentStatistics, posterior_statistics

Array = npt.NDArray[np.float64]
Path = Callable[[Latents, Latents, int], Latents]

FRAMES = 17  # frames of an interpolation, both ends included
# Lengths of a step away from an image's latents, in standard deviations per dimension.
STEPS = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
COMPONENTS = 32  # number of features of an image in the Frechet distance
POINT_LOGVAR = -25.0  # a posterior with a log-variance below it is a point: the posterior of a plain autoencoder
SEED = 0


@dataclass(frozen=True)
class Likeness:
    """How much some images resemble real images, on average."""

    nearest: float  # distance to the nearest training image, grey levels
    frechet: float  # Frechet distance to the test images in their principal components, squared grey levels


@dataclass(frozen=True, eq=False)
class Findings:
    """Measurements of one model."""

    latents: Latents  # modes of the posteriors of the training images
    test_latents: Latents  # modes of the posteriors of the test images
    statistics: LatentStatistics  # statistics of the posteriors of the training images
    psnr: float  # PSNR of the reconstructions of the test images, dB, mean over images
    real: Likeness  # the test images; their `frechet` is that of as many training images as samples
    reconstructed: Likeness  # the reconstructions of the test images
    standard: Likeness  # decoded samples of N(0, I)
    fitted: Likeness  # decoded samples of a normal distribution with mean and covariance of the latents
    middle: Likeness  # decoded points half-way between two test images
    line: float  # unevenness of the paths between pairs of test images along the line, mean
    sphere: float  # unevenness of the paths along the sphere, mean
    pace: tuple[float, ...]  # length of each step of the paths along the line, in mean steps, mean over the paths
    astray: tuple[float, ...]  # distance, for each of `STEPS`, of the decoded image to the image that was left
    away: tuple[float, ...]  # `nearest`, for each of `STEPS`, of the decoded images
    gaussian: Gaussian  # the fitted normal distribution
    is_plain: bool  # whether the model is an autoencoder, whose posteriors are points


def examine(model: Model, data: Dataset, plan: Plan) -> Findings:
    """Measure a vector model on the data set that it was trained on."""
    posteriors = model.encode(data.train)
    statistics = posterior_statistics([posteriors])
    gaussian = Gaussian.fit(statistics.samples.T)
    features = components(data.test, COMPONENTS)
    known = features(data.test)

    def likeness(images: Pixels) -> Likeness:
        return Likeness(float(nearest(images, data.train).mean()), frechet(features(images), known))

    latents = model.encode(data.test).mode()
    reconstructions = model.decode(latents)
    real = likeness(data.test)
    others = features(data.train[: plan.samples])
    lines, spheres = (_paths(model, latents, plan.pairs, path) for path in (along_line, along_sphere))
    astray, away = _step(model, data, latents, gaussian, plan.stepped)
    return Findings(
        latents=posteriors.mode(),
        test_latents=latents,
        statistics=statistics,
        psnr=float(np.mean(list(map(psnr, data.test, reconstructions)))),
        real=replace(real, frechet=frechet(others, known)),
        reconstructed=likeness(reconstructions),
        standard=likeness(model.decode(prior_samples(model.info, range(plan.samples)))),
        fitted=likeness(model.decode_points(gaussian.draw(plan.samples, SEED))),
        middle=likeness(lines[:, FRAMES // 2]),
        line=float(unevenness(lines).mean()),
        sphere=float(unevenness(spheres).mean()),
        pace=tuple(np.mean([steps(path) for path in lines], axis=0).tolist()),
        astray=astray,
        away=away,
        gaussian=gaussian,
        is_plain=bool(posteriors.logvar is None or posteriors.logvar.max() <= POINT_LOGVAR),
    )


def _paths(model: Model, latents: Latents, pairs: int, path: Path) -> Pixels:
    """Map the latents of test images to the paths between pairs of them, uint8 (P,FRAMES,S,S,3)."""
    ends = latents.split()
    chosen = [(ends[2 * pair], ends[2 * pair + 1]) for pair in range(min(pairs, len(ends) // 2))]
    return np.stack([model.decode(path(start, end, FRAMES)) for start, end in chosen])


def _step(
    model: Model, data: Dataset, latents: Latents, gaussian: Gaussian, count: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Step away from test images in random directions; see `Findings`."""
    images = data.test[:count]
    points = latents.values[: len(images)].reshape(len(images), -1)
    directions = gaussian.steps(len(images), SEED + 1)
    rows = []
    for length in STEPS:
        decoded = model.decode_points(points + length * directions)
        rows.append((float(distance(decoded, images).mean()), float(nearest(decoded, data.train).mean())))
    astray, away = zip(*rows, strict=True)
    return astray, away
