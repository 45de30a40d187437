# SPDX-License-Identifier: Apache-2.0
"""Our VAE of latent vectors: its structure, what it can learn, and its face of a diffusers VAE."""

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from latentwire_codec.checkpoints.checkpoint import digest
from latentwire_codec.images import pixels
from latentwire_codec.load import load_autoencoder
from latentwire_codec.networks.pipeline_vae import AutoencoderVectorVAE
from latentwire_codec.networks.vector_vae import (
    IMAGE_SIZES,
    LOGVAR_MAX,
    LOGVAR_MIN,
    MAX_LATENT_DIM,
    VectorVAE,
    lowest_frequencies,
)
from latentwire_core.errors import TensorError
from latentwire_train.loss.images import mse
from latentwire_train.loss.latents import kl_divergence, reparameterize

SMALL: dict[str, Any] = {"image_size": 32, "latent_dim": 6, "width": 4}


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def vae(tiny_vector_vae: AutoencoderVectorVAE) -> VectorVAE:
    """The plain network with the tiny weights, none of which is zero."""
    plain = VectorVAE(**SMALL)
    plain.load_state_dict(tiny_vector_vae.state_dict())
    return plain.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def photographs(astronaut: Any) -> Tensor:
    """Sixteen parts of a photograph, float (16,3,32,32) in [-1,1]."""
    image = pixels.to_float(torch.from_numpy(astronaut[None]))
    small = F.interpolate(image, size=(128, 128), mode="area")
    return small.unfold(2, 32, 32).unfold(3, 32, 32).permute(0, 2, 3, 1, 4, 5).reshape(16, 3, 32, 32).contiguous()


# The network


