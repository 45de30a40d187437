# SPDX-License-Identifier: Apache-2.0
"""The weights that are sent with an image: 9 bytes a channel, or for all, and fitted so that they predict."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentwire_codec.lat.side_information import CHANNEL_BYTES, DEVIATIONS, SideInformation
from latentwire_core.errors import Malformed

rows = st.binary(min_size=CHANNEL_BYTES, max_size=CHANNEL_BYTES).filter(lambda row: row[2] < 128)


def same(first: SideInformation, second: SideInformation) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))


@given(st.lists(rows, min_size=1, max_size=5))
def test_weights_come_back_from_their_bytes(parts: list[bytes]) -> None:
    side_information = SideInformation.from_bytes(b"".join(parts), len(parts))
    written = side_information.to_bytes()
    assert written == (parts[0] if len(set(parts)) == 1 else b"".join(parts))
    assert same(SideInformation.from_bytes(written, len(parts)), side_information)


def test_the_bytes_are_the_mean_the_deviation_and_six_weights() -> None:
    side_information = SideInformation(np.array([-2, 300]), np.array([5, 127]), np.arange(-6, 6).reshape(2, 2, 3))
    assert side_information.to_bytes() == bytes(
        [0xFE, 0xFF, 5, 250, 251, 252, 253, 254, 255, 0x2C, 0x01, 127, 0, 1, 2, 3, 4, 5]
    )


@pytest.mark.parametrize("length", [0, 8, 10, 18, 26, 28, 36])
def test_bytes_that_are_neither_one_row_nor_a_row_for_each_channel_are_refused(length: int) -> None:
    with pytest.raises(Malformed, match=f"{length} bytes of weights"):
        SideInformation.from_bytes(bytes(length), 3)


def test_a_deviation_beyond_the_table_is_refused() -> None:
    with pytest.raises(Malformed, match="quarter octaves"):
        SideInformation.from_bytes(bytes([0, 0, 128, 0, 0, 0, 0, 0, 0]), 1)


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(1, 20)),
    st.sampled_from([0, 1, 30, 40000, 2**23 - 1]),
    st.booleans(),
    st.integers(0, 99),
)
def test_any_integers_have_weights_that_can_be_sent(
    shape: tuple[int, int, int], largest: int, shared: bool, seed: int
) -> None:
    integers = np.random.default_rng(seed).integers(-largest, largest + 1, shape)
    side_information = SideInformation.fit(integers, shared=shared)
    assert same(SideInformation.from_bytes(side_information.to_bytes(), shape[0]), side_information)
    assert len(side_information.to_bytes()) == CHANNEL_BYTES or not shared


def test_on_a_ramp_the_neighbours_are_averaged() -> None:
    y, x = np.mgrid[:33, :33]
    side_information = SideInformation.fit((20 * y - 13 * x)[None].astype(np.int64))
    # Each of four neighbours counts a quarter, or each of the two of one pair a half, in 64ths.
    assert side_information.weights[0, :, :2].sum(axis=1).tolist() == [32, 32]


def test_a_channel_that_repeats_the_one_before_is_predicted_by_it() -> None:
    first = np.random.default_rng(0).integers(-50, 51, (24, 24))
    side_information = SideInformation.fit(np.stack([first, first]))
    assert np.abs(side_information.weights[1, :, 2] - 64).max() <= 1
    assert np.abs(side_information.weights[1, :, :2]).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1, 65), (1, 65, 1)])
def test_a_map_of_one_row_has_weights_of_the_cross_phases_alone(shape: tuple[int, int, int]) -> None:
    diagonal, cross = SideInformation.fit(np.arange(65).reshape(shape) * 7).weights[0]
    assert diagonal.tolist() == [0, 0, 0]
    assert cross[:2].sum() == 32


def test_means_and_deviations_are_those_of_the_channels_or_of_all() -> None:
    integers = np.stack([np.full((4, 4), 10), np.tile([-8, 8], (4, 2))])
    own, shared = SideInformation.fit(integers), SideInformation.fit(integers, shared=True)
    assert own.means.tolist() == [10, 0]
    assert DEVIATIONS[own.quarters].tolist() == [1, 8 << 10]
    assert shared.means.tolist() == [5, 5]
    assert len(set(shared.quarters.tolist())) == 1


def test_deviations_are_quarter_octaves_to_the_nearest_integer() -> None:
    assert DEVIATIONS.tolist() == [round(2 ** (quarters / 4)) for quarters in range(128)]
