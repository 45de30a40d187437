# SPDX-License-Identifier: Apache-2.0
"""A VAE at work and a few images -> the spread of its scaled latents, which tells SD 1.x and SDXL weights apart.

Both have the same network, and the factor of each makes the spread of its latents about 1 on photographs. With the
factor of the other the spread is 0.13025 / 0.18215 = 0.72 or 1.4, and every image of a pipeline is washed out or burnt.
"""

import logging

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from latentwire_codec.checkpoints.families import FAMILIES, candidates
from latentwire_codec.runtime.autoencoder import Autoencoder

log = logging.getLogger("latentwire")

IMAGES, SIDE = 4, 96
LEAVES = 200
# From the geometric middle between 1 and the spread of a mix-up to as far on the other side of that spread.
LOW, HIGH = (0.60, 0.845), (1.18, 1.66)
FACTORS = {
    family.name: family.scaling.scale for family in FAMILIES if family.scaling and family.name in {"sd1", "sdxl"}
}


def leaves(count: int = IMAGES, side: int = SIDE) -> Tensor:
    """Make images with the statistics of photographs, the same ones each time: float32 (count,3,side,side) in [-1,1].

    Dead leaves: discs that cover each other, of random colours and of radii r with density r^-3. Like photographs
    they have edges, flat parts and a power spectrum of about 1/f^2; no photograph needs to come with the package.

    Source: Lee, Mumford and Huang, Occlusion models for natural images (IJCV 41, 2001).
    """
    rng = np.random.Generator(np.random.Philox(7))
    # Drawn at twice the size, so that edges are as soft as a camera's.
    rows, columns = np.mgrid[: 2 * side, : 2 * side]
    images = np.zeros((count, 3, 2 * side, 2 * side), np.float32)
    for image in images:
        radii = side / np.sqrt(1 + rng.random(LEAVES) * (8**2 - 1))
        centres = rng.uniform(-side / 2, side * 5 / 2, (LEAVES, 2))
        # Brightness varies more than colour does.
        colours = rng.uniform(-0.7, 0.7, (LEAVES, 1)) + rng.normal(0, 0.15, (LEAVES, 3))
        for radius, (row, column), colour in zip(radii, centres, colours, strict=True):
            inside = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
            image[:, inside] = np.clip(colour, -1, 1)[:, None]
    return avg_pool2d(torch.from_numpy(images), 2)


def scaled_spread(autoencoder: Autoencoder, images: Tensor) -> float:
    """Map images (B,3,H,W) in [-1,1] to the standard deviation of their scaled latents, over all of them."""
    return float(autoencoder.to_scaled(autoencoder.encode(images).mode()).std())


def mixed_up(spread: float, scale: tuple[float, ...]) -> str:
    """Map the spread of scaled latents and their scale to the family that fits better; "": the scale is right."""
    if scale == FACTORS["sdxl"] and LOW[0] < spread < LOW[1]:
        return "sd1"
    if scale == FACTORS["sd1"] and HIGH[0] < spread < HIGH[1]:
        return "sdxl"
    return ""


def warn_of_mix_up(source: str, autoencoder: Autoencoder) -> None:
    """Log a warning, which names the source, where a VAE that may be SD 1.x's or SDXL's has the other's scale."""
    spec = autoencoder.spec
    if not {family.name for family in candidates(spec.class_name, spec.config)}.issuperset(FACTORS):
        return
    spread = scaled_spread(autoencoder, leaves())
    rather = mixed_up(spread, spec.scale)
    if rather:
        log.warning(
            "%s: its latents, scaled by %g, have the standard deviation %.2f on a few images; about 1 is right. Its "
            "weights look like %s's: if they are, load it with scale %g and latent_space %s",
            source, spec.scale[0], spread, rather, FACTORS[rather][0], rather,
        )  # fmt: skip
