# SPDX-License-Identifier: Apache-2.0
"""The terms of the training loss: against other implementations, finite differences and sums by hand."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl

from latentwire_core.errors import CheckpointError, TensorError
from latentwire_train.config import ConfigError, LossWeights
from latentwire_train.loss.adversary import (
    PatchDiscriminator,
    feature_matching,
    hinge_discriminator_loss,
    hinge_generator_loss,
)
from latentwire_train.loss.images import (
    ReconstructionLoss,
    charbonnier,
    haar_bands,
    haar_wavelet,
    l1,
    laplacian_bands,
    laplacian_pyramid,
    mse,
)
from latentwire_train.loss.latents import RunningMoments, kl_divergence, quantization_noise, reparameterize
from latentwire_train.loss.lpips import lpips_from
from latentwire_train.recipes import config_from

Term = Callable[[Tensor, Tensor], Tensor]
TERMS: dict[str, Term] = ReconstructionLoss.TERMS


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


def picture(height: int, width: int, batch: int = 2) -> Tensor:
    """Smooth images with edges in [-1,1], none like the other, (B,3,H,W)."""
    y = torch.linspace(0, 6, height)[:, None]
    x = torch.linspace(0, 9, width)
    planes = [torch.sin(x * (1 + i / 4) + y * (2 - i / 5)) + (torch.cos(x + i) > y / 6) for i in range(3 * batch)]
    return torch.stack(planes).reshape(batch, 3, height, width).clamp(-1, 1)


# The latents


@given(
    st.lists(st.tuples(st.floats(-50, 50), st.floats(-12, 6)), min_size=1, max_size=12),
    st.lists(st.tuples(st.floats(-3, 3), st.floats(-30, 1)), min_size=1, max_size=12),
)
@settings(deadline=None)
def test_the_kl_divergence_is_that_of_torch_distributions(
    first: list[tuple[float, float]], second: list[tuple[float, float]]
) -> None:
    count = min(len(first), len(second))
    moments = torch.tensor([first[:count], second[:count]], dtype=torch.float64)
    mean, logvar = moments.unbind(dim=-1)
    standard = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch_kl(Normal(mean, (logvar / 2).exp()), standard).sum(dim=1)
    torch.testing.assert_close(kl_divergence(mean, logvar), expected)


def test_the_kl_divergence_of_each_image_is_a_sum_over_its_latents() -> None:
    mean = torch.zeros(2, 4, 3, 5)
    mean[1] = 2.0
    kl = kl_divergence(mean, torch.zeros_like(mean))
    assert kl.tolist() == [0.0, 60 * 2.0]  # mean^2 / 2 for each of 60 elements
    assert torch.equal(kl_divergence(mean.flatten(1), torch.zeros(2, 60)), kl)


def test_the_kl_divergence_is_the_one_from_posterior_to_prior() -> None:
    narrow, wide = torch.full((1, 1), -4.0), torch.full((1, 1), 4.0)
    zero = torch.zeros(1, 1)
    assert kl_divergence(zero, narrow).item() == pytest.approx((math.exp(-4) + 4 - 1) / 2)
    assert kl_divergence(zero, wide).item() == pytest.approx((math.exp(4) - 4 - 1) / 2)
    assert kl_divergence(zero, narrow) < kl_divergence(zero, wide) / 10


def test_gradients_of_latent_terms_agree_with_finite_differences() -> None:
    mean, logvar = (noise(2, 3, 2, 2, seed=i, dtype=torch.float64).requires_grad_() for i in (1, 2))
    # The same epsilon at every call, or the differences would be of two draws.
    assert torch.autograd.gradcheck(lambda m, v: reparameterize(m, v, seeded()), (mean, logvar))
    assert torch.autograd.gradcheck(kl_divergence, (mean, logvar))


def test_reparameterized_samples_have_the_posteriors_moments() -> None:
    mean, logvar = torch.full((200_000,), 3.0), torch.full((200_000,), math.log(0.25))
    z = reparameterize(mean, logvar, seeded())
    assert z.mean().item() == pytest.approx(3.0, abs=0.006)  # five standard errors
    assert z.std().item() == pytest.approx(0.5, abs=0.004)
    epsilon = noise(200_000)
    torch.testing.assert_close(z, mean + 0.5 * epsilon)


def test_the_same_generator_draws_the_same_latents() -> None:
    mean = noise(1, 4, 8, 8)
    first, again, other = (reparameterize(mean, mean, seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_quantization_noise_is_uniform_within_half_a_step() -> None:
    step = 0.25
    z = noise(4, 4, 100, 100, dtype=torch.float64)
    added = (quantization_noise(z, step, seeded()) - z) / step
    assert added.abs().max().item() <= 0.5
    assert added.mean().item() == pytest.approx(0.0, abs=5 / math.sqrt(12 * added.numel()))
    assert added.var().item() == pytest.approx(1 / 12, rel=0.02)
    # Kolmogorov and Smirnov: the largest gap between the distribution functions.
    expected = torch.linspace(-0.5, 0.5, added.numel(), dtype=torch.float64)
    assert (added.flatten().sort().values - expected).abs().max().item() < 2 / math.sqrt(added.numel())


def test_the_gradient_of_quantization_noise_is_the_identity() -> None:
    z = noise(2, 3, 4, 4).requires_grad_()
    upstream = noise(2, 3, 4, 4, seed=8)
    quantization_noise(z, 0.5).backward(upstream)
    assert torch.equal(z.grad if z.grad is not None else torch.empty(0), upstream)


def test_no_step_adds_no_noise_and_an_impossible_one_is_refused() -> None:
    z = noise(1, 2, 2, 2)
    assert torch.equal(quantization_noise(z, 0.0), z)
    for step in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"step is .*; it must be finite and >= 0"):
            quantization_noise(z, step)


@pytest.mark.parametrize("shape", [(16, 3, 8, 8), (64, 3)])
def test_running_moments_converge(shape: tuple[int, ...]) -> None:
    moments = RunningMoments(3, decay=0.98)
    mean, std = torch.tensor([-4.0, 0.0, 7.0]), torch.tensor([0.1, 1.0, 20.0])
    column = (-1, *[1] * (len(shape) - 2))
    for seed in range(300):
        moments.update(noise(*shape, seed=seed) * std.reshape(column) + mean.reshape(column))
    # At decay 0.98 about 100 batches count; five standard errors of the rarer shape.
    error = 5 / math.sqrt(100 * 64)
    assert ((moments.mean - mean).abs() < error * std).all()
    assert ((moments.variance.sqrt() / std - 1).abs() < error).all()

    z = noise(*shape, seed=1000) * std.reshape(column) + mean.reshape(column)
    white = moments.whiten(z)
    assert white.transpose(0, 1).flatten(1).std(dim=1).tolist() == pytest.approx([1.0] * 3, abs=0.35)
    torch.testing.assert_close(moments.unwhiten(white), z)


def test_the_first_running_moments_are_those_of_all_that_was_seen() -> None:
    # One vector at a time: the variance within a batch is 0, that between them counts.
    moments = RunningMoments(5)
    rows = noise(60, 5) * 3 + 1
    for row in rows:
        moments.update(row[None])
    torch.testing.assert_close(moments.mean, rows.mean(dim=0))
    torch.testing.assert_close(moments.variance, rows.var(dim=0, correction=0))


def test_running_moments_start_as_the_identity_and_travel_in_a_checkpoint() -> None:
    moments = RunningMoments(3)
    z = noise(4, 3, 2, 2) * 5
    assert torch.equal(moments.whiten(z), z)
    moments.update(z.bfloat16())
    restored = RunningMoments(3)
    restored.load_state_dict(moments.state_dict())
    assert torch.equal(restored.whiten(z), moments.whiten(z))
    for each in (moments, restored):
        each.update(z * 2)
    assert torch.equal(restored.variance, moments.variance)


def test_whitening_lets_gradients_through_and_survives_an_update() -> None:
    moments = RunningMoments(3)
    moments.update(noise(8, 3, 4, 4) * 4)
    z = noise(2, 3, 4, 4).requires_grad_()
    noisy = moments.unwhiten(quantization_noise(moments.whiten(z), 0.25, seeded()))
    moments.update(z)  # as a loop does, between the forward and the backward pass
    noisy.sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, torch.ones_like(z))


def test_a_collapsed_channel_stays_finite() -> None:
    moments = RunningMoments(2)
    constant = torch.full((4, 2, 3, 3), 7.0)
    moments.update(constant)
    assert moments.whiten(constant).abs().max().item() == 0.0


# The images


@pytest.mark.parametrize("name", TERMS)
def test_a_term_is_zero_at_equality_and_positive_elsewhere(name: str) -> None:
    images = picture(64, 96)
    assert abs(TERMS[name](images, images.clone()).item()) < 1e-6
    distances = [TERMS[name](images + size * noise(2, 3, 64, 96), images).item() for size in (0.01, 0.1, 0.5)]
    assert 0 < distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("name", TERMS)
def test_a_terms_gradient_agrees_with_finite_differences(name: str) -> None:
    target = picture(24, 16, batch=1)[:, :1].double()
    prediction = (target + 0.1 * noise(1, 1, 24, 16).double()).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: TERMS[name](p, target), prediction, fast_mode=True)


@pytest.mark.parametrize("other", ["equal", "flat", "opposite"])
@pytest.mark.parametrize("name", TERMS)
def test_a_terms_gradient_is_finite_where_a_root_or_a_quotient_is_zero(name: str, other: str) -> None:
    target = torch.zeros(1, 3, 64, 64) if other == "flat" else picture(64, 64, batch=1)
    prediction = (-target if other == "opposite" else target.clone()).requires_grad_()
    TERMS[name](prediction, target).backward()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()
    if other != "opposite":
        assert prediction.grad.abs().max().item() < 1e-4  # the minimum


@pytest.mark.parametrize("name", TERMS)
def test_a_term_under_autocast_is_what_it_is_in_float32(name: str) -> None:
    target = picture(64, 64)
    exact = (target + 0.05 * noise(2, 3, 64, 64)).bfloat16().float()
    expected = TERMS[name](exact, target)
    halved = exact.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = TERMS[name](halved, target)
        at_equality = TERMS[name](halved, halved.detach())
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected)
    assert abs(at_equality.item()) < 1e-6
    (actual + at_equality).backward()
    assert halved.grad is not None
    assert halved.grad.isfinite().all()


@pytest.mark.parametrize("name", TERMS)
def test_a_term_refuses_two_shapes_instead_of_broadcasting(name: str) -> None:
    with pytest.raises(TensorError, match=r"shapes \(2, 3, 64, 64\) and \(1, 3, 64, 64\); both must be equal"):
        TERMS[name](picture(64, 64), picture(64, 64)[:1])


def test_pixel_terms_have_their_known_values() -> None:
    target = torch.zeros(2, 3, 4, 4)
    prediction = target.clone()
    prediction[0] = 0.5  # half of all values
    assert l1(prediction, target).item() == pytest.approx(0.25)
    assert mse(prediction, target).item() == pytest.approx(0.125)
    assert charbonnier(prediction, target, eps=0.375).item() == pytest.approx((0.625 - 0.375) / 2)  # 3, 4, 5


@given(st.floats(1e-6, 2.0), st.sampled_from([1e-4, 1e-3, 1e-2]))
@settings(deadline=None)
def test_charbonnier_is_quadratic_below_eps_and_linear_above(difference: float, eps: float) -> None:
    zero = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    actual = charbonnier(zero + difference, zero, eps).item()
    assert actual == pytest.approx(math.sqrt(difference**2 + eps**2) - eps, abs=1e-15)
    assert max(difference - eps, 0) <= actual <= min(difference, difference**2 / (2 * eps))
    assert charbonnier(zero + difference, zero, 0.0).item() == pytest.approx(difference)


def test_charbonnier_refuses_a_negative_eps() -> None:
    with pytest.raises(ValueError, match="eps is -1"):
        charbonnier(torch.zeros(1), torch.zeros(1), -1)


def test_the_haar_transform_keeps_the_energy_and_can_be_undone() -> None:
    images = noise(2, 3, 12, 20, dtype=torch.float64)
    bands = haar_bands(images)
    assert bands.shape == (2, 4, 3, 6, 10)
    assert bands.square().sum().item() == pytest.approx(images.square().sum().item())
    ll, lh, hl, hh = bands.unbind(dim=1)
    restored = torch.empty_like(images)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        block = ll + (-1) ** row * lh + (-1) ** column * hl + (-1) ** (row + column) * hh
        restored[..., row::2, column::2] = block / 2
    torch.testing.assert_close(restored, images)


def test_the_haar_bands_are_named_by_what_they_see() -> None:
    stripes = torch.ones(1, 1, 4, 4)
    stripes[..., 1::2] = -1.0  # vertical lines: they alternate along the rows
    for images, band in ((torch.ones(1, 1, 4, 4), 0), (stripes.mT, 1), (stripes, 2), (stripes * stripes.mT, 3)):
        energy = haar_bands(images).square().sum(dim=(0, 2, 3, 4))
        assert energy.tolist() == [16.0 if i == band else 0.0 for i in range(4)]


def test_the_wavelet_term_sees_detail_and_not_brightness() -> None:
    target = picture(16, 16)
    assert haar_wavelet(target + 0.3, target, levels=3).item() == pytest.approx(0.0, abs=1e-6)
    stripes = torch.ones(2, 3, 16, 16)
    stripes[..., 1::2] = -1.0
    # One band of three at one level is 2 * 0.1 everywhere.
    assert haar_wavelet(target + 0.1 * stripes, target, eps=0.0).item() == pytest.approx(0.2 / 3, abs=1e-6)
    assert haar_wavelet(target + 0.1 * stripes, target, levels=2, eps=0.0).item() == pytest.approx(0.1 / 3, abs=1e-6)


def test_the_haar_transform_refuses_odd_sides() -> None:
    with pytest.raises(TensorError, match="image is 5x4; each level of the Haar transform needs even sides"):
        haar_bands(torch.zeros(1, 3, 4, 5))
    with pytest.raises(TensorError, match="image is 3x2"):
        haar_wavelet(torch.zeros(1, 3, 4, 6), torch.zeros(1, 3, 4, 6), levels=2)


@pytest.mark.parametrize(("height", "width"), [(64, 48), (37, 21), (1, 1)])
def test_the_laplacian_pyramid_can_be_undone(height: int, width: int) -> None:
    images = noise(2, 3, height, width, dtype=torch.float64)
    *bands, restored = laplacian_bands(images, levels=3)
    sizes = [tuple(band.shape[-2:]) for band in (*bands, restored)]
    assert sizes == [(-(-height // 2**i), -(-width // 2**i)) for i in range(4)]
    for band in reversed(bands):
        twice = F.interpolate(restored, scale_factor=2, mode="bilinear")
        restored = twice[..., : band.shape[-2], : band.shape[-1]] + band
    torch.testing.assert_close(restored, images)


def test_the_laplacian_term_sees_detail_and_not_brightness() -> None:
    target = picture(32, 40)
    assert laplacian_pyramid(target + 0.3, target).item() == pytest.approx(0.0, abs=1e-6)
    # The filter takes a slope to a slope, except at the borders.
    slope = torch.linspace(0, 1, 40).expand(1, 1, 32, 40)
    fine, *_ = laplacian_bands(slope, levels=1)
    assert fine[..., 3:-3].abs().max().item() < 1e-6
    # The filter has a zero at the highest frequency: all of it is in the first of three bands.
    stripes = torch.ones(2, 3, 32, 40)
    stripes[..., 1::2] = -1.0
    bands = laplacian_bands(stripes, levels=3)
    torch.testing.assert_close(bands[0][..., 4:-4], stripes[..., 4:-4])  # away from the replicated border
    assert bands[1][..., 4:-4].abs().max().item() < 1e-6


# LPIPS


def random_weights() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors with the names and shapes of torchvision's VGG16 and of LPIPS 0.1, random."""
    backbone, index, n_in = {}, 0, 3
    for depth, (count, n_out) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)]):
        index += depth > 0
        for _ in range(count):
            fan_in = 9 * n_in
            backbone[f"features.{index}.weight"] = noise(n_out, n_in, 3, 3, seed=index) * math.sqrt(2 / fan_in)
            backbone[f"features.{index}.bias"] = noise(n_out, seed=index + 100) / 10
            index, n_in = index + 2, n_out
    assert max(backbone) == "features.7.weight"
    assert "features.28.bias" in backbone
    backbone["classifier.6.bias"] = torch.zeros(1000)  # the file has a classifier, which is not read
    widths = (64, 128, 256, 512, 512)
    head = {f"lin{i}.model.1.weight": noise(1, n, 1, 1, seed=i).abs() / n for i, n in enumerate(widths)}
    return backbone, head


