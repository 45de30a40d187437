# SPDX-License-Identifier: Apache-2.0
"""The name of a network, or its folder -> the network as diffusers loads it, for benchmarks of speed.

Two networks are made here with random weights: speed does not depend on weights, and nothing is downloaded.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor

from latentwire_codec.checkpoints.families import SD_WIDTHS
from latentwire_codec.checkpoints.folder import find_folder
from latentwire_codec.networks import pipeline_vae

BUNDLED, SD_SIZE, TINY = "f8c4", "sd-size", "tiny"
TRIAL_SIDE = 64
# Standard deviations, about those of Stable Diffusion's VAE on photographs: raw latents, and images in [-1, 1].
LATENT_SPREAD, IMAGE_SPREAD = 5.0, 0.5


@dataclass(frozen=True)
class Network:
    """A network on disk."""

    name: str  # its name in tables
    source: str  # what `load_autoencoder` takes; a folder in diffusers' format, or a bundled name

    def module(self) -> Any:
        """Load it as diffusers does: float32, contiguous, on the CPU; in eval mode."""
        return self._class.from_pretrained(find_folder(self.source)).eval()

    def empty(self) -> Any:
        """Build it without weights, to count its arithmetic."""
        with torch.device("meta"):
            return self._class.from_config(self._config).eval()

    @property
    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((find_folder(self.source) / "config.json").read_text(encoding="utf-8"))
        return config

    @property
    def _class(self) -> Any:
        name = self._config["_class_name"]
        return getattr(pipeline_vae, name, None) or getattr(diffusers, name)


def prepare(name: str, folder: Path) -> Network:
    """Map a name or a folder to a network; a network with random weights is written below `folder`.

    Raises:
        UnknownModel: no network has this name.
    """
    if name not in {SD_SIZE, TINY}:
        find_folder(name)
        return Network(Path(name).name, name)
    target = folder / name
    if not target.exists():
        torch.manual_seed(0)
        network = AutoencoderTiny() if name == TINY else random_autoencoder_kl(SD_WIDTHS)
        network.save_pretrained(target)
    return Network(name, str(target))


@torch.no_grad()
def random_autoencoder_kl(widths: Sequence[int], **config: Any) -> Any:
    """Build an AutoencoderKL with random weights whose latents and images spread like those of a trained VAE.

    Half precision then rounds as it does for photographs, and errors are not flattered: the last layers are scaled.
    `widths` are channels, from the full resolution to the lowest; `config` goes to the class.
    """
    network = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        block_out_channels=list(widths),
        **{"layers_per_block": 2, "latent_channels": 4, **config},
    ).eval()
    images = torch.rand(1, 3, TRIAL_SIDE, TRIAL_SIDE) * 2 - 1
    mean = network.encode(images).latent_dist.mean
    half = mean.shape[1]
    _rescale(network.quant_conv, slice(0, half), LATENT_SPREAD / mean.std())
    sample = network.decode(network.encode(images).latent_dist.mean).sample
    _rescale(network.decoder.conv_out, slice(None), IMAGE_SPREAD / sample.std())
    return network


def _rescale(layer: Any, outputs: slice, factor: Tensor) -> None:
    for parameter in (layer.weight, layer.bias):
        parameter[outputs] *= factor
