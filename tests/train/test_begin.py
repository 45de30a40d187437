# SPDX-License-Identifier: Apache-2.0
"""What a new network is before its first step: fitted to the images as far as that has a closed form."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from latentwire_codec.networks.latent_vae import LatentVAE
from latentwire_codec.networks.principal_components import MIN_STD
from latentwire_codec.networks.vector_vae import VectorVAE
from latentwire_train.config import TrainingConfig
from latentwire_train.loop import train
from tests.train.conftest import Watcher

Tiny = Callable[..., TrainingConfig]
LINEAR = {
    "vector": ("encoder.dct.weight", "encoder.dct.bias", "decoder.idct.weight", "decoder.idct.bias"),
    "latent-vae": ("encoder.klt.weight", "encoder.klt.bias", "decoder.iklt.0.weight", "decoder.iklt.0.bias"),
}


def images(count: int) -> torch.Tensor:
    """Return images (count,3,16,16) in [-1,1] whose values are correlated."""
    draws = torch.Generator().manual_seed(5)
    mixed = torch.randn(count, 40, generator=draws) @ torch.randn(40, 768, generator=draws)
    return torch.tanh(mixed / 8).reshape(count, 3, 16, 16)


def begun(batch: torch.Tensor, latent_dim: int, unit_variance: bool = True) -> VectorVAE:
    vae = VectorVAE(image_size=16, latent_dim=latent_dim, width=4).eval().requires_grad_(False)
    vae.begin_with(batch.split(7), unit_variance)
    return vae


def test_latents_begin_uncorrelated_with_mean_zero_and_variance_one() -> None:
    batch = images(50)
    mean, _ = begun(batch, 12).encode(batch)
    latents = mean.flatten(1).double()
    assert latents.mean(dim=0).numpy() == pytest.approx(np.zeros(12), abs=1e-4)
    assert torch.cov(latents.T, correction=0).numpy() == pytest.approx(np.eye(12), abs=1e-3)


def test_without_unit_variance_distances_of_latents_are_those_of_images() -> None:
    batch = images(20)
    mean, _ = begun(batch, 19, unit_variance=False).encode(batch)
    assert torch.pdist(mean.flatten(1)).numpy() == pytest.approx(torch.pdist(batch.flatten(1)).numpy(), rel=1e-3)


@pytest.mark.parametrize("unit_variance", [True, False])
def test_it_begins_as_the_best_linear_autoencoder(unit_variance: bool) -> None:
    batch = images(50)
    decoded = begun(batch, 12, unit_variance)(batch).flatten(1).double()
    flat = batch.flatten(1).double()
    # Eckart and Young: nothing of rank 12 is nearer than the singular vectors.
    _, lengths, _ = torch.linalg.svd(flat - flat.mean(dim=0))
    assert (decoded - flat).square().sum().item() == pytest.approx(lengths[12:].square().sum().item(), rel=1e-4)


@pytest.mark.parametrize("unit_variance", [True, False])
def test_spatial_latents_begin_as_the_best_linear_codec_of_blocks(unit_variance: bool) -> None:
    batch = images(50)
    vae = LatentVAE(5, (4, 4, 4), (1, 1), (1, 1, 1)).eval().requires_grad_(False)
    vae.begin_with(batch.split(7), unit_variance)
    mean, _ = vae.encode(batch)
    latents = mean.transpose(0, 1).flatten(1).double()
    if unit_variance:
        assert torch.cov(latents, correction=0).numpy() == pytest.approx(np.eye(5), abs=1e-3)
    blocks = batch.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(-1, 192).double()
    _, lengths, _ = torch.linalg.svd(blocks - blocks.mean(dim=0))
    error = (vae(batch) - batch).double().square().sum().item()
    assert error == pytest.approx(lengths[5:].square().sum().item(), rel=1e-4)


@pytest.mark.parametrize("count", [1, 5])
def test_fewer_images_than_latents_leave_the_others_quiet(count: int) -> None:
    batch = images(count)
    vae = begun(batch, 12)
    assert vae(batch).numpy() == pytest.approx(batch.numpy(), abs=1e-3)
    assert all(torch.isfinite(tensor).all() for tensor in vae.state_dict().values())
    loud = vae.decoder.idct.weight.norm(dim=0) > 2 * MIN_STD
    assert int(loud.sum()) == count - 1


@pytest.mark.parametrize("family", LINEAR)
def test_a_new_run_begins_with_its_images_and_one_from_weights_does_not(
    family: str, tiny: Tiny, photos: Path, tmp_path: Path, watcher: Watcher
) -> None:
    # With such a learning rate nothing moves, so that what is saved is what it began with.
    still = {"learning_rate": 1e-12, "weight_decay": 0.0}
    elsewhere = images_elsewhere(tmp_path)
    from_weights = {"init": str(tmp_path / "new" / "last"), "options": {}}
    train(tiny(family, schedule=still), photos, tmp_path / "new", watcher)
    train(tiny(family, schedule=still), elsewhere, tmp_path / "other", watcher)
    train(tiny(family, schedule=still, model=from_weights), elsewhere, tmp_path / "continued", watcher)
    new, other, continued = (
        load_file(tmp_path / run / "last" / "diffusion_pytorch_model.safetensors")
        for run in ("new", "other", "continued")
    )
    for name in LINEAR[family]:
        assert not torch.equal(new[name], other[name])
        assert continued[name].numpy() == pytest.approx(new[name].numpy(), abs=1e-6)


def images_elsewhere(folder: Path) -> Path:
    """Return a folder of other images."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    for number, image in enumerate(images(8)):
        pixels = (127.5 * (image + 1)).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).resize((32, 32)).save(elsewhere / f"{number}.png")
    return elsewhere
