# SPDX-License-Identifier: Apache-2.0
"""Two images in, known quality figures out, checked against scikit-image, pytorch-msssim and by hand."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import pytorch_msssim
import skimage.data
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from latentwire_codec.images.geometry import Pixels
from latentwire_codec.metrics.scores import bits_per_pixel, ms_ssim, psnr, ssim, ssimulacra2
from latentwire_core.errors import TensorError

astronaut: Callable[[], Pixels] = skimage.data.astronaut
reference_psnr: Callable[..., float] = peak_signal_noise_ratio
reference_ssim: Callable[..., tuple[float, npt.NDArray[np.float64]]] = structural_similarity


@pytest.fixture(scope="module")
def photo() -> Pixels:
    crop: Pixels = np.ascontiguousarray(astronaut()[:180, 100:301])
    return crop


@pytest.fixture(scope="module")
def noisy(photo: Pixels) -> Pixels:
    noise = np.random.default_rng(1).normal(0, 12, photo.shape)
    return np.clip(photo + noise, 0, 255).round().astype(np.uint8)


def test_equal_images_score_the_maximum(photo: Pixels) -> None:
    assert psnr(photo, photo.copy()) == math.inf
    assert ssim(photo, photo.copy()) == pytest.approx(1.0, abs=1e-12)
    assert ms_ssim(photo, photo.copy()) == pytest.approx(1.0, abs=1e-12)


def test_psnr_of_known_differences() -> None:
    black = np.zeros((4, 5, 3), np.uint8)
    assert psnr(black, np.full_like(black, 255)) == 0.0
    assert psnr(black, np.full_like(black, 1)) == pytest.approx(48.130803609)
    one_channel = black.copy()
    one_channel[..., 2] = 3  # the mean square over all three channels is 9 / 3
    assert psnr(black, one_channel) == pytest.approx(20 * math.log10(255) - 10 * math.log10(3))


def test_psnr_does_not_wrap_around_in_uint8() -> None:
    low, high = np.full((2, 2, 3), 10, np.uint8), np.full((2, 2, 3), 250, np.uint8)
    assert psnr(low, high) == psnr(high, low) == pytest.approx(20 * math.log10(255 / 240))


def test_psnr_agrees_with_scikit_image(photo: Pixels, noisy: Pixels) -> None:
    expected = reference_psnr(photo, noisy, data_range=255)
    assert psnr(photo, noisy) == pytest.approx(expected, abs=1e-9)


def test_ssim_agrees_with_scikit_image_where_the_window_is_inside(photo: Pixels, noisy: Pixels) -> None:
    _, local = reference_ssim(
        photo,
        noisy,
        channel_axis=2,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        win_size=11,
        full=True,
    )
    expected = local[5:-5, 5:-5].mean()
    assert 0.3 < expected < 0.9
    assert ssim(photo, noisy) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_flat_images_is_the_luminance_term() -> None:
    a, b = np.full((16, 16, 3), 100, np.uint8), np.full((16, 16, 3), 120, np.uint8)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-6)


def test_ms_ssim_of_flat_images_is_the_luminance_term_at_the_last_scale() -> None:
    a, b = np.full((176, 176, 3), 100, np.uint8), np.full((176, 176, 3), 120, np.uint8)
    c1 = (0.01 * 255) ** 2
    luminance = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert ms_ssim(a, b) == pytest.approx(luminance**0.1333, abs=1e-6)


def test_ms_ssim_is_the_product_over_five_scales(photo: Pixels, noisy: Pixels) -> None:
    # The definition, from scikit-image's maps: 176 halves four times without odd sides.
    a = photo[:176, :176].astype(np.float64)
    b = noisy[:176, :176].astype(np.float64)
    weights = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    result = np.ones(3)
    for scale, weight in enumerate(weights):
        # Contrast and structure alone: without the means' difference, C1 over C1 would be 1,
        # which a huge K1 brings about.
        k1 = 0.01 if scale == len(weights) - 1 else 1e6
        _, local = reference_ssim(
            a,
            b,
            channel_axis=2,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            win_size=11,
            K1=k1,
            full=True,
        )
        result *= np.maximum(local[5:-5, 5:-5].mean(axis=(0, 1)), 0) ** weight
        half = a.shape[0] // 2
        if scale < len(weights) - 1:
            a, b = (x.reshape(half, 2, half, 2, 3).mean(axis=(1, 3)) for x in (a, b))
    actual = ms_ssim(np.ascontiguousarray(photo[:176, :176]), np.ascontiguousarray(noisy[:176, :176]))
    assert actual == pytest.approx(result.mean(), abs=1e-7)


@pytest.mark.parametrize(("height", "width"), [(161, 163), (180, 201), (176, 200)])
@pytest.mark.parametrize("name", ["ssim", "ms_ssim"])
def test_the_scores_agree_with_pytorch_msssim(photo: Pixels, noisy: Pixels, name: str, height: int, width: int) -> None:
    a, b = (np.ascontiguousarray(image[:height, :width]) for image in (photo, noisy))
    planes = [torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)[None].contiguous() for image in (a, b)]
    # Its own window is float32, whose sum misses 1: that moves SSIM by 7e-6.
    weights = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = torch.from_numpy(weights / weights.sum()).repeat(3, 1, 1, 1)
    expected = getattr(pytorch_msssim, name)(*planes, data_range=255, win=window).item()
    assert {"ssim": ssim, "ms_ssim": ms_ssim}[name](a, b) == pytest.approx(expected, abs=1e-12)


def test_opposite_images_have_an_ms_ssim_of_0() -> None:
    stripes = np.tile(np.array([[[0], [255]]], np.uint8), (176, 88, 3))
    assert ms_ssim(stripes, 255 - stripes) == 0
    assert ssim(stripes, 255 - stripes) < 0


def test_quality_falls_as_noise_grows(photo: Pixels) -> None:
    noise = np.random.default_rng(2).normal(0, 1, photo.shape)
    worse = [np.clip(photo + strength * noise, 0, 255).round().astype(np.uint8) for strength in (2, 8, 32)]
    for metric in (psnr, ssim, ms_ssim):
        scores = [metric(photo, image) for image in worse]
        assert scores == sorted(scores, reverse=True)
        assert len(set(scores)) == 3


def test_too_small_images_are_refused_with_the_limit() -> None:
    small = np.zeros((10, 400, 3), np.uint8)
    with pytest.raises(ValueError, match=r"400x10; SSIM needs each side >= 11"):
        ssim(small, small)
    small = np.zeros((160, 400, 3), np.uint8)
    with pytest.raises(ValueError, match=r"400x160; MS-SSIM needs each side >= 161"):
        ms_ssim(small, small)


def test_the_smallest_accepted_sides_are_computed() -> None:
    least = np.zeros((11, 11, 3), np.uint8)
    assert ssim(least, least) == pytest.approx(1.0)
    least = np.zeros((161, 161, 3), np.uint8)
    assert ms_ssim(least, least) == pytest.approx(1.0)


def test_different_shapes_and_dtypes_are_refused(photo: Pixels) -> None:
    for metric in (psnr, ssim, ms_ssim):
        with pytest.raises(TensorError, match="shapes"):
            metric(photo, photo[:-1])
        with pytest.raises(TensorError, match="float64; give uint8"):
            metric(photo, photo / 255.0)  # type: ignore[arg-type]


def test_bits_per_pixel_counts_pixels_not_samples() -> None:
    assert bits_per_pixel(512 * 512 * 3, 512, 512) == 24.0
    assert bits_per_pixel(1000, 100, 40) == 2.0
    assert bits_per_pixel(0, 1, 1) == 0.0


@pytest.mark.parametrize(("num_bytes", "width", "height"), [(-1, 8, 8), (1, 0, 8), (1, 8, 0)])
def test_bits_per_pixel_refuses_impossible_sizes(num_bytes: int, width: int, height: int) -> None:
    with pytest.raises(ValueError, match="must be >= 0"):
        bits_per_pixel(num_bytes, width, height)


def test_ssimulacra2_is_100_for_equal_images_and_falls_with_noise(photo: Pixels, noisy: Pixels) -> None:
    assert ssimulacra2(photo, photo) == pytest.approx(100)
    strong = (0.5 * photo + 0.5 * photo.mean()).astype(np.uint8)
    assert 100 > ssimulacra2(photo, noisy) > ssimulacra2(photo, strong)


def test_ssimulacra2_refuses_what_it_cannot_measure(photo: Pixels) -> None:
    with pytest.raises(ValueError, match="each side >= 8"):
        ssimulacra2(photo[:7], photo[:7])
    with pytest.raises(TensorError):
        ssimulacra2(photo, photo[1:])