def reference_lpips(backbone: dict[str, Tensor], head: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
    """The definition, layer by layer, as published: the norm's epsilon stands outside the root."""
    features: list[list[Tensor]] = []
    for image in (a, b):
        x = image - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
        x = x / torch.tensor([0.458, 0.448, 0.450])[:, None, None]
        maps = []
        for layers in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)):
            x = F.max_pool2d(x, 2) if layers[0] else x
            for i in layers:
                x = F.conv2d(x, backbone[f"features.{i}.weight"], backbone[f"features.{i}.bias"], padding=1).relu()
            maps.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        features.append(maps)
    distance = torch.zeros(len(a))
    for i, (ours, theirs) in enumerate(zip(*features, strict=True)):
        weighted = F.conv2d((ours - theirs) ** 2, head[f"lin{i}.model.1.weight"])
        distance += weighted.mean(dim=(1, 2, 3))
    return distance.mean()


def test_lpips_from_disk_is_the_published_formula(tmp_path: Path) -> None:
    backbone, head = random_weights()
    torch.save(backbone, tmp_path / "vgg16-397923af.pth", _use_new_zipfile_serialization=False)  # as published
    torch.save(head, tmp_path / "vgg.pth")
    lpips = lpips_from(tmp_path)
    assert not any(parameter.requires_grad for parameter in lpips.parameters())

    target = picture(24, 32)
    prediction = (target + 0.2 * noise(2, 3, 24, 32)).requires_grad_()
    distance = lpips(prediction, target)
    expected = reference_lpips(backbone, head, prediction.detach(), target)
    assert expected.item() > 1e-3
    torch.testing.assert_close(distance, expected, rtol=1e-4, atol=0)
    distance.backward()
    assert prediction.grad is not None
    assert prediction.grad.abs().max() > 0

    # At equality, under autocast: nothing, and no NaN from the norm's root.
    same = target[:1, :, :16, :16].clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        at_equality = lpips(same, same.detach())
    at_equality.backward()
    assert at_equality.item() == 0.0
    assert same.grad is not None
    assert same.grad.isfinite().all()
    with pytest.raises(TensorError, match="both must be equal"):
        lpips(target, target[:1])

    loss = ReconstructionLoss(LossWeights(l1=1.0, lpips=0.5), lpips)
    total, parts = loss(prediction.detach(), target)
    assert set(parts) == {"l1", "lpips"}
    assert total.item() == pytest.approx(parts["l1"].item() + 0.5 * expected.item(), rel=1e-4)


