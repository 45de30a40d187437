# SPDX-License-Identifier: Apache-2.0
"""FLUX.2, TAESD and Wan in their makers' layouts load back to identical tensors and outputs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLFlux2, AutoencoderKLQwenImage, AutoencoderKLWan, AutoencoderTiny
from safetensors.torch import save_file

from latentwire_codec.checkpoints.checkpoint import Checkpoint, load_checkpoint
from tests.codec.checkpoints.layouts import check, refused, to_flux2, to_taesd, to_wan

WIDTHS = (32, 64)


# FLUX.2


def test_flux2_in_its_makers_layout_loads_back_exactly_and_its_batch_norm_is_the_scaling(tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = AutoencoderKLFlux2(
        block_out_channels=WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=3,
        layers_per_block=1,
    ).eval()
    module.bn.running_mean.copy_(torch.arange(12.0) / 4)
    module.bn.running_var.copy_(torch.arange(12.0) + 1)
    save_file(to_flux2(module.state_dict(), 2), tmp_path / "flux2.safetensors")
    checkpoint = load_checkpoint(str(tmp_path / "flux2.safetensors"))
    check(checkpoint, module)
    assert checkpoint.class_name == "AutoencoderKLFlux2"
    # Over latents that have the statistics of the batch norm in each of the four places, the scaled ones have 0 and 1.
    for channel in range(3):
        places = torch.arange(12.0)[4 * channel : 4 * channel + 4]
        mean, var = places / 4, places + 1
        pooled = float(mean.mean())
        spread = float(((var + mean**2).mean() - pooled**2 + 1e-4).sqrt())
        assert checkpoint.scaling.shift[channel] == pytest.approx(pooled)
        assert checkpoint.scaling.scale[channel] == pytest.approx(1 / spread)


# TAESD


@pytest.fixture(scope="module")
def tiny() -> Any:
    torch.manual_seed(3)
    shape = {"encoder_block_out_channels": (8, 8, 8), "decoder_block_out_channels": (8, 8, 8)}
    return AutoencoderTiny(
        **shape, num_encoder_blocks=(1, 2, 3), num_decoder_blocks=(2, 3, 1), latent_channels=5
    ).eval()


@torch.inference_mode()
def check_tiny(checkpoint: Checkpoint, module: Any) -> None:
    found, wanted = checkpoint.module.state_dict(), module.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    loaded: Any = checkpoint.module
    latents = module.encode(images).latents
    assert torch.equal(loaded.encode(images).latents, latents)
    assert torch.equal(loaded.decode(latents).sample, module.decode(latents).sample)


@pytest.mark.parametrize("named", ["encoder", "decoder"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_pair_of_taesd_files_is_one_vae_whichever_is_named(
    tiny: Any, tmp_path: Path, named: str, suffix: str
) -> None:
    for half, tensors in zip(("encoder", "decoder"), to_taesd(tiny.state_dict()), strict=True):
        path = tmp_path / f"taesd_{half}{suffix}"
        save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    checkpoint = load_checkpoint(str(tmp_path / f"taesd_{named}{suffix}"), scale=1)
    check_tiny(checkpoint, tiny)
    assert (checkpoint.class_name, checkpoint.file_sha256) == ("AutoencoderTiny", "")


@pytest.mark.parametrize("names", ["taesd_{}.", "{}.", "{}.layers."])
def test_a_taesd_in_one_file_loads_back_exactly(tiny: Any, tmp_path: Path, names: str) -> None:
    if names.endswith("layers."):
        tensors = tiny.state_dict()
    else:
        halves = zip(("encoder", "decoder"), to_taesd(tiny.state_dict()), strict=True)
        tensors = {names.format(half) + name: tensor for half, part in halves for name, tensor in part.items()}
    save_file(tensors, tmp_path / "taesd.safetensors")
    check_tiny(load_checkpoint(str(tmp_path / "taesd.safetensors"), scale=1), tiny)


def test_half_a_taesd_is_refused_with_what_is_missing(tiny: Any, tmp_path: Path) -> None:
    encoder, _ = to_taesd(tiny.state_dict())
    save_file(encoder, tmp_path / "taesd_encoder.safetensors")
    assert "is the encoder of a TAESD alone; put its decoder beside it" in refused(
        tmp_path / "taesd_encoder.safetensors"
    )
    save_file(encoder, tmp_path / "taesd_decoder.safetensors")
    assert "is not the other half" in refused(tmp_path / "taesd_encoder.safetensors")


def test_a_taesd_of_the_known_size_has_its_scaling_but_not_its_name(tmp_path: Path) -> None:
    save_file(AutoencoderTiny().state_dict(), tmp_path / "any.safetensors")
    checkpoint = load_checkpoint(str(tmp_path / "any.safetensors"))
    assert (checkpoint.scaling.scale, checkpoint.scaling.shift) == ((1.0,), (0.0,))
    assert checkpoint.latent_space == ""  # taesd's or taesdxl's
    assert load_checkpoint(str(tmp_path / "any.safetensors"), latent_space="taesdxl").latent_space == "taesdxl"


# Wan


def test_a_wan_vae_in_its_makers_layout_loads_back_exactly(tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = AutoencoderKLWan(base_dim=4, z_dim=2, latents_mean=[0.0] * 2, latents_std=[1.0] * 2).eval()
    torch.save(to_wan(module.state_dict()), tmp_path / "Wan.pth")
    checkpoint = load_checkpoint(str(tmp_path / "Wan.pth"), scale=1, shift=0)
    found, wanted = checkpoint.module.state_dict(), module.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("network", [AutoencoderKLWan, AutoencoderKLQwenImage])
def test_a_makers_layout_may_have_the_diffusers_configuration_beside_it(network: Any, tmp_path: Path) -> None:
    module = network(base_dim=4, z_dim=2, latents_mean=[0.5] * 2, latents_std=[2.0] * 2).eval()
    module.save_config(tmp_path)
    torch.save(to_wan(module.state_dict()), tmp_path / "any.pth")
    checkpoint = load_checkpoint(str(tmp_path / "any.pth"))
    found, wanted = checkpoint.module.state_dict(), module.state_dict()
    assert checkpoint.class_name == network.__name__
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert (checkpoint.scaling.scale, checkpoint.scaling.shift) == ((0.5, 0.5), (0.5, 0.5))


def test_a_broken_wan_vae_is_refused(tmp_path: Path) -> None:
    save_file({"decoder.middle.0.residual.0.gamma": torch.zeros(2)}, tmp_path / "wan.safetensors")
    assert "but not its shapes" in refused(tmp_path / "wan.safetensors", scale=1)
