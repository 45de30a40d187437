# SPDX-License-Identifier: Apache-2.0
"""Networks in bfloat16, whole layers at a time: close to float32, closer than the class in bfloat16, and batch-free."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from latentwire_codec.load import load_autoencoder
from latentwire_codec.runtime.whole import kernels
from latentwire_codec.runtime.whole.kl import WholeKL
from latentwire_codec.runtime.whole.latent import WholeLatent
from latentwire_codec.runtime.whole.layers import Convolution, Upsampled

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU has no instructions for bfloat16"
)
STEP = 2.0**-8  # the relative distance of neighbouring bfloat16 numbers
LAST = torch.channels_last


def no_pause() -> None:
    """Go on."""


def error(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).norm() / other.float().norm())


def feature_map(channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    made = torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(seed))
    return made.contiguous(memory_format=LAST)


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([2, 6, 32, 40]), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=40)
def test_normalise_is_group_normalisation_with_one_rounding(
    height: int, width: int, channels: int, silu: bool, half: bool
) -> None:
    values = 3 * feature_map(channels, height, width) + 5
    values = (values.bfloat16() if half else values).contiguous(memory_format=LAST)
    layer = nn.GroupNorm(2, channels, eps=1e-3).requires_grad_(False)
    layer.weight.normal_(generator=torch.Generator().manual_seed(1))
    expected = torch.native_group_norm(
        values.double(), layer.weight.double(), layer.bias.double(), 1, channels, height * width, 2, layer.eps
    )[0]
    expected = functional.silu(expected) if silu else expected
    found = kernels.normalise(values, kernels.measure(values), layer, silu)
    torch.testing.assert_close(found.double(), expected, rtol=STEP, atol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_stays_not_finite(value: float) -> None:
    values = feature_map(4, 3, 3)
    values[0, 1, 1, 1] = value
    layer = nn.GroupNorm(2, 4).requires_grad_(False)
    assert not kernels.normalise(values, kernels.measure(values), layer, silu=True).isfinite().all()


def test_large_values_do_not_overflow_in_the_activation() -> None:
    values = torch.tensor([-1e4, 1e4]).view(1, 1, 1, 2).contiguous(memory_format=LAST)
    sums = torch.tensor([[0.0], [2.0]], dtype=torch.float64)  # as if the mean were 0 and the variance 1
    found = kernels.normalise(values, sums, nn.GroupNorm(1, 1, eps=0).requires_grad_(False), silu=True).float()
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 1e4]), rtol=STEP, atol=1e-30)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_add_measures_the_sum_and_adds_to_a_float32_map_in_place(dtype: torch.dtype) -> None:
    total, term = feature_map(6, 5, 7).to(dtype), feature_map(6, 5, 7, seed=1).bfloat16()
    expected = total.float() + term.float()
    result, sums = kernels.add(total, term)
    assert torch.equal(result, expected)
    assert (result is total) == (dtype == torch.float32)
    wanted = torch.stack([expected.double().sum((0, 2, 3)), expected.double().square().sum((0, 2, 3))])
    torch.testing.assert_close(sums, wanted)


def test_the_number_of_threads_does_not_change_a_normalised_map() -> None:
    values, layer, threads = feature_map(8, 33, 17), nn.GroupNorm(2, 8).requires_grad_(False), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(kernels.normalise(values, kernels.measure(values), layer, silu=True))
    finally:
        torch.set_num_threads(threads)
    assert error(*found) < STEP / 4


@torch.inference_mode()
def test_a_convolution_follows_the_size_of_its_map() -> None:
    layer = nn.Conv2d(8, 16, 3, padding=1)
    convolution = Convolution.of(layer)
    for side in (16, 5, 16):
        x = feature_map(8, side, side + 1)
        assert error(convolution(x.bfloat16()), layer(x)) < 2 * STEP


@torch.inference_mode()
def test_upsampling_on_the_small_map_is_upsampling_before_the_convolution() -> None:
    layer = nn.Conv2d(4, 6, 3, padding=1)
    x = feature_map(4, 5, 3)
    expected = layer(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
    assert error(Upsampled(layer)(x.bfloat16()), expected) < 2 * STEP


@torch.inference_mode()
def test_a_whole_kl_is_closer_to_float32_than_its_class_in_bfloat16(build_kl: Callable[..., Any]) -> None:
    module = build_kl(block_out_channels=(8, 16), layers_per_block=2)
    whole, half = WholeKL(module), copy.deepcopy(module).to(torch.bfloat16)
    images = feature_map(3, 32, 48).clamp(-1, 1)
    posterior = module.encode(images).latent_dist
    mean, logvar = whole.encode(images, no_pause)
    assert error(mean, posterior.mean) < error(half.encode(images.bfloat16()).latent_dist.mean, posterior.mean)
    assert error(logvar, posterior.logvar) < 0.1
    expected = module.decode(posterior.mean).sample
    (found,) = whole.decode(posterior.mean, no_pause)
    assert error(found, expected) < error(half.decode(posterior.mean.bfloat16()).sample, expected)


@torch.inference_mode()
def test_a_whole_latent_vae_is_closer_to_float32_than_its_class_in_bfloat16(tiny_latent_vae: Any) -> None:
    whole, half = WholeLatent(tiny_latent_vae), copy.deepcopy(tiny_latent_vae).to(torch.bfloat16)
    images = feature_map(3, 32, 48).clamp(-1, 1)
    posterior = tiny_latent_vae.encode(images).latent_dist
    mean, logvar = whole.encode(images, no_pause)
    assert error(mean, posterior.mean) < error(half.encode(images.bfloat16()).latent_dist.mean, posterior.mean)
    assert error(logvar, posterior.logvar) < 0.05
    expected = tiny_latent_vae.decode(posterior.mean).sample
    (found,) = whole.decode(posterior.mean, no_pause)
    assert error(found, expected) < error(half.decode(posterior.mean.bfloat16()).sample, expected)


def test_the_batch_is_left_to_pause_between_the_layers(tiny_latent_vae: Any) -> None:
    pauses: list[None] = []
    with torch.inference_mode():
        WholeLatent(tiny_latent_vae).encode(feature_map(3, 16, 16), lambda: pauses.append(None))
    assert len(pauses) > 1


def test_an_unknown_part_is_refused(build_kl: Callable[..., Any]) -> None:
    module = build_kl()
    module.encoder.conv_act = nn.ReLU()
    with pytest.raises(NotImplementedError, match="not computed"):
        WholeKL(module)


def test_in_bfloat16_an_image_with_room_runs_whole_and_a_larger_one_in_strips(tiny_kl_folder: Path) -> None:
    image = feature_map(3, 64, 96).clamp(-1, 1)
    exact = load_autoencoder(str(tiny_kl_folder), device="cpu", dtype="float32", scale=1.0)
    roomy, tight = (
        load_autoencoder(str(tiny_kl_folder), device="cpu", dtype="bfloat16", scale=1.0, activation_memory_mib=memory)
        for memory in (1024, 1)
    )
    large = torch.cat([torch.cat([image] * 3, dim=2)] * 3, dim=3)
    for images in (image, large):
        latents = exact.encode(images).mean
        pictures = exact.decode(latents)
        for model in (roomy, tight):
            assert error(model.encode(images).mean, latents) < 0.05
            assert error(model.decode(latents), pictures) < 0.05
    assert not torch.equal(roomy.encode(large).mean, tight.encode(large).mean)


def test_in_bfloat16_an_image_is_bitwise_its_own_whatever_else_is_in_the_batch(tiny_kl_folder: Path) -> None:
    model = load_autoencoder(str(tiny_kl_folder), device="cpu", dtype="bfloat16", scale=1.0)
    images = torch.cat([feature_map(3, 32, 32, seed).clamp(-1, 1) for seed in range(3)])
    together = model.encode(images).mean
    for index in range(3):
        assert torch.equal(together[index : index + 1], model.encode(images[index : index + 1]).mean)