def test_lpips_without_weights_says_which_files_it_needs(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"vgg16-397923af\.pth or .* and vgg\.pth or .*nothing is downloaded"):
        lpips_from(tmp_path)
    save_file({"lin0.model.1.weight": torch.ones(1, 64, 1, 1)}, tmp_path / "lpips_vgg.safetensors")
    with pytest.raises(CheckpointError) as refusal:
        lpips_from(tmp_path)
    assert "vgg16-397923af.pth" in str(refusal.value)
    assert "vgg.pth" not in str(refusal.value)


def test_lpips_weights_that_are_not_weights_are_refused(tmp_path: Path) -> None:
    head = tmp_path / "lpips_vgg.safetensors"
    backbone = tmp_path / "vgg16-397923af.pth"
    save_file({"lin0.model.1.weight": torch.ones(1, 64, 1, 1)}, head)

    backbone.write_bytes(b"<html>404</html>")
    with pytest.raises(CheckpointError, match=r"vgg16-397923af\.pth cannot be read"):
        lpips_from(tmp_path)
    torch.save(Path("a pickle can hold anything"), backbone)
    with pytest.raises(CheckpointError, match=r"vgg16-397923af\.pth cannot be read"):
        lpips_from(tmp_path)
    torch.save({"features.0.weight": torch.ones(64, 3, 5, 5)}, backbone)
    with pytest.raises(CheckpointError, match=r"features\.0\.weight .* is \(64, 3, 5, 5\); it must be \(64, 3, 3, 3\)"):
        lpips_from(tmp_path)
    torch.save({"features.0.weight": torch.ones(64, 3, 3, 3)}, backbone)
    with pytest.raises(CheckpointError, match=r"features\.0\.bias .* is missing; it must be \(64,\)"):
        lpips_from(tmp_path)


