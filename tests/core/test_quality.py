# SPDX-License-Identifier: Apache-2.0
"""Qualities by name and by number, and what is no quality."""

import math

import pytest

from latentwire_core.errors import TensorError
from latentwire_core.quality import NAMES, STEPS, step_multiple


def test_the_names_have_the_steps_of_the_format() -> None:
    # The payloads of a quality are compared across releases: a change here changes files.
    assert STEPS == {"cache": 0.17, "high": 0.35, "medium": 0.6, "low": 1.2}
    assert NAMES == ("lossless", "cache", "high", "medium", "low")
    assert {name: step_multiple(name) for name in NAMES} == {"lossless": None, **STEPS}


@pytest.mark.parametrize("number", [math.ulp(0.0), 0.5, 1, 3.5, 1e300])
def test_a_number_above_0_is_itself(number: float) -> None:
    assert step_multiple(number) == number


@pytest.mark.parametrize("quality", ["", "best", "LOW", "0.5", 0, 0.0, -1, -0.1, math.inf, -math.inf, math.nan])
def test_anything_else_is_refused_with_the_names(quality: str | float) -> None:
    with pytest.raises(TensorError) as error:
        step_multiple(quality)
    assert str(error.value) == (
        f"quality is {quality!r}; it must be lossless, cache, high, medium, low, or steps in units, a number above 0"
    )
