# SPDX-License-Identifier: Apache-2.0
"""Tests of trained networks as folders."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from latentwire_train.config import Architecture, ModelConfig
from latentwire_train.networks import build_network
from latentwire_train.record.export import measure_latents, save_network


class Fixed(nn.Module):
    """An encoder whose posterior is N(3 x, e^-2) in channel 0 and N(-1, 1) in channel 1, x the image's red mean."""

    def forward(self, images: Tensor) -> Tensor:
        red = images[:, :1].mean((2, 3), keepdim=True)
        return torch.cat([3 * red, torch.full_like(red, -1), torch.full_like(red, -2), torch.zeros_like(red)], dim=1)


def test_latents_are_measured_as_samples_of_the_posterior() -> None:
    images = torch.randn(4000, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    red = images[:, 0].mean((1, 2)).double()
    found = measure_latents(Fixed(), images.split(500))
    variance = 9 * red.var(correction=0) + torch.exp(torch.tensor(-2.0))
    assert list(found.mean) == pytest.approx([3 * red.mean().item(), -1], abs=1e-5)
    assert list(found.std) == pytest.approx([variance.sqrt().item(), 1], rel=1e-4)
    samples = torch.cat([3 * red + torch.exp(torch.tensor(-1.0)) * torch.randn(4000), torch.randn(4000) - 1])
    assert found.scaling_factor == pytest.approx(1 / samples.std().item(), rel=0.05)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="no image"):
        measure_latents(Fixed(), [])


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    options = {"widths": [8, 16, 16], "encoder_depths": [1, 1], "decoder_depths": [1, 1, 1]}
    network = build_network(ModelConfig(Architecture.LATENT_VAE, options=options), 32)
    weights = network.module.state_dict()
    for factor in (0.5, 0.25):
        save_network(tmp_path / "best", network, weights, {"scaling_factor": factor}, "# card")
    assert json.loads((tmp_path / "best" / "config.json").read_text())["scaling_factor"] == 0.25
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best"]
    stored = load_file(tmp_path / "best" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(stored[name], weights[name]) for name in weights)
