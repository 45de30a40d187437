# SPDX-License-Identifier: Apache-2.0
"""Our own VAE: its structure, its face of a diffusers VAE, and what the bundled weights can do."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from latentwire_codec.checkpoints.checkpoint import digest
from latentwire_codec.images import pixels
from latentwire_codec.load import load_autoencoder
from latentwire_codec.networks.latent_vae import LOGVAR_MAX, LOGVAR_MIN, LatentVAE
from latentwire_codec.networks.pipeline_vae import AutoencoderLatentVAE

SMALL: dict[str, Any] = {"widths": (4, 6, 8), "encoder_depths": (1, 1), "decoder_depths": (1, 1, 1)}


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def vae(tiny_latent_vae: AutoencoderLatentVAE) -> LatentVAE:
    """The plain network with the tiny weights, none of which is zero."""
    plain = LatentVAE(**SMALL)
    plain.load_state_dict(tiny_latent_vae.state_dict())
    return plain.eval().requires_grad_(False)


# The network


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 40), (64, 8)])
@pytest.mark.parametrize("channels", [1, 4, 16])
def test_latents_have_an_eighth_of_each_side(height: int, width: int, channels: int) -> None:
    vae = LatentVAE(latent_channels=channels, **SMALL)
    images = noise(2, 3, height, width)
    mean, logvar = vae.encode(images)
    assert mean.shape == logvar.shape == (2, channels, height // 8, width // 8)
    assert vae.decode(mean).shape == vae(images).shape == images.shape


def test_an_untrained_network_is_its_linear_pair() -> None:
    vae = LatentVAE(**SMALL)
    images = noise(1, 3, 24, 32)
    mean, logvar = vae.encode(images)
    assert torch.equal(mean, vae.encoder.klt(images))
    assert torch.equal(logvar, torch.full_like(logvar, -4.0))
    assert torch.equal(vae.decode(mean), vae.decoder.iklt(mean))


def test_every_parameter_of_a_trained_network_matters(vae: LatentVAE) -> None:
    images = noise(1, 3, 32, 32)
    vae.requires_grad_(True)
    mean, logvar = vae.encode(images)
    (vae.decode(mean).square().sum() + logvar.sum()).backward()
    unused = [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []


def test_the_log_variance_is_clamped(vae: LatentVAE) -> None:
    _, logvar = vae.encode(1e6 * noise(1, 3, 32, 32))
    assert (logvar.min().item(), logvar.max().item()) == (LOGVAR_MIN, LOGVAR_MAX)


def test_pinning_the_log_variance_leaves_the_mean_alone(vae: LatentVAE) -> None:
    images = noise(2, 3, 32, 32)
    before = vae.encode(images)
    vae.encoder.pin_logvar()
    mean, logvar = vae.encode(images)
    assert torch.equal(mean, before[0])
    assert not torch.equal(logvar, before[1])
    assert torch.equal(logvar, torch.full_like(logvar, LOGVAR_MIN))


def test_latents_depend_on_a_bounded_neighbourhood_only(vae: LatentVAE) -> None:
    images = noise(1, 3, 24, 256)
    changed = images.clone()
    changed[:, :, :, :8] += 1.0
    for before, after in zip(vae.encode(images), vae.encode(changed), strict=True):
        assert not torch.equal(before[..., :1], after[..., :1])
        assert torch.equal(before[..., 6:], after[..., 6:])


def test_pixels_depend_on_a_bounded_neighbourhood_only(vae: LatentVAE) -> None:
    latents = noise(1, 4, 3, 32)
    changed = latents.clone()
    changed[..., :1] += 1.0
    before, after = vae.decode(latents), vae.decode(changed)
    assert not torch.equal(before[..., :8], after[..., :8])
    assert torch.equal(before[..., 56:], after[..., 56:])


def test_an_images_brightness_elsewhere_is_no_concern_of_a_latent(vae: LatentVAE) -> None:
    # What a normalisation layer would break: statistics of the whole image.
    images = noise(1, 3, 24, 256)
    changed = images.clone()
    changed[..., 128:] = 1.0
    assert torch.equal(vae.encode(images)[0][..., :10], vae.encode(changed)[0][..., :10])


# The face of a diffusers VAE


def test_the_tensors_have_the_same_names_and_shapes_in_both_classes() -> None:
    plain, face = LatentVAE(**SMALL).state_dict(), AutoencoderLatentVAE(**SMALL).state_dict()
    assert {n: t.shape for n, t in plain.items()} == {n: t.shape for n, t in face.items()}


def test_both_classes_have_the_same_defaults() -> None:
    with torch.device("meta"):
        plain, face = LatentVAE().state_dict(), AutoencoderLatentVAE().state_dict()
    assert {n: t.shape for n, t in plain.items()} == {n: t.shape for n, t in face.items()}


def test_encode_answers_as_diffusers_does(tiny_latent_vae: Any, vae: LatentVAE) -> None:
    images = noise(2, 3, 16, 24)
    with torch.no_grad():
        output = tiny_latent_vae.encode(images)
        (posterior,) = tiny_latent_vae.encode(images, return_dict=False)
    assert isinstance(output, AutoencoderKLOutput)
    assert isinstance(output.latent_dist, DiagonalGaussianDistribution)
    assert isinstance(posterior, DiagonalGaussianDistribution)
    mean, logvar = vae.encode(images)
    for dist in (output.latent_dist, posterior):
        assert torch.equal(dist.mode(), mean)
        assert torch.equal(dist.logvar, logvar)


def test_decode_answers_as_diffusers_does(tiny_latent_vae: Any, vae: LatentVAE) -> None:
    latents = noise(2, 4, 2, 3)
    with torch.no_grad():
        output = tiny_latent_vae.decode(latents)
        (sample,) = tiny_latent_vae.decode(latents, return_dict=False, generator=None)
    assert isinstance(output, DecoderOutput)
    assert torch.equal(output.sample, vae.decode(latents))
    assert torch.equal(sample, output.sample)


def test_forward_reconstructs_through_the_mode_or_a_sample(tiny_latent_vae: Any, vae: LatentVAE) -> None:
    images = noise(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(tiny_latent_vae(images).sample, vae(images))
        (mode,) = tiny_latent_vae(images, return_dict=False)
        assert torch.equal(mode, vae(images))
        first, again = (
            tiny_latent_vae(images, sample_posterior=True, generator=torch.Generator().manual_seed(5)).sample
            for _ in range(2)
        )
    assert torch.equal(first, again)
    assert not torch.equal(first, mode)


def test_saving_and_loading_gives_the_same_model_without_a_warning(
    tiny_latent_vae: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny_latent_vae.save_pretrained(tmp_path)
        loaded, info = AutoencoderLatentVAE.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert not caplog.records
    assert digest(loaded.state_dict()) == digest(tiny_latent_vae.state_dict())
    config, original = dict(loaded.config), dict(tiny_latent_vae.config)
    for key in ("widths", "encoder_depths", "decoder_depths", "block_out_channels"):
        assert tuple(config[key]) == tuple(original[key])
    assert (config["latent_space"], config["scaling_factor"]) == ("tiny@1", 1.0)


def test_pipelines_read_a_downsampling_factor_of_eight(tiny_latent_vae: Any) -> None:
    assert 2 ** (len(tiny_latent_vae.config.block_out_channels) - 1) == 8


# The bundled weights


@pytest.mark.parametrize(("name", "least_db"), [("f8c4", 25), ("f8c32", 32)])
def test_a_bundled_model_reconstructs_a_photograph(
    astronaut: npt.NDArray[np.uint8], name: str, least_db: float
) -> None:
    vae = load_autoencoder(name, device="cpu")
    images = pixels.to_float(torch.from_numpy(astronaut[None]))
    decoded = vae.decode(vae.encode(images).mode(), pixels.to_uint8)[0].numpy()
    error = np.square(decoded.astype(np.float64) - astronaut).mean()
    assert 10 * math.log10(255**2 / error) > least_db


@pytest.mark.parametrize("name", ["f8c4", "f8c32"])
def test_a_bundled_models_scaled_latents_are_spread_about_one(astronaut: npt.NDArray[np.uint8], name: str) -> None:
    vae = load_autoencoder(name, device="cpu")
    images = pixels.to_float(torch.from_numpy(astronaut[None, 192:320, 192:320]))
    scaled = vae.to_scaled(vae.encode(images).mode())
    assert scaled.mean().abs() < 1.5
    assert 0.3 < scaled.std() < 3


# In a pipeline


@pytest.fixture
def parts(tiny_latent_vae: Any) -> dict[str, Any]:
    """The parts of a tiny Stable Diffusion with our VAE in it."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer(model_max_length=77)
    text = CLIPTextConfig(
        hidden_size=8,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        vocab_size=max(8, len(tokenizer)),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet: Any = UNet2DConditionModel(
        block_out_channels=(4, 8),
        layers_per_block=1,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        norm_num_groups=2,
    )
    text_encoder: Any = CLIPTextModel(text)
    return {
        "vae": tiny_latent_vae,
        "text_encoder": text_encoder.eval(),
        "tokenizer": tokenizer,
        "unet": unet.eval(),
        "scheduler": DDIMScheduler(steps_offset=1, clip_sample=False),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def run(pipeline: Any, **inputs: Any) -> Tensor:
    pipeline.set_progress_bar_config(disable=True)
    output: Tensor = pipeline(
        "a photograph", num_inference_steps=2, generator=torch.Generator().manual_seed(1), **inputs
    ).images
    return output


def test_it_is_the_vae_of_a_text_to_image_pipeline(parts: dict[str, Any], vae: LatentVAE) -> None:
    pipeline = StableDiffusionPipeline(**parts)
    images = run(pipeline, output_type="pt")
    assert images.shape == (1, 3, 64, 64)
    latents = run(pipeline, output_type="latent")
    assert latents.shape == (1, 4, 8, 8)
    assert torch.equal(images, (vae.decode(latents) / 2 + 0.5).clamp(0, 1))


def test_it_is_the_vae_of_an_image_to_image_pipeline(parts: dict[str, Any]) -> None:
    pipeline = StableDiffusionImg2ImgPipeline(**parts)
    start = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    images = run(pipeline, image=start, strength=0.9, output_type="pt")
    other = run(pipeline, image=1 - start, strength=0.9, output_type="pt")
    assert images.shape == (1, 3, 64, 64)
    assert not torch.equal(images, other)


def test_a_pipeline_with_it_can_be_saved_and_its_vae_served(parts: dict[str, Any], tmp_path: Path) -> None:
    pipeline: Any = StableDiffusionPipeline(**parts)
    pipeline.save_pretrained(tmp_path)
    assert load_autoencoder(str(tmp_path), device="cpu").spec.latent_space == "tiny@1"