# The adversarial terms


def test_the_hinge_losses_have_their_known_values() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 2.0])
    # max(0, 1 - real) = 0, 0.5, 2; max(0, 1 + fake) = 0, 1, 3
    assert hinge_discriminator_loss(real, fake).item() == pytest.approx((2.5 / 3 + 4 / 3) / 2)
    assert hinge_generator_loss(fake).item() == pytest.approx(1 / 3)
    assert hinge_discriminator_loss(torch.ones(2), -torch.ones(2)).item() == 0.0


@pytest.mark.parametrize("norm", [True, False])
def test_a_patch_is_70_pixels_wide(norm: bool) -> None:
    discriminator = PatchDiscriminator(width=16, norm=norm)
    images = noise(1, 3, 128, 128).requires_grad_()
    logits = discriminator(images)
    assert logits.shape == (1, 1, 14, 14)
    if norm:
        return  # its statistics are those of the whole image
    logits[0, 0, 7, 7].backward()
    assert images.grad is not None
    seen = images.grad[0].abs().sum(dim=0) > 0
    assert int(seen.any(dim=0).sum()) == int(seen.any(dim=1).sum()) == 70


def test_a_logit_does_not_depend_on_the_rest_of_the_batch() -> None:
    discriminator = PatchDiscriminator(width=16)
    images = noise(3, 3, 32, 32)
    torch.testing.assert_close(discriminator(images)[1:2], discriminator(images[1:2]))


