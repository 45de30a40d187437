# SPDX-License-Identifier: Apache-2.0
"""The smooth count of bits follows what the entropy coder takes, and its slopes are those of the count."""

import numpy as np
import pytest
import torch
from torch import Tensor

from latentwire_codec.lat import coder
from latentwire_codec.lat.context import ContextModel
from latentwire_codec.lat.expected_bits import ExpectedBits
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.tables import common_tables

CPU = torch.device("cpu")


def smooth(channels: int, height: int, width: int, spread: float) -> np.ndarray:
    """Make integers whose neighbours, in places and channels, are alike."""
    generator = np.random.default_rng(5)
    planes = generator.normal(size=(channels, height, width)).cumsum(axis=1).cumsum(axis=2) * 0.1
    planes += 0.5 * np.roll(planes, 1, axis=0) + generator.normal(size=planes.shape)
    return np.rint(planes * spread).astype(np.int64)


def model_of(integers: np.ndarray) -> ContextModel:
    return common_tables().context_model(SideInformation.fit(integers))


def bits_of(values: Tensor, integers: np.ndarray) -> Tensor:
    channels, height, width = integers.shape
    return ExpectedBits((channels, height, width), model_of(integers), CPU)(values)


@pytest.mark.parametrize("channels", [1, 4, 32])
@pytest.mark.parametrize("spread", [0.6, 2.0, 30.0])
def test_of_integers_it_is_about_what_the_coder_takes(channels: int, spread: float) -> None:
    integers = smooth(channels, 32, 40, spread)
    coded = coder.encode(integers, model_of(integers))
    taken = 8 * (len(coded.symbols) + len(coded.escapes) + len(coded.low_bits))
    assert bits_of(torch.from_numpy(integers).float(), integers).item() == pytest.approx(taken, rel=0.08)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (8, 8), (17, 5)])
def test_maps_of_any_size_have_bits(size: tuple[int, int]) -> None:
    integers = smooth(3, *size, 4.0)
    bits = bits_of(torch.from_numpy(integers).float(), integers)
    assert bits.isfinite()
    assert bits > 0


def test_the_slope_is_that_of_the_count() -> None:
    integers = smooth(2, 8, 8, 3.0)
    generator = torch.Generator().manual_seed(1)
    values = torch.from_numpy(integers).float() + torch.rand(integers.shape, generator=generator) - 0.5
    direction = torch.randn(values.shape, generator=generator)
    values.requires_grad_()
    (slope,) = torch.autograd.grad(bits_of(values, integers), values)
    with torch.no_grad():
        far, near = (bits_of(values + side * 1e-3 * direction, integers).item() for side in (1, -1))
    assert (slope * direction).sum().item() == pytest.approx((far - near) / 2e-3, rel=0.02)


def test_what_is_far_from_its_neighbours_is_drawn_back_to_them() -> None:
    integers = smooth(1, 16, 16, 2.0)
    values = torch.from_numpy(integers).float()
    values[0, 7, 9] += 500
    values.requires_grad_()
    (slope,) = torch.autograd.grad(bits_of(values, integers), values)
    assert slope.isfinite().all()
    assert slope[0, 7, 9] > 0.1
