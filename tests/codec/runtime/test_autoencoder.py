# SPDX-License-Identifier: Apache-2.0
"""One face for every VAE: what the network says, and nothing that it does not."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentwire_codec.checkpoints.checkpoint import Checkpoint, load_checkpoint
from latentwire_codec.checkpoints.scaling import declared_by
from latentwire_codec.images import pixels
from latentwire_codec.lat.payload import Provenance
from latentwire_codec.load import load_autoencoder
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_codec.runtime.placement import Placement
from latentwire_codec.runtime.tiling import convolution
from latentwire_core.errors import CheckpointError, LatentSpaceMismatch, NonFiniteError, TensorError

Build = Callable[..., Any]
CPU = Placement(torch.device("cpu"), torch.float32)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def wrap(
    module: Any, latent_space: str = "", latent_units: Sequence[float] | None = None, **config: Any
) -> Autoencoder:
    """Make an autoencoder of a module in memory."""
    config = {**module.config, **config}
    scaling = declared_by(config)
    assert scaling is not None
    checkpoint = Checkpoint(
        module=module,
        class_name=type(module).__name__,
        config=config,
        scaling=scaling,
        latent_space=latent_space,
        latent_units=latent_units,
        weights_digest="ab" * 32,
        file_sha256="",
    )
    return Autoencoder(checkpoint, CPU)


@pytest.fixture
def tiny(build_kl: Build) -> Autoencoder:
    return wrap(build_kl(), latent_space="tiny@1")


# Parity


def test_encode_gives_what_the_module_gives(build_kl: Build, tiny: Autoencoder) -> None:
    images = noise(2, 3, 6, 10)
    posterior = tiny.encode(images)
    with torch.no_grad():
        expected = build_kl().encode(images).latent_dist
    assert posterior.logvar is not None
    torch.testing.assert_close(posterior.mean, expected.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(posterior.logvar, expected.logvar, rtol=1e-4, atol=1e-5)


def test_decode_gives_what_the_module_gives(build_kl: Build, tiny: Autoencoder) -> None:
    latents = noise(2, 4, 3, 5)
    with torch.no_grad():
        expected = build_kl().decode(latents).sample
    torch.testing.assert_close(tiny.decode(latents), expected, rtol=1e-4, atol=1e-5)


def test_an_images_result_is_bitwise_its_own_in_any_batch(tiny: Autoencoder) -> None:
    images, latents = noise(3, 3, 8, 8), noise(3, 4, 4, 4)
    for index in range(3):
        one = slice(index, index + 1)
        assert torch.equal(tiny.encode(images).mean[one], tiny.encode(images[one]).mean)
        assert torch.equal(tiny.decode(latents)[one], tiny.decode(latents[one]))


def test_decoded_images_go_through_finish(tiny: Autoencoder) -> None:
    latents = noise(1, 4, 2, 2)
    assert torch.equal(tiny.decode(latents, pixels.to_uint8), pixels.to_uint8(tiny.decode(latents)))


# The specification


@pytest.mark.parametrize(("levels", "channels"), [(1, 1), (2, 4), (3, 16), (4, 4)])
def test_f_and_c_are_derived_from_the_network(build_kl: Build, levels: int, channels: int) -> None:
    module = build_kl(
        block_out_channels=(4,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=channels,
    )
    spec = wrap(module, latent_channels=77).spec
    assert (spec.downsample_factor, spec.latent_channels) == (2 ** (levels - 1), channels)


def test_the_specification_says_where_the_weights_come_from(tiny_kl_folder: Path) -> None:
    checkpoint = load_checkpoint(str(tiny_kl_folder))
    spec = load_autoencoder(str(tiny_kl_folder), device="cpu").spec
    assert spec.class_name == "AutoencoderKL"
    assert spec.weights_digest == checkpoint.weights_digest
    assert spec.file_sha256 == checkpoint.file_sha256
    assert spec.config == checkpoint.config
    assert spec.parameters == sum(p.numel() for p in checkpoint.module.parameters())
    assert (spec.device, spec.dtype) == ("cpu", "float32")


@pytest.mark.parametrize(("name", "channels", "units"), [("f8c4", 4, 4), ("f8c32", 32, 1)])
def test_a_bundled_model_has_a_latent_space_and_units_of_its_own(name: str, channels: int, units: int) -> None:
    spec = load_autoencoder(name, device="cpu").spec
    assert (spec.downsample_factor, spec.latent_channels) == (8, channels)
    assert spec.latent_space.startswith(f"latentwire-{name}@")
    assert (len(spec.scale), spec.shift) == (1, (0.0,))
    assert spec.latent_units is not None
    assert (len(spec.latent_units), len(set(spec.latent_units))) == (channels, units)


def test_units_of_the_latents_are_those_of_the_configuration(build_kl: Build) -> None:
    assert wrap(build_kl()).spec.latent_units is None
    assert wrap(build_kl(), latent_units=[1, 2, 3, 4]).spec.latent_units == (1, 2, 3, 4)


@pytest.mark.parametrize("units", [[1.0] * 3, [1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, math.nan]])
def test_units_that_do_not_fit_the_channels_are_refused(build_kl: Build, units: list[float]) -> None:
    with pytest.raises(CheckpointError, match="4 positive numbers are needed"):
        wrap(build_kl(), latent_units=units)


def test_a_network_of_one_size_says_so_and_its_latents_are_one_vector(tiny_vector_vae: Any, build_kl: Build) -> None:
    spec = wrap(tiny_vector_vae).spec
    assert (spec.fixed_size, spec.downsample_factor, spec.latent_channels) == ((32, 32), 32, 6)
    assert wrap(build_kl()).spec.fixed_size is None


def test_a_network_that_does_not_take_rgb_is_refused(build_kl: Build) -> None:
    with pytest.raises(CheckpointError, match="takes 1 channels and gives 3; images have 3"):
        wrap(build_kl(in_channels=1))


def test_a_network_that_does_not_give_rgb_is_refused(build_kl: Build) -> None:
    with pytest.raises(CheckpointError, match="takes 3 channels and gives 4; images have 3"):
        wrap(build_kl(out_channels=4))


# Scaling


def check_scaling(vae: Autoencoder, formula: Callable[[Tensor], Tensor]) -> None:
    raw = noise(2, 4, 3, 5)
    torch.testing.assert_close(vae.to_scaled(raw), formula(raw), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(vae.to_raw(vae.to_scaled(raw)), raw, rtol=1e-5, atol=1e-5)


def test_a_scaling_factor_multiplies(build_kl: Build) -> None:
    vae = wrap(build_kl(scaling_factor=0.13025))
    assert (vae.spec.scale, vae.spec.shift) == ((0.13025,), (0.0,))
    check_scaling(vae, lambda raw: raw * 0.13025)


def test_a_shift_factor_is_subtracted_first(build_kl: Build) -> None:
    vae = wrap(build_kl(scaling_factor=1.5305, shift_factor=0.0609))
    check_scaling(vae, lambda raw: (raw - 0.0609) * 1.5305)


def test_statistics_of_each_channel_are_applied_to_it(build_kl: Build) -> None:
    mean, std = [0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 4.0, 8.0]
    vae = wrap(build_kl(scaling_factor=0.5, latents_mean=mean, latents_std=std))
    assert vae.spec.scale == (0.5, 0.25, 0.125, 0.0625)
    assert vae.spec.shift == (0.1, 0.2, 0.3, 0.4)

    def as_the_pipelines_do(raw: Tensor) -> Tensor:
        m, s = (torch.tensor(numbers).view(1, 4, 1, 1) for numbers in (mean, std))
        return (raw - m) * 0.5 / s

    check_scaling(vae, as_the_pipelines_do)


@pytest.mark.parametrize(
    "config",
    [
        {"latents_mean": [0.0] * 3, "latents_std": [1.0] * 3},
        {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 5},
        {"latents_mean": [], "latents_std": []},
        {"latents_mean": [0.0] * 4, "latents_std": [1.0, 1.0, 1.0, 0.0]},
        {"scaling_factor": None},
        {"scaling_factor": 0.0},
        {"scaling_factor": float("nan")},
        {"scaling_factor": "large"},
    ],
)
def test_scaling_that_cannot_be_undone_or_does_not_fit_is_refused(build_kl: Build, config: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError):
        wrap(build_kl(), **config)


# Latent spaces


OURS, OTHER = "the model's", "f" * 64


@pytest.mark.parametrize(
    ("model_space", "latent_space", "digest", "fits"),
    [
        ("tiny@1", "tiny@1", "", True),
        ("tiny@1", "tiny@1", OTHER, True),  # another precision of the same weights has another digest
        ("tiny@1", "sd1", "", False),
        ("tiny@1", "sd1", OURS, False),
        ("tiny@1", "", "", True),  # of unknown origin, as from a diffusion model
        ("tiny@1", "", OURS, True),
        ("tiny@1", "", OTHER, False),
        ("", "", "", True),
        ("", "", OURS, True),
        ("", "", OTHER, False),
        ("", "sd1", "", False),
        ("", "sd1", OURS, True),
        ("", "sd1", OTHER, False),
    ],
)
def test_latents_of_another_space_are_refused_by_name_or_where_one_is_missing_by_weights(
    tiny: Autoencoder, build_kl: Build, model_space: str, latent_space: str, digest: str, fits: bool
) -> None:
    model = tiny if model_space else wrap(build_kl())
    assert model.spec.latent_space == model_space
    digest = model.spec.weights_digest if digest == OURS else digest
    if fits:
        model.check_latent_space(Provenance(latent_space=latent_space, weights_digest=digest))
        return
    with pytest.raises(LatentSpaceMismatch) as caught:
        model.check_latent_space(Provenance(latent_space=latent_space, weights_digest=digest))
    for name in (latent_space or digest[:12], model_space or model.spec.weights_digest[:12]):
        assert name in str(caught.value)


# Shapes


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 8, 8, 3), (1, 3, 8, 9), (1, 3, 7, 8), (1, 3, 0, 8)])
def test_images_of_a_wrong_shape_are_refused(tiny: Autoencoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(TensorError):
        tiny.encode(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 8, 8), (1, 3, 8, 8), (1, 8, 8, 4), (1, 4, 0, 8), (0, 4, 8, 8)])
def test_latents_of_a_wrong_shape_are_refused(tiny: Autoencoder, shape: tuple[int, ...]) -> None:
    for work in (tiny.decode, tiny.to_scaled, tiny.to_raw):
        with pytest.raises(TensorError, match=r"\(B, 4, h, w\) is needed"):
            work(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (1, 3, 32, 64), (1, 3, 31, 32), (1, 3, 0, 32)])
def test_a_network_of_one_size_takes_images_of_that_size_only(tiny_vector_vae: Any, shape: tuple[int, ...]) -> None:
    vae = wrap(tiny_vector_vae)
    with pytest.raises(TensorError, match=f"image tensor is {shape[3]}x{shape[2]}; this model takes 32x32 only"):
        vae.encode(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 6, 2, 1), (1, 6, 1, 2), (1, 6, 4, 4), (1, 5, 1, 1), (0, 6, 1, 1), (1, 6)])
def test_a_network_of_one_size_takes_latents_of_one_vector_only(tiny_vector_vae: Any, shape: tuple[int, ...]) -> None:
    vae = wrap(tiny_vector_vae)
    for work in (vae.decode, vae.to_scaled, vae.to_raw):
        with pytest.raises(TensorError, match=r"\(B, 6, 1, 1\) is needed"):
            work(torch.zeros(shape))


def test_a_vectors_result_is_bitwise_its_own_in_any_batch(tiny_vector_vae: Any) -> None:
    vae = wrap(tiny_vector_vae)
    images, latents = noise(3, 3, 32, 32), noise(3, 6, 1, 1)
    for index in range(3):
        one = slice(index, index + 1)
        assert torch.equal(vae.encode(images).mean[one], vae.encode(images[one]).mean)
        assert torch.equal(vae.decode(latents)[one], vae.decode(latents[one]))


def test_scaling_by_the_statistics_of_each_dimension_works_on_vectors(tiny_vector_vae: Any) -> None:
    mean, std = [0.1 * n for n in range(6)], [1.0 + n for n in range(6)]
    vae = wrap(tiny_vector_vae, latents_mean=mean, latents_std=std, scaling_factor=1.0)
    raw = noise(2, 6, 1, 1)
    scaled = (raw - torch.tensor(mean).view(6, 1, 1)) / torch.tensor(std).view(6, 1, 1)
    torch.testing.assert_close(vae.to_scaled(raw), scaled, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(vae.to_raw(scaled), raw, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 5])
def test_any_multiple_of_f_works(tiny: Autoencoder, side: int) -> None:
    latents = tiny.encode(noise(1, 3, 2 * side, 2)).mode()
    assert latents.shape == (1, 4, side, 1)
    assert tiny.decode(latents).shape == (1, 3, 2 * side, 2)


def test_latents_beyond_any_image_are_refused_not_returned_as_nan(tiny: Autoencoder) -> None:
    with pytest.raises(NonFiniteError, match="largest magnitude is 3e"):
        tiny.decode(torch.full((1, 4, 2, 2), 3e38))


def test_what_was_computed_again_is_told(build_kl: Build) -> None:
    module = build_kl()
    module.decoder.conv_out.bias.data.fill_(1e5)  # beyond float16
    checkpoint = replace(load_checkpoint("f8c4"), module=module, config=dict(module.config))
    vae = Autoencoder(checkpoint, Placement(torch.device("cpu"), torch.float16))
    told: list[list[int]] = []
    images = vae.decode(noise(2, 4, 2, 2), on_retry=told.append)
    assert told == [[0, 1]]
    assert images.isfinite().all()
    assert images.dtype == torch.float32


# Memory


def test_the_weights_count_with_what_is_kept_beside_them(
    build_kl: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "WINOGRAD_CHANNELS", 32)
    build_kl(block_out_channels=(32, 32)).save_pretrained(tmp_path)
    plain, half, rewritten = (
        load_autoencoder(str(tmp_path), scale=1.0, device="cpu", dtype=dtype, rewrites=rewrites).spec
        for dtype, rewrites in (("float32", False), ("bfloat16", False), ("float32", True))
    )
    four = 4 * plain.parameters
    assert plain.weights_bytes == four
    assert half.weights_bytes == four + four // 2
    # 36 numbers in the place of 9.
    assert 3 * four < rewritten.weights_bytes < 6 * four