def test_the_smallest_images_of_the_discriminator() -> None:
    discriminator = PatchDiscriminator(width=16)
    assert discriminator(noise(2, 3, 24, 24)).shape == (2, 1, 1, 1)
    with pytest.raises(TensorError, match="image is 24x23; the discriminator needs each side >= 24"):
        discriminator(noise(2, 3, 23, 24))
    assert PatchDiscriminator(channels=1, width=16, layers=1)(noise(2, 1, 28, 28)).shape == (2, 1, 12, 12)


@pytest.mark.parametrize("norm", [True, False])
def test_the_discriminator_learns_to_tell_sharp_from_blurred(norm: bool) -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(width=8, layers=2, norm=norm)
    optimizer = torch.optim.AdamW(discriminator.parameters(), lr=2e-3, betas=(0.5, 0.9))

    def batch(seed: int) -> tuple[Tensor, Tensor]:
        sharp = noise(8, 3, 24, 24, seed=seed).clamp(-1, 1)
        return sharp, F.avg_pool2d(noise(8, 3, 24, 24, seed=seed + 500), 3, 1, 1)

    losses = []
    for step in range(30):
        sharp, blurred = batch(step)
        loss = hinge_discriminator_loss(discriminator(sharp), discriminator(blurred))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(1.0, abs=0.3)  # it cannot know yet
    with torch.no_grad():
        real, fake = (discriminator(images).mean(dim=(1, 2, 3)) for images in batch(999))
    assert hinge_discriminator_loss(real, fake).item() < 0.3
    assert real.min() > fake.max()
    assert hinge_generator_loss(fake) > hinge_generator_loss(real)


