# SPDX-License-Identifier: Apache-2.0
"""Convolutions with less arithmetic are the same functions as torch's."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from latentwire_codec.runtime.tiling import convolution
from latentwire_codec.runtime.tiling.convolution import Convolution, Plain, Shuffled, Upsampled
from latentwire_codec.runtime.tiling.feature_map import Convolved, Stored

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 10**9], ids=["winograd", "directly"])
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Winograd's method take every 3x3 convolution, or none."""
    monkeypatch.setattr(convolution, "WINOGRAD_CHANNELS", request.param)


def layer(n_in: int, n_out: int, kernel: int = 3, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    torch.manual_seed(n_in + 7 * n_out)
    padding = kernel // 2 if stride == 1 else 0
    return nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=bias, dtype=torch.float64).requires_grad_(False)


def image(channels: int, height: int, width: int) -> Tensor:
    torch.manual_seed(height * width)
    return torch.randn(1, channels, height, width, dtype=torch.float64).to(memory_format=torch.channels_last)


def convolved(x: Tensor, by: Convolution) -> Tensor:
    feature = Convolved(Stored(x, CPU), by)
    return feature.rows(0, feature.height)


@pytest.mark.usefixtures("method")
@given(
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    bias=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_3x3_convolution_is_torchs(channels: tuple[int, int], size: tuple[int, int], bias: bool) -> None:
    conv, x = layer(*channels, bias=bias), image(channels[0], *size)
    torch.testing.assert_close(convolved(x, Plain.of(conv)), conv(x), rtol=0, atol=1e-11)


@pytest.mark.usefixtures("method")
@given(size=st.tuples(st.integers(1, 13), st.integers(1, 13)), bias=st.booleans())
@settings(max_examples=60, deadline=None)
def test_upsampling_and_a_convolution_are_one_on_the_small_grid(size: tuple[int, int], bias: bool) -> None:
    conv, x = layer(5, 3, bias=bias), image(5, *size)
    expected = conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(convolved(x, Upsampled(conv)), expected, rtol=0, atol=1e-11)


@pytest.mark.usefixtures("method")
@pytest.mark.parametrize(("kernel", "scale"), [(1, 8), (1, 2), (3, 2)])
def test_a_convolution_to_blocks_of_pixels_is_torchs_pixel_shuffle(kernel: int, scale: int) -> None:
    conv, x = layer(4, 3 * scale * scale, kernel), image(4, 5, 7)
    expected = functional.pixel_shuffle(conv(x), scale)
    torch.testing.assert_close(convolved(x, Shuffled(conv, scale)), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 2), (8, 8)])
def test_other_kernels_are_torchs_bit_for_bit(kernel: int, stride: int) -> None:
    conv, x = layer(4, 6, kernel, stride), image(4, 16, 24)
    assert torch.equal(convolved(x, Plain.of(conv)), conv(x))


def test_the_downsampling_of_an_autoencoder_kl_pads_below_and_to_the_right() -> None:
    conv, x = layer(4, 6, 3, 2), image(4, 10, 12)
    expected = conv(functional.pad(x, (0, 1, 0, 1)))
    torch.testing.assert_close(convolved(x, Plain(conv.weight, conv.bias, 2, (0, 1))), expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("method")
@pytest.mark.parametrize("make", [Plain.of, Upsampled, lambda conv: Shuffled(conv, 2)])
@pytest.mark.parametrize(("top", "bottom"), [(0, 3), (5, 6), (3, 10), (9, 10)])
def test_rows_are_those_of_the_whole(make: Callable[[nn.Conv2d], Convolution], top: int, bottom: int) -> None:
    feature = Convolved(Stored(image(4, 10, 6), CPU), make(layer(4, 8)))
    rows = feature.rows(top, bottom)
    torch.testing.assert_close(rows, feature.rows(0, feature.height)[:, :, top:bottom], rtol=0, atol=1e-11)
    out = torch.full_like(rows, torch.nan)
    assert feature.rows(top, bottom, out) is out
    assert torch.equal(out, rows)


def test_in_float32_the_error_is_no_more_than_a_few_times_the_direct_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    exact, x = layer(96, 96), image(96, 32, 32)
    single = layer(96, 96).float()
    by_winograd = convolved(x.float(), Plain.of(single))
    monkeypatch.setattr(convolution, "WINOGRAD_CHANNELS", 10**9)
    errors = [
        (output - exact(x)).square().mean().sqrt().item()
        for output in (by_winograd, convolved(x.float(), Plain.of(single)))
    ]
    assert 0 < errors[0] < 6 * errors[1] < 1e-5


def test_what_inference_mode_leaves_behind_is_of_use_outside_of_it() -> None:
    conv, x = layer(80, 80), image(80, 8, 8)
    with torch.inference_mode():
        inside = convolved(x, Plain.of(conv))
    torch.testing.assert_close(convolved(x, Plain.of(conv)), inside.clone(), rtol=0, atol=0)