@settings(deadline=None, max_examples=20)
@given(
    image_size=st.sampled_from(IMAGE_SIZES),
    latent_dim=st.one_of(st.integers(1, 12), st.just(MAX_LATENT_DIM)),
    width=st.integers(1, 5),
    batch=st.integers(1, 3),
)
def test_an_image_of_any_allowed_size_is_one_vector(image_size: int, latent_dim: int, width: int, batch: int) -> None:
    vae = VectorVAE(image_size, latent_dim, width)
    images = noise(batch, 3, image_size, image_size)
    with torch.no_grad():
        mean, logvar = vae.encode(images)
        assert mean.shape == logvar.shape == (batch, latent_dim, 1, 1)
        assert vae.decode(mean).shape == vae(images).shape == images.shape


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("image_size", 48, "image_size is 48; it must be one of 16, 32, 64, 128, 256"),
        ("image_size", 8, "image_size is 8; it must be one of"),
        ("image_size", 512, "image_size is 512; it must be one of"),
        ("latent_dim", 0, r"latent_dim is 0; it must be in 1\.\.768"),
        ("latent_dim", 769, r"latent_dim is 769; it must be in 1\.\.768"),
        ("width", 0, "width is 0; it must be >= 1"),
    ],
)
def test_an_option_out_of_range_is_refused(option: str, value: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VectorVAE(**{**SMALL, option: value})


@settings(deadline=None, max_examples=30)
@given(shape=st.tuples(st.integers(1, 2), st.sampled_from([1, 3, 6]), *[st.sampled_from([1, 16, 32, 64])] * 2))
@example(shape=(1, 3, 32, 32))
@example(shape=(1, 6, 1, 1))
def test_images_and_latents_of_another_shape_are_refused(shape: tuple[int, int, int, int]) -> None:
    vae = VectorVAE(**SMALL)
    batch = torch.zeros(shape)
    with torch.no_grad():
        if shape[1:] == (3, 32, 32):
            vae.encode(batch)
        else:
            with pytest.raises(TensorError, match=r"images have the shape .*; \(B, 3, 32, 32\) is needed"):
                vae.encode(batch)
        if shape[1:] == (6, 1, 1):
            vae.decode(batch)
        else:
            with pytest.raises(TensorError, match=r"latents have the shape .*; \(B, 6, 1, 1\) is needed"):
                vae.decode(batch)


def test_every_parameter_of_a_trained_network_matters(vae: VectorVAE) -> None:
    vae.requires_grad_(True)
    mean, logvar = vae.encode(noise(4, 3, 32, 32))
    (vae.decode(mean).square().sum() + logvar.sum()).backward()
    unused = [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []


def test_an_image_is_its_own_whatever_the_rest_of_the_batch(vae: VectorVAE) -> None:
    # What batch statistics would break; bitwise it is the runtime that answers for it, see `Runtime.run`.
    vae.train()
    images = noise(4, 3, 32, 32)
    together = vae(images)
    others = vae(torch.cat([images[:1], 100 * images[1:]]))
    torch.testing.assert_close(together[:1], others[:1], rtol=1e-5, atol=1e-5)


def test_the_log_variance_is_clamped(vae: VectorVAE) -> None:
    _, logvar = vae.encode(1e6 * noise(4, 3, 32, 32))
    assert (logvar.min().item(), logvar.max().item()) == (LOGVAR_MIN, LOGVAR_MAX)


def test_an_untrained_network_is_a_blur_with_a_narrow_posterior(photographs: Tensor) -> None:
    vae = VectorVAE(image_size=32, latent_dim=MAX_LATENT_DIM, width=4)
    with torch.no_grad():
        mean, logvar = vae.encode(photographs)
        decoded = vae.decode(mean)
    thumbnail = F.avg_pool2d(photographs, 2)
    torch.testing.assert_close(decoded, F.interpolate(thumbnail, scale_factor=2, mode="bilinear"), rtol=0, atol=1e-4)
    assert torch.equal(logvar, torch.full_like(logvar, -4.0))


def test_more_latents_blur_less(photographs: Tensor) -> None:
    errors = []
    for latent_dim in (1, 4, 16, 64, 256):
        vae = VectorVAE(image_size=32, latent_dim=latent_dim, width=4)
        with torch.no_grad():
            errors.append(mse(vae(photographs), photographs).item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 5


@pytest.mark.parametrize("count", [1, 3, 64, MAX_LATENT_DIM])
def test_the_frequencies_are_orthonormal_and_begin_with_the_brightness(count: int) -> None:
    rows, gains = lowest_frequencies(count)
    assert rows.shape == (count, MAX_LATENT_DIM)
    assert gains.shape == (count, 1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(count), rtol=0, atol=1e-5)
    torch.testing.assert_close(rows[0], torch.full((MAX_LATENT_DIM,), MAX_LATENT_DIM**-0.5))
    assert gains.flatten().tolist() == sorted(gains.flatten().tolist())


# Learning


def train(vae: VectorVAE, images: Tensor, kl_weight: float) -> tuple[float, float]:
    """Train on all images at once for 80 steps; return the loss of the first and of the last."""
    noises = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
    losses = []
    for _ in range(80):
        mean, logvar = vae.encode(images)
        z = reparameterize(mean, logvar, noises) if kl_weight else mean
        loss = mse(vae.decode(z), images) + kl_weight * kl_divergence(mean, logvar).mean() / images[0].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


def test_it_learns_sixteen_images_with_noise_and_kl(photographs: Tensor) -> None:
    torch.manual_seed(0)
    first, last = train(VectorVAE(image_size=32, latent_dim=16, width=8), photographs, kl_weight=1e-2)
    assert last < first / 2


def test_as_a_plain_autoencoder_it_learns_them_better_and_its_latents_are_points(photographs: Tensor) -> None:
    torch.manual_seed(0)
    vae = VectorVAE(image_size=32, latent_dim=16, width=8)
    vae.encoder.pin_logvar()
    first, last = train(vae, photographs, kl_weight=0.0)
    assert last < first / 3
    with torch.no_grad():
        mean, logvar = vae.encode(photographs)
    assert torch.equal(logvar, torch.full_like(logvar, LOGVAR_MIN))
    noises = torch.Generator().manual_seed(0)
    assert (reparameterize(mean, logvar, noises) - mean).abs().max() < 10 * math.exp(LOGVAR_MIN / 2)


def test_pinning_leaves_the_mean_alone(vae: VectorVAE) -> None:
    images = noise(2, 3, 32, 32)
    before = vae.encode(images)
    vae.encoder.pin_logvar()
    mean, logvar = vae.encode(images)
    assert torch.equal(mean, before[0])
    assert not torch.equal(logvar, before[1])
    assert torch.equal(logvar, torch.full_like(logvar, LOGVAR_MIN))


# The face of a diffusers VAE


def test_the_tensors_have_the_same_names_and_shapes_in_both_classes() -> None:
    for options in (SMALL, {}):
        plain, face = VectorVAE(**options).state_dict(), AutoencoderVectorVAE(**options).state_dict()
        assert {n: t.shape for n, t in plain.items()} == {n: t.shape for n, t in face.items()}


def test_encode_answers_as_diffusers_does(tiny_vector_vae: Any, vae: VectorVAE) -> None:
    images = noise(2, 3, 32, 32)
    with torch.no_grad():
        output = tiny_vector_vae.encode(images)
        (posterior,) = tiny_vector_vae.encode(images, return_dict=False)
    assert isinstance(output, AutoencoderKLOutput)
    mean, logvar = vae.encode(images)
    for dist in (output.latent_dist, posterior):
        assert isinstance(dist, DiagonalGaussianDistribution)
        assert torch.equal(dist.mode(), mean)
        assert torch.equal(dist.logvar, logvar)


def test_decode_answers_as_diffusers_does(tiny_vector_vae: Any, vae: VectorVAE) -> None:
    latents = noise(2, 6, 1, 1)
    with torch.no_grad():
        output = tiny_vector_vae.decode(latents)
        (sample,) = tiny_vector_vae.decode(latents, return_dict=False, generator=None)
    assert isinstance(output, DecoderOutput)
    assert torch.equal(output.sample, vae.decode(latents))
    assert torch.equal(sample, output.sample)


def test_forward_reconstructs_through_the_mode_or_a_sample(tiny_vector_vae: Any, vae: VectorVAE) -> None:
    images = noise(1, 3, 32, 32)
    with torch.no_grad():
        mode = tiny_vector_vae(images).sample
        assert torch.equal(mode, vae(images))
        first, again = (
            tiny_vector_vae(images, sample_posterior=True, generator=torch.Generator().manual_seed(5)).sample
            for _ in range(2)
        )
    assert torch.equal(first, again)
    assert not torch.equal(first, mode)


def test_saving_and_loading_gives_the_same_model_without_a_warning(
    tiny_vector_vae: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny_vector_vae.save_pretrained(tmp_path)
        loaded, info = AutoencoderVectorVAE.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert not caplog.records
    assert digest(loaded.state_dict()) == digest(tiny_vector_vae.state_dict())
    config = {key: value for key, value in loaded.config.items() if not key.startswith("_")}
    assert config == {
        **SMALL, "latents_mean": None, "latents_std": None, "scaling_factor": 0.5, "shift_factor": None,
        "force_upcast": False, "sample_size": 32, "latent_space": "tiny-vector@1",
    }  # fmt: skip


def test_the_plain_network_loads_what_the_face_has_saved_and_the_other_way_round(
    tiny_vector_vae: Any, vae: VectorVAE, tmp_path: Path
) -> None:
    face = AutoencoderVectorVAE(**SMALL, latent_space="tiny-vector@1", scaling_factor=0.5)
    face.load_state_dict(vae.state_dict())
    face.save_pretrained(tmp_path)
    served = load_autoencoder(str(tmp_path), device="cpu")
    images = noise(1, 3, 32, 32)
    torch.testing.assert_close(served.encode(images).mean, vae.encode(images)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_close(tiny_vector_vae: Any, tmp_path: Path, photographs: Tensor, dtype: str) -> None:
    tiny_vector_vae.save_pretrained(tmp_path)
    exact, half = (load_autoencoder(str(tmp_path), device="cpu", dtype=name) for name in ("float32", dtype))
    mean = exact.encode(photographs).mean
    tolerance = {"float16": 0.01, "bfloat16": 0.05}[dtype]
    assert (half.encode(photographs).mean - mean).abs().max() < tolerance * mean.abs().max()
    decoded = exact.decode(mean)
    assert (half.decode(mean) - decoded).abs().max() < tolerance * decoded.abs().max()