def test_feature_matching_is_zero_for_the_same_image_and_trains_the_fake_only() -> None:
    discriminator = PatchDiscriminator(width=16, layers=2)
    real, fake = (noise(2, 3, 32, 32, seed=seed).requires_grad_() for seed in (1, 2))
    stages = discriminator.features(real)
    assert torch.equal(stages[-1], discriminator(real))
    assert feature_matching(stages, stages).item() == 0.0
    feature_matching(stages, discriminator.features(fake)).backward()
    assert real.grad is None
    assert fake.grad is not None
    assert fake.grad.abs().max() > 0
    by_hand = [torch.ones(1, 2), torch.ones(1, 4), torch.zeros(1)]
    assert feature_matching(by_hand, [torch.zeros(1, 2), torch.full((1, 4), 4.0), torch.ones(1)]).item() == 2.0


def test_only_terms_with_a_weight_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(prediction: Tensor, target: Tensor) -> Tensor:
        raise AssertionError("computed although its weight is 0")

    for name in ("mse", "ms_ssim", "laplacian", "wavelet"):
        monkeypatch.setitem(TERMS, name, never)
    target = picture(10, 10)  # too small for MS-SSIM
    prediction = (target + 0.1).requires_grad_()
    total, parts = ReconstructionLoss(LossWeights(l1=2.0, charbonnier=0.5, kl=1e-6))(prediction, target)
    assert list(parts) == ["l1", "charbonnier"]
    assert parts["l1"].item() == pytest.approx(0.1, abs=1e-6)
    assert total.item() == pytest.approx(2 * parts["l1"].item() + 0.5 * parts["charbonnier"].item())
    assert not any(part.requires_grad for part in parts.values())
    total.backward()
    assert prediction.grad is not None


