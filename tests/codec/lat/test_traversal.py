# SPDX-License-Identifier: Apache-2.0
"""Every place is coded once, after all of its neighbours; no sum of what is around it leaves 64 bits."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentwire_codec.lat.context import LIMIT
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.tables import common_tables
from latentwire_codec.lat.traversal import KEPT_PLACES, KINDS, NEIGHBOURS, Surroundings, phases
from tests.codec.lat import lat_reference

sides = st.integers(1, 40)


@given(sides, sides)
def test_every_place_is_coded_once_and_after_its_neighbours(height: int, width: int) -> None:
    coded = np.zeros(height * width, bool)
    for phase in phases(height, width):
        assert not coded[phase.places].any()
        assert phase.neighbours.shape == (NEIGHBOURS if phase.kind else 0, len(phase.places))
        assert coded[phase.neighbours].all()
        coded[phase.places] = True
    assert coded.all()


@given(sides, sides)
def test_the_order_and_the_neighbours_are_those_of_the_specification(height: int, width: int) -> None:
    expected = [(kind, places) for kind, places in lat_reference.order(height, width) if places]
    found = phases(height, width)
    assert [phase.kind for phase in found] == [kind for kind, _ in expected]
    for phase, (kind, places) in zip(found, expected, strict=True):
        assert [divmod(int(place), width) for place in phase.places] == places
        if kind:
            around = [lat_reference.neighbours(kind, place, height, width) for place in places]
            assert [[divmod(int(each), width) for each in column] for column in phase.neighbours.T] == around


def test_inside_a_map_neighbours_are_opposite_pairs_at_the_phases_distance() -> None:
    width = 33
    for phase in phases(33, width)[1:]:
        distance = int(KINDS[phase.kind].split()[1])
        down, right = np.divmod(phase.neighbours, width) - np.array(np.divmod(phase.places, width))[:, None]
        inside = (np.abs(down) + np.abs(right) > 0).all(axis=0)
        assert inside.any()
        assert (np.maximum(np.abs(down), np.abs(right)) == distance).all()
        y, x = np.divmod(phase.places, width)
        middle = (np.minimum(y, x) >= distance) & (np.maximum(y, x) < width - distance)
        for each in (down, right):
            assert (each[0] + each[1])[middle].tolist() == [0] * int(middle.sum())
            assert (each[2] + each[3])[middle].tolist() == [0] * int(middle.sum())


@pytest.mark.parametrize(("side", "kept"), [(8, True), (1 + int(KEPT_PLACES**0.5), False)])
def test_only_the_plans_of_small_maps_are_kept_in_memory(side: int, kept: bool) -> None:
    assert (phases(side, side) is phases(side, side)) is kept


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_integers_leave_no_sum_that_64_bits_do_not_hold(sign: int) -> None:
    weights = np.full((2, 2, 3), 127 * sign)
    model = common_tables().context_model(SideInformation(np.full(2, -sign * 32767), np.full(2, 127), weights))
    largest = replace(model, scale_weights=np.full_like(model.scale_weights, 1 << 18))
    found = Surroundings((2, 9, 9), largest)
    for channel in range(2):
        found.begin(channel)
        for phase in phases(9, 9):
            mean, scale = found.expect(channel, phase)
            features = found.features(channel, phase).astype(object)
            exact = largest.mean_weights[channel, phase.kind].astype(object) @ features[:3]
            assert mean.tolist() == [(each + int(largest.mean_bias[channel, phase.kind])) >> 12 for each in exact]
            exact = largest.scale_weights[channel, phase.kind].astype(object) @ features[3:]
            assert scale.tolist() == [(each + int(largest.scale_floor[channel, phase.kind])) >> 12 for each in exact]
            far = np.where(np.arange(len(phase.places)) % 2, LIMIT - 1, 1 - LIMIT)
            found.put(channel, phase.places, far, mean)
