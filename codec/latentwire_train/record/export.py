# SPDX-License-Identifier: Apache-2.0
"""A trained network and its latents -> a folder in diffusers' format, scaling factor included.

    FOLDER/config.json                              the class, its options, scaling_factor
    FOLDER/diffusion_pytorch_model.safetensors      the tensors, named as the class names them
    FOLDER/README.md                                the model card

It is written without diffusers.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from latentwire_core.files import write_whole
from latentwire_train.networks import Network


@dataclass(frozen=True)
class LatentMoments:
    """Mean and spread of the latents of a data set."""

    mean: tuple[float, ...]  # the mean of each channel
    std: tuple[float, ...]  # the standard deviation of each channel
    # 1 / the standard deviation of all latents together: scaled = raw * scaling_factor has variance 1 (Rombach et al.,
    # arXiv 2112.10752, appendix G).
    scaling_factor: float


@torch.no_grad()
def measure_latents(encoder: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> LatentMoments:
    """Map batches of images (B,3,H,W) in [-1,1] to the moments of samples of their posteriors.

    The encoder gives means and log-variances, (B,2C,h,w) together.

    The variance of a sample is the variance of the mean plus the variance of the posterior, so no sample is drawn.

    Raises:
        ValueError: there is no batch.
    """
    count, total, squares = 0, torch.zeros(0), torch.zeros(0)
    for images in batches:
        mean, logvar = encoder(images).double().cpu().chunk(2, dim=1)
        mean, logvar = (part.transpose(0, 1).flatten(1) for part in (mean, logvar))
        count += mean.shape[1]
        total = mean.sum(1) + (total if len(total) else 0)
        squares = (mean.square() + logvar.exp()).sum(1) + (squares if len(squares) else 0)
    if not count:
        raise ValueError("there is no image to measure the latents of")
    centre = total / count
    variance = squares / count - centre.square()
    pooled = squares.sum() / (count * len(squares)) - (total.sum() / (count * len(total))).square()
    return LatentMoments(
        tuple(centre.tolist()), tuple(variance.clamp(min=0).sqrt().tolist()), 1 / max(1e-6, pooled.sqrt().item())
    )


def save_network(
    folder: Path, network: Network, weights: Mapping[str, Tensor], extra: Mapping[str, Any], card: str
) -> None:
    """Write a folder that `latentwire serve --model` and diffusers' `from_pretrained` load.

    The network gives class and configuration, `extra` further entries of config.json, `card` the text of README.md.
    Each version of the folder is made beside it and takes its place by renaming. A reader finds the old version or the
    new version whole; for the moment between two renames the folder is missing.

    Raises:
        OSError: the folder cannot be written.
    """
    config = {"_class_name": network.class_name, **network.config, **extra}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    fresh, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("new", "old"))
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    write_whole(fresh / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    write_whole(fresh / "diffusion_pytorch_model.safetensors", save(tensors, {"format": "pt"}))
    write_whole(fresh / "README.md", card.encode())
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
