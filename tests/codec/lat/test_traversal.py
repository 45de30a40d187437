# SPDX-License-Identifier: Apache-2.0
"""Every place is coded once, after all of its neighbours; no sum of what is around it leaves 64 bits."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentwire_codec.compiled import compiled
from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.context import LIMIT, ContextModel
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.tables import FILE, LARGEST_FLOOR, LARGEST_WEIGHT, common_tables
from latentwire_codec.lat.traversal import (
    KINDS,
    NEIGHBOURS,
    Plan,
    Surroundings,
    begin_channel,
    expect,
    phases,
    plan_of,
    put,
    surroundings,
)
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


@compiled
def expect_all(
    found: Surroundings, plan: Plan, model: ContextModel, width: int, integers: Integers, scales: Integers
) -> None:
    for channel in range(len(integers)):
        begin_channel(found, channel, width)
        for kind in range(len(KINDS)):
            for at in range(plan.begins[kind], plan.begins[kind + 1]):
                place = plan.places[at]
                mean, scales[channel, place] = expect(found, plan, model, channel, kind, at)
                put(found, channel, place, integers[channel, place], mean)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("shape", [(2, 9, 9), (3, 1, 20), (4, 8, 5)])
def test_the_largest_integers_leave_no_sum_that_64_bits_do_not_hold(sign: int, shape: tuple[int, int, int]) -> None:
    """The reference computes with Python's integers, which have no limit."""
    channels, height, width = shape
    sent = SideInformation(
        np.full(channels, -sign * 32767), np.full(channels, 127), np.full((channels, 2, 3), 127 * sign)
    )
    tables = replace(
        common_tables(),
        scale_weights=np.full_like(common_tables().scale_weights, LARGEST_WEIGHT),
        scale_floor=np.full_like(common_tables().scale_floor, LARGEST_FLOOR),
    )
    integers = np.random.default_rng(0).choice([1 - LIMIT, LIMIT - 1], (channels, height * width))
    found, scales = surroundings(shape), np.empty_like(integers)
    expect_all(found, plan_of(height, width), tables.context_model(sent), width, integers, scales)
    stand_in = lat_reference.Tables(FILE)
    stand_in.weights, stand_in.floor = tables.scale_weights.tolist(), tables.scale_floor.tolist()
    payload = SimpleNamespace(shape=shape)
    row, before = sent.to_bytes()[:9], None
    for index in range(channels):
        channel = lat_reference.Channel(index, row, payload, stand_in, before)  # type: ignore[arg-type]
        for kind, places in lat_reference.order(height, width):
            for y, x in places:
                mean, scale = channel.expect(kind, (y, x))
                assert (int(found.means[index, y * width + x]), int(scales[index, y * width + x])) == (mean, scale)
                channel.values[y, x] = int(integers[index, y * width + x])
                channel.errors[y, x] = abs(16 * channel.values[y, x] - mean)
        before = channel
