# SPDX-License-Identifier: Apache-2.0
"""MS-SSIM with a gradient: against another implementation, by hand, and on crops that have fewer scales."""

from collections.abc import Callable

import pytest
import pytorch_msssim
import torch
import torch.nn.functional as F
from torch import Tensor

from latentwire_codec.metrics.similarity import ms_ssim_loss
from latentwire_core.errors import TensorError
from tests.train.test_losses import noise, picture

reference_ms_ssim: Callable[..., Tensor] = pytorch_msssim.ms_ssim


@pytest.mark.parametrize(("height", "width"), [(161, 161), (176, 200), (163, 258)])
def test_ms_ssim_is_that_of_pytorch_msssim_where_five_scales_fit(height: int, width: int) -> None:
    target = picture(height, width, batch=1).double()
    prediction = target + 0.2 * noise(1, 3, height, width).double()
    expected = reference_ms_ssim((prediction + 1) / 2, (target + 1) / 2, data_range=1.0)
    assert 0.2 < expected.item() < 0.98
    # The reference has a window of float32, whose sum misses 1.
    assert 1 - ms_ssim_loss(prediction, target).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize(
    ("side", "scales"), [(20, 1), (22, 2), (40, 2), (44, 3), (64, 3), (80, 3), (88, 4), (160, 4), (176, 5)]
)
def test_ms_ssim_of_small_crops_has_the_scales_that_fit_with_normalised_weights(side: int, scales: int) -> None:
    # Two flat images differ in the luminance of the last scale only: its exponent shows how many scales there were.
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)[:scales]
    exponent = weights[-1] / sum(weights) if scales < 5 else 0.1333
    a, b, c1 = 0.4, 0.8, 0.01**2
    luminance = (2 * a * b + c1) / (a**2 + b**2 + c1)
    dark, bright = (torch.full((1, 3, side, side + 64), 2 * level - 1, dtype=torch.float64) for level in (a, b))
    assert 1 - ms_ssim_loss(dark, bright).item() == pytest.approx(luminance**exponent, abs=1e-9)


@pytest.mark.parametrize("side", [11, 21, 41, 65, 81])
def test_ms_ssim_takes_odd_crops(side: int) -> None:
    target = picture(side, side, batch=1)
    assert abs(ms_ssim_loss(target, target).item()) < 1e-6
    assert 0 < ms_ssim_loss(target + 0.1 * noise(1, 3, side, side), target).item() < 1


def test_ms_ssim_at_64_px_falls_as_noise_and_blur_grow() -> None:
    target = picture(64, 64)
    noisy = [ms_ssim_loss(target + size * noise(2, 3, 64, 64), target).item() for size in (0, 0.02, 0.1, 0.3, 0.9)]
    blurred = [ms_ssim_loss(F.avg_pool2d(target, n, 1, n // 2), target).item() for n in (1, 3, 5, 9, 17)]
    for losses in (noisy, blurred):
        assert losses == sorted(losses)
        assert len(set(losses)) == 5
        assert 0 <= losses[0] < 1e-6
        assert losses[-1] < 1


def test_ms_ssim_refuses_images_below_its_window() -> None:
    with pytest.raises(TensorError, match="image is 64x10; MS-SSIM needs each side >= 11"):
        ms_ssim_loss(torch.zeros(1, 3, 10, 64), torch.zeros(1, 3, 10, 64))
