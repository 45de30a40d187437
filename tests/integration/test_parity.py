# SPDX-License-Identifier: Apache-2.0
"""Through the server, a model gives what it gives when it is called in process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file

from latentwire_client import Client, Timeout
from latentwire_codec.checkpoints.folder import WEIGHTS
from latentwire_codec.networks.latent_vae import LatentVAE
from latentwire_server.app import background
from latentwire_server.config import ModelSource, ServerConfig
from tests.conftest import Pixels

SIZES = [(512, 512), (320, 184), (64, 64), (333, 517)]


@pytest.fixture(scope="module")
def client(target: str) -> Iterator[Client]:
    with Client(target) as client:
        yield client


def photograph(astronaut: Pixels, width: int, height: int) -> Pixels:
    """A part of the photograph, or all of it scaled up."""
    if max(width, height) <= 512:
        return np.ascontiguousarray(astronaut[:height, :width])
    return np.asarray(Image.fromarray(astronaut).resize((width, height), Image.Resampling.BICUBIC))


def padded(pixels: Pixels, f: int) -> torch.Tensor:
    """The padding of the convention, written down once more: reflection at the bottom and right."""
    height, width = pixels.shape[:2]
    whole = np.pad(pixels, ((0, -height % f), (0, -width % f), (0, 0)), mode="reflect")
    return torch.from_numpy(whole.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def to_uint8(images: torch.Tensor) -> Pixels:
    levels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    pixels: Pixels = levels[0].permute(1, 2, 0).numpy()
    return pixels


@torch.inference_mode()
def check(client: Client, name: str, f: int, pixels: Pixels, encode: Any, decode: Any) -> None:
    """Compare the server's answers about an image file with the model's own."""
    height, width = pixels.shape[:2]
    latents = client.encode(Image.fromarray(pixels), kind="moments", dtype="float32", model=name)
    mean, logvar = encode(padded(pixels, f))
    assert latents.logvar is not None
    assert latents.image_size == (height, width)
    np.testing.assert_allclose(latents.values, mean.numpy(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(latents.logvar, logvar.numpy(), atol=1e-4, rtol=0)

    wanted = decode(torch.from_numpy(latents.values))[:, :, :height, :width]
    images = client.decode_array(latents, dtype="float32", model=name)
    np.testing.assert_allclose(images, wanted.numpy(), atol=1e-4, rtol=0)
    decoded = np.asarray(client.decode(latents, model=name))
    assert decoded.shape == pixels.shape
    assert np.abs(decoded.astype(int) - to_uint8(wanted)).max() <= 1


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_latent_vae_through_the_server_equals_the_module_from_the_weights_folder(
    client: Client, astronaut: Pixels, width: int, height: int
) -> None:
    module = LatentVAE().eval()
    weights = load_file(next((WEIGHTS / "f8c4").glob("*.safetensors")))
    module.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    check(client, "f8c4", 8, photograph(astronaut, width, height), module.encode, module.decode)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_autoencoder_kl_through_the_server_equals_unmodified_diffusers(
    client: Client, tiny_kl: Path, astronaut: Pixels, width: int, height: int
) -> None:
    module = AutoencoderKL.from_pretrained(tiny_kl).eval()

    def encode(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        posterior = module.encode(images).latent_dist
        return posterior.mean, posterior.logvar

    def decode(latents: torch.Tensor) -> torch.Tensor:
        sample: torch.Tensor = module.decode(latents).sample
        return sample

    check(client, "tiny", 4, photograph(astronaut, width, height), encode, decode)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("side", [64, 512])
def test_the_sd_size_autoencoder_kl_through_the_server_equals_unmodified_diffusers(
    tmp_path: Path, astronaut: Pixels, side: int
) -> None:
    check_sd_size(tmp_path, photograph(astronaut, side, side))


def test_the_sd_size_autoencoder_kl_at_64_pixels_equals_unmodified_diffusers(tmp_path: Path, astronaut: Pixels) -> None:
    check_sd_size(tmp_path, photograph(astronaut, 64, 64))


def check_sd_size(folder: Path, pixels: Pixels) -> None:
    torch.manual_seed(0)
    module = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[128, 256, 512, 512],
        layers_per_block=2,
        latent_channels=4,
    ).eval()
    module.save_pretrained(folder)

    def encode(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        posterior = module.encode(images).latent_dist
        return posterior.mean, posterior.logvar

    def decode(latents: torch.Tensor) -> torch.Tensor:
        sample: torch.Tensor = module.decode(latents).sample
        return sample

    config = ServerConfig(models=(ModelSource("sd", str(folder)),), port=0)
    with background(config) as server, Client(f"127.0.0.1:{server.port}", timeout=Timeout(call_s=600)) as client:
        check(client, "sd", 8, pixels, encode, decode)


@pytest.mark.parametrize("model", ["f8c4", "tiny"])
def test_an_answer_is_bitwise_the_same_alone_and_among_others(client: Client, astronaut: Pixels, model: str) -> None:
    crops = np.stack([astronaut[y : y + 64, x : x + 64] for y in (0, 128, 256) for x in (0, 128, 256)])
    together = client.encode(crops, kind="moments", dtype="float32", model=model)
    decoded = client.decode_array(together, dtype="float32", model=model)
    for index in (0, 4, 8):
        alone = client.encode(crops[index], kind="moments", dtype="float32", model=model)
        assert together.logvar is not None
        assert alone.logvar is not None
        assert np.array_equal(alone.values[0], together.values[index])
        assert np.array_equal(alone.logvar[0], together.logvar[index])
        assert np.array_equal(client.decode_array(alone, dtype="float32", model=model)[0], decoded[index])


def test_concurrent_streams_give_bitwise_what_single_calls_give(client: Client, astronaut: Pixels) -> None:
    crops = [np.ascontiguousarray(astronaut[y : y + 64, y : y + 128]) for y in range(0, 256, 16)]
    single = [client.encode(crop, dtype="float32").values for crop in crops]
    for item in client.encode_stream(crops, dtype="float32"):
        assert np.array_equal(item.get().values, single[item.index])


def test_a_sample_from_the_server_equals_the_client_s_own_sample_of_the_moments(
    client: Client, astronaut: Pixels
) -> None:
    crops = np.stack([astronaut[:64, :64], astronaut[64:128, 64:128]])
    moments = client.encode(crops, kind="moments", dtype="float32")
    sample = client.encode(crops, kind="sample", seeds=[3, 2**64 - 1], dtype="float32")
    np.testing.assert_allclose(sample.values, moments.sample([3, 2**64 - 1]).values, atol=1e-6)
    assert not np.allclose(sample.values, moments.values, atol=1e-3)


@pytest.mark.parametrize("model", ["f8c4", "tiny"])
def test_scaled_latents_decode_to_the_same_image_as_raw_ones(client: Client, astronaut: Pixels, model: str) -> None:
    crop = np.ascontiguousarray(astronaut[:64, :64])
    raw = client.encode(crop, dtype="float32", model=model)
    scaled = client.encode(crop, dtype="float32", scaled=True, model=model)
    assert scaled.scaled
    assert not np.allclose(raw.values, scaled.values)
    np.testing.assert_allclose(
        client.decode_array(raw, dtype="float32", model=model),
        client.decode_array(scaled, dtype="float32", model=model),
        atol=1e-4,
    )


def test_the_photograph_comes_back(client: Client, astronaut: Pixels) -> None:
    decoded = np.asarray(client.decode(client.encode(astronaut)))
    error = ((decoded.astype(float) - astronaut) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 25
