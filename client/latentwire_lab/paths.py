# SPDX-License-Identifier: Apache-2.0
"""Two latents -> the latents between them; seeds -> latents drawn from the prior N(0, I)."""

from collections.abc import Sequence
from dataclasses import replace

import grpc
import numpy as np
import numpy.typing as npt

from latentwire_client.errors import LatentSpaceMismatch
from latentwire_client.info import ModelInfo
from latentwire_core.identity import Origin, same_space, space_in_words
from latentwire_core.kinds import LatentKind
from latentwire_core.latents import Latents
from latentwire_core.noise import seeded_noise

Vector = npt.NDArray[np.float64]

# Below this sine two directions are equal or opposite; the rest of their difference is rounding.
SAME_DIRECTION = 1e-8


def check_same_space(one: Origin, other: Origin) -> None:
    """Raise LatentSpaceMismatch for latents of two latent spaces, as a server does; an unknown origin is accepted."""
    if not same_space(one, other):
        raise LatentSpaceMismatch(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"one is of the latent space {space_in_words(one)}, the other of {space_in_words(other)}; "
            "numbers of two spaces don't mean the same: take both from one model",
        )


def along_line(start: Latents, end: Latents, steps: int) -> Latents:
    """Map two points to evenly spaced points on the straight line between them.

    Args:
        start: latents of one image; for moments the mean is taken.
        end: latents of one image, of the same shape, scale and latent space.
        steps: the number of points, both ends included, at least 2.

    Returns:
        float32 (steps,C,h,w): the first is exactly `start`, the last `end`; size and origin are those of `start`.

    Raises:
        LatentSpaceMismatch: the two are of different latent spaces.
        ValueError: the shapes or scales differ, there are several images in one, or fewer than 2 steps.
    """
    one, other = _ends(start, end, steps)
    return _points(start, end, _line(one, other, np.linspace(0, 1, steps)))


def along_sphere(start: Latents, end: Latents, steps: int) -> Latents:
    """Map two points to points between them on a sphere about the origin, spaced by equal angles.

    A sample of N(0, I) in d dimensions lies close to the sphere of radius sqrt(d). The line between two samples leaves
    the sphere; this path stays on it (Shoemake, Animating rotation with quaternion curves, 1985; White, Sampling
    generative networks, 2016). All numbers of the latents form one vector. Where the ends have different norms, the
    norm changes evenly. Opposite ends have no shortest path; the path then leads through the axis that is furthest from
    both. Where an end is zero, or the latents are one number, the path is the line.

    Arguments, result and errors are those of `along_line`.
    """
    one, other = _ends(start, end, steps)
    return _points(start, end, _arc(one, other, np.linspace(0, 1, steps)))


def prior_samples(model: ModelInfo, seeds: Sequence[int], image_size: tuple[int, int] | None = None) -> Latents:
    """Map seeds to raw latents drawn from N(0, I), the prior that a VAE is trained towards.

    The latents of each image are `seeded_noise` of its own seed, so they do not depend on the other seeds. Spatial
    latents are drawn independently at each position. The latents of real images are not independent: decoded samples
    show texture, not pictures.

    Args:
        model: a model of `Client.info`.
        seeds: a seed for each image, 0..2^64-1; at least one.
        image_size: (height, width) of the images; for a vector model None, or its own size.

    Returns:
        float32 (B,C,h,w) of the kind SAMPLE.

    Raises:
        ValueError: there is no seed, a seed or the size is out of range, or a vector model has another size.
    """
    if not seeds:
        raise ValueError("there are no seeds; give one for each image")
    size = image_size or model.fixed_size
    if size is None:
        raise ValueError(f"{model.name} makes images of any size; give image_size as (height, width)")
    if model.is_vector and size != model.fixed_size:
        raise ValueError(f"image size is (height, width) = {size}; {model.name} makes images of {model.fixed_size}")
    if min(size) < 1:
        raise ValueError(f"image size is (height, width) = {size}; each must be at least 1")
    height, width = (-(-side // model.downsample_factor) for side in size)  # 1 and 1 for a vector model
    return Latents(
        np.stack([seeded_noise(seed, (model.latent_channels, height, width)) for seed in seeds]),
        kind=LatentKind.SAMPLE,
        image_size=size,
        model=model.name,
        latent_space=model.latent_space,
        weights_digest=model.weights_digest,
    )


def _ends(start: Latents, end: Latents, steps: int) -> tuple[Vector, Vector]:
    """Check the two ends and map them to vectors of C*h*w numbers."""
    if steps < 2:
        raise ValueError(f"there are {steps} steps; 2 are needed, the two ends")
    if len(start) != 1 or len(end) != 1:
        raise ValueError(f"the ends are {len(start)} and {len(end)} images; take one of each, as Latents.split gives")
    if start.values.shape != end.values.shape:
        raise ValueError(
            f"the ends have the shapes {start.values.shape[1:]} and {end.values.shape[1:]}; encode both with one size"
        )
    if start.scaled != end.scaled:
        raise ValueError("one end is scaled and the other raw; encode both alike")
    check_same_space(start, end)
    one, other = (latents.values.astype(np.float64).ravel() for latents in (start, end))
    return one, other


def _points(start: Latents, end: Latents, path: Vector) -> Latents:
    """Map a path, (steps, C*h*w), to latents whose ends are exact."""
    values = path.astype(np.float32).reshape(-1, *start.values.shape[1:])
    values[0], values[-1] = start.values[0], end.values[0]
    return replace(start, values=values, logvar=None, kind=LatentKind.MODE)


def _line(one: Vector, other: Vector, parts: Vector) -> Vector:
    return np.outer(1 - parts, one) + np.outer(parts, other)


def _arc(one: Vector, other: Vector, parts: Vector) -> Vector:
    lengths = np.linalg.norm(one), np.linalg.norm(other)
    if not all(lengths):
        return _line(one, other, parts)
    first, last = one / lengths[0], other / lengths[1]
    cosine = first @ last
    aside = last - cosine * first  # orthogonal to the first; its length is the sine
    sine = np.linalg.norm(aside)
    if sine < SAME_DIRECTION:
        axis = np.argmin(np.abs(first))
        aside = -first[axis] * first
        aside[axis] += 1
    length = np.linalg.norm(aside)
    if not length:
        return _line(one, other, parts)
    angles = np.arctan2(sine, cosine) * parts[:, np.newaxis]
    radii = _line(np.atleast_1d(lengths[0]), np.atleast_1d(lengths[1]), parts)
    return np.asarray(radii * (np.cos(angles) * first + np.sin(angles) * aside / length))
