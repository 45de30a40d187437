# SPDX-License-Identifier: Apache-2.0
"""Steps are numbers that a header holds, close to those that were wanted."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentwire_codec.lat.steps import Steps

sizes = st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=8)


@given(sizes)
def test_steps_are_exact_to_a_part_of_the_largest(wanted: list[float]) -> None:
    steps = Steps.nearest(np.array(wanted))
    assert len(steps.numerators) == len(wanted)
    tolerance = max(wanted) * 2.0**-15
    assert steps.sizes == pytest.approx(wanted, rel=0, abs=tolerance)
    assert max(steps.numerators) >= 1 << 15


@given(st.lists(st.floats(0, math.inf, exclude_min=True), min_size=1, max_size=8))
def test_any_positive_size_gives_steps_that_a_header_holds(wanted: list[float]) -> None:
    steps = Steps.nearest(np.array(wanted))
    assert all(1 <= numerator <= 65535 for numerator in steps.numerators)
    assert -64 <= steps.exponent <= 63


def test_a_size_is_its_numerator_over_a_power_of_two() -> None:
    assert Steps((3, 65535), -2).sizes.tolist() == [12.0, 262140.0]
    assert Steps((1, 5), 63).sizes.tolist() == [2.0**-63, 5 * 2.0**-63]
