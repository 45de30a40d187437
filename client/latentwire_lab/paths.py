# SPDX-License-Identifier: Apache-2.0
"""Two latents -> the latents between them; seeds -> latents drawn from the prior N(0, I). numpy only."""

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

# Below this sine two directions are one, or opposite: what is left of their difference is rounding.
SAME_DIRECTION = 1e-8


def check_same_space(one: Origin, other: Origin) -> None:
    """Refuse what is of two latent spaces, as a server does; what is of unknown origin is let through.

    Raises:
        LatentSpaceMismatch: the two come from different spaces, by name or by weights.
    """
    if not same_space(one, other):
        raise LatentSpaceMismatch(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"one is of the latent space {space_in_words(one)}, the other of {space_in_words(other)}; "
            "numbers of two spaces don't mean the same: take both from one model",
        )


def along_line(start: Latents, end: Latents, steps: int) -> Latents:
    """Map two points to evenly spaced ones on the straight line between them.

    Args:
        start: of one image; of moments the mean is taken.
        end: likewise, of the same shape, scale and latent space.
        steps: the number of points, both ends included, 2 at least.

    Returns:
        float32 (steps,C,h,w): the first is `start` exactly, the last is `end`; size and origin are those of `start`.

    Raises:
        LatentSpaceMismatch: the two are of different latent spaces.
        ValueError: the shapes or scales differ, there are several images in one, or fewer than 2 steps.
    """
    one, other = _ends(start, end, steps)
    return _points(start, end, _line(one, other, np.linspace(0, 1, steps)))


def along_sphere(start: Latents, end: Latents, steps: int) -> Latents:
    """Map two points to ones between them on a sphere about the origin, spaced by equal angles.

    A sample of N(0, I) in d dimensions lies close to the sphere of radius sqrt(d), which the line between two of them
    leaves and this path does not (Shoemake, Animating rotation with quaternion curves, 1985; White, Sampling
    generative networks, 2016). All numbers of the latents are one vector here. Where the ends have different norms,
    the norm goes from one to the other evenly. Opposite ends have no shortest way: it then leads through the axis that
    is the furthest from both. Where an end is zero, or there is one number only, the path is the line.

    Args, returns and raises what `along_line` does.
    """
    one, other = _ends(start, end, steps)
    return _points(start, end, _arc(one, other, np.linspace(0, 1, steps)))


def prior_samples(model: ModelInfo, seeds: Sequence[int], image_size: tuple[int, int] | None = None) -> Latents:
    """Map seeds to latents drawn from N(0, I), the prior that a VAE is trained towards: raw ones, where it is stated.

    Each is `seeded_noise`, so that an image stays the same whatever is drawn beside it. Spatial latents are drawn at
    each position independently, which the latents of images never are: decoded they give texture.

    Args:
        model: of `Client.info`.
        seeds: one for each image, 0..2^64-1; one at least.
        image_size: (height, width) of the images; of a vector model None, or its own.

    Returns:
        float32 (B,C,h,w) of the kind SAMPLE.

    Raises:
        ValueError: a seed or the size is out of range, there is none, or a vector model has another size.
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
    height, width = (-(-side // model.downsample_factor) for side in size)  # of a vector model 1 and 1
    return Latents(
        np.stack([seeded_noise(seed, (model.latent_channels, height, width)) for seed in seeds]),
        kind=LatentKind.SAMPLE,
        image_size=size,
        model=model.name,
        latent_space=model.latent_space,
        weights_digest=model.weights_digest,
    )


def _ends(start: Latents, end: Latents, steps: int) -> tuple[Vector, Vector]:
    """Map the two ends to vectors of C*h*w numbers, or refuse them."""
    if steps < 2:
        raise ValueError(f"there are {steps} steps; 2 are needed, the ends themselves")
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
    return (1 - parts)[:, np.newaxis] * one + parts[:, np.newaxis] * other


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
