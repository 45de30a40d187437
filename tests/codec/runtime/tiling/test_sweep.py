# SPDX-License-Identifier: Apache-2.0
"""Feature maps in strips: each value as if the whole were computed at once."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from latentwire_codec.runtime.tiling import sweep as sweeps
from latentwire_codec.runtime.tiling.convolution import Plain
from latentwire_codec.runtime.tiling.feature_map import Convolved, Normalised, Rectified, Stored, Sum
from latentwire_codec.runtime.tiling.sweep import Sweep

CPU = torch.device("cpu")
HUGE = 1 << 40


@pytest.fixture(autouse=True)
def narrow_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "CPU_STRIP", 1)


def sweep(pauses: list[int] | None = None, budget_bytes: int = HUGE) -> Sweep:
    return Sweep(CPU, torch.float64, budget_bytes, lambda: None if pauses is None else pauses.append(1))


def stored(channels: int = 4, height: int = 37, width: int = 9, mean: float = 0.0) -> Stored:
    torch.manual_seed(3)
    values = torch.randn(1, channels, height, width, dtype=torch.float64) + mean
    return Stored(values.to(memory_format=torch.channels_last), CPU)


def test_a_map_is_stored_in_strips_with_a_pause_after_each() -> None:
    x, pauses = stored(), list[int]()
    kept = sweep(pauses).store(Rectified(x))
    assert torch.equal(kept.values, x.values.relu())
    assert len(pauses) == -(-37 // sweeps.STEP)
    assert kept.values.is_contiguous(memory_format=torch.channels_last)


def test_a_map_may_be_written_over_the_one_that_it_is_computed_from() -> None:
    x = stored(channels=6)
    torch.manual_seed(5)
    one, two = (nn.Conv2d(6, 6, 3, padding=1, dtype=torch.float64).requires_grad_(False) for _ in range(2))
    expected = x.values + two(one(x.values.relu()).relu())
    inner = Convolved(Rectified(x), Plain.of(one))
    kept = sweep().store(Sum(x, Convolved(Rectified(inner), Plain.of(two))), into=x)
    assert kept.values.data_ptr() == x.values.data_ptr()
    torch.testing.assert_close(kept.values, expected, rtol=0, atol=1e-12)


def test_what_the_pause_raises_ends_the_sweep() -> None:
    class Ended(Exception):
        pass

    def end() -> None:
        raise Ended

    with pytest.raises(Ended):
        Sweep(CPU, torch.float64, HUGE, end).store(Rectified(stored()))


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_a_normalisation_in_strips_has_the_statistics_of_the_whole_map(silu: bool, mean: float) -> None:
    x, layer = stored(channels=8, mean=mean), nn.GroupNorm(2, 8, dtype=torch.float64).requires_grad_(False)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    # Not in channels_last: there torch's own sums the squares before it takes the mean off.
    expected: Tensor = layer(x.values.contiguous())
    normal = Normalised(x, layer, sweep().moments(x), silu)
    wanted = functional.silu(expected) if silu else expected
    torch.testing.assert_close(normal.rows(5, 21), wanted[:, :, 5:21], rtol=0, atol=1e-10)


def test_a_normalisation_in_float32_keeps_its_digits_where_the_mean_is_far_from_zero() -> None:
    x, layer = stored(channels=8, mean=1e3), nn.GroupNorm(2, 8).requires_grad_(False)
    expected = functional.group_norm(x.values.contiguous(), 2)
    single = Stored(x.values.float(), CPU)
    normal = Normalised(single, layer, sweep().moments(single), silu=False)
    # The values themselves have an error of 6e-5 in float32.
    torch.testing.assert_close(normal.rows(0, 37).double(), expected, rtol=0, atol=2e-4)


def test_moments_are_measured_once_where_the_map_is_stored() -> None:
    x, pauses = stored(), list[int]()
    kept = sweep().store(Rectified(x), measured=True)
    assert sweep(pauses).moments(kept) is kept.moments
    assert not pauses
    sweep(pauses).moments(Rectified(x))
    assert len(pauses) == 5