def test_all_terms_can_be_on_and_leave_nothing_in_a_checkpoint() -> None:
    weights = LossWeights(l1=1, mse=1, charbonnier=1, ms_ssim=1, laplacian=1, wavelet=1)
    loss = ReconstructionLoss(weights)
    assert not loss.state_dict()
    total, parts = loss(picture(64, 64) + 0.1 * noise(2, 3, 64, 64), picture(64, 64))
    assert set(parts) == set(TERMS)
    assert total.item() == pytest.approx(sum(part.item() for part in parts.values()))


@pytest.mark.parametrize("weights", [{}, {"kl": 1.0, "adversarial": 1.0}])
def test_a_loss_without_reconstruction_is_refused(weights: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"every reconstruction term is off; give one of l1, mse, .*lpips a weight"):
        ReconstructionLoss(LossWeights(**weights))


def test_a_weight_for_lpips_needs_lpips() -> None:
    with pytest.raises(ConfigError, match=r"loss\.weights\.lpips is 0\.5; load it with lpips_from"):
        ReconstructionLoss(LossWeights(l1=1.0, lpips=0.5))


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_impossible_weights_are_refused(weight: float) -> None:
    with pytest.raises(ConfigError, match=r"loss\.weights\.kl is .*; it must be (a finite|greater than)"):
        config_from({"loss": {"weights": {"kl": weight}}})
