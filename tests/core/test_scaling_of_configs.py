# SPDX-License-Identifier: Apache-2.0
"""The factors of a diffusers configuration, and when two lists of factors agree."""

from typing import Any

import pytest

from latentwire_core.scaling import Scaling, from_config, same_numbers, spread


@pytest.mark.parametrize(
    ("config", "scaling"),
    [
        ({}, None),
        ({"shift_factor": 0.1}, None),
        ({"latents_mean": [1.0]}, None),
        ({"latents_std": [2.0]}, None),
        ({"scaling_factor": 0.18215}, Scaling((0.18215,), (0.0,))),
        ({"scaling_factor": 0.3611, "shift_factor": 0.1159}, Scaling((0.3611,), (0.1159,))),
        ({"scaling_factor": 0.5, "shift_factor": None}, Scaling((0.5,), (0.0,))),
        ({"scaling_factor": 0.5, "latents_mean": [1.0]}, Scaling((0.5,), (0.0,))),
        ({"latents_mean": [1, -2], "latents_std": [2, 4]}, Scaling((0.5, 0.25), (1.0, -2.0))),
        (
            {"scaling_factor": 3, "latents_mean": [1, -2], "latents_std": [2, 4], "shift_factor": 9},
            Scaling((1.5, 0.75), (1.0, -2.0)),
        ),
    ],
)
def test_a_configuration_has_its_factors(config: dict[str, Any], scaling: Scaling | None) -> None:
    assert from_config(config) == scaling


def test_scaled_latents_are_those_of_the_pipelines() -> None:
    # diffusers, Wan: (raw - mean) / std; SD: (raw - shift) * factor.
    scaling = from_config({"scaling_factor": 2.0, "latents_mean": [3.0], "latents_std": [4.0]})
    assert scaling is not None
    assert (5.0 - scaling.shift[0]) * scaling.scale[0] == (5.0 - 3.0) / 4.0 * 2.0


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"scaling_factor": "much"}, ValueError),
        ({"scaling_factor": [1.0]}, TypeError),
        ({"latents_mean": [0.0], "latents_std": [0.0]}, ZeroDivisionError),
    ],
)
def test_what_is_no_factor_is_refused(config: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        from_config(config)


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ([1.0], [1.0], True),
        ([1.0], [1.0, 1.0, 1.0], True),
        ([1.0, 1.0, 1.0], [1.0], True),
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.0], [2.0, 1.0], False),
        ([1.0], [1.0, 2.0], False),
        ([1.0, 1.0], [1.0, 1.0, 1.0], False),
        ([1.0, 1.0], [1.0, 1.0, 1.0, 1.0], False),
        ([1.0], [1.0 + 0.9e-6], True),
        ([1.0], [1.0 + 1.1e-6], False),
        ([0.0], [0.9e-9], True),
        ([0.0], [1.1e-9], False),
    ],
)
def test_lists_of_factors_agree_or_not(ours: list[float], theirs: list[float], same: bool) -> None:
    assert same_numbers(ours, theirs) is same
    assert same_numbers(theirs, ours) is same


def test_the_tolerance_is_the_caller_s() -> None:
    assert same_numbers([1.0], [1.01], rel_tol=0.02)
    assert not same_numbers([1.0], [1.03], rel_tol=0.02)


def test_one_number_stands_for_each_channel() -> None:
    assert spread([2.0], 3) == [2.0, 2.0, 2.0]
    assert spread([1.0, 2.0], 2) == [1.0, 2.0]


def test_latents_are_not_shifted_where_nothing_says_so() -> None:
    assert Scaling((2.0,)) == Scaling((2.0,), (0.0,))


def test_factors_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Scaling((1.0,)).scale = (2.0,)  # type: ignore[misc]
