# SPDX-License-Identifier: Apache-2.0
"""Contexts follow from integers alone, as docs/bitstream.md says; a file of tables is checked before it is used."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from latentwire_codec.lat.context import LIMIT, THRESHOLDS, Surroundings, contexts
from latentwire_codec.lat.scan import phases
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.tables import FILE, common_tables, load_tables
from latentwire_core.errors import CheckpointError
from tests.codec.lat import lat_reference

TABLES = lat_reference.Tables(FILE)


class Recorder:
    """Stands in for the range coder of the reference: remembers the table, and says what symbol it is told."""

    def __init__(self, symbol: int) -> None:
        self.said, self.table = symbol, -1

    def symbol(self, frequencies: list[int]) -> int:
        self.table = TABLES.frequencies.index(frequencies)
        return self.said


class Zeros:
    """Stands in for low bits."""

    def __init__(self) -> None:
        self.taken = 0

    def take(self, count: int) -> int:
        self.taken += count
        return 0


@given(st.integers(-(2**31), 2**31), st.integers(0, 2**40), st.integers(0, 30))
def test_a_context_is_that_of_the_specification(mean: int, scale: int, symbol: int) -> None:
    context = contexts(np.array([mean]), np.array([scale]))
    recorder, low = Recorder(symbol), Zeros()
    wanted = lat_reference.one(mean, scale, TABLES, recorder, lat_reference.Octets(b""), low)  # type: ignore[arg-type]
    shift = int(context.shift[0]) if len(context.wide) else 0
    found = (int(context.base[0]) + int(context.sign[0]) * (symbol - 15)) << shift
    assert (found, shift) == (wanted, low.taken)
    assert TABLES.frequencies[int(context.table[0])] == TABLES.frequencies[recorder.table]


def test_contexts_leave_their_arguments_as_they_are() -> None:
    mean, scale = np.array([5, -70, 2**20]), np.array([0, 4000, 2**30])
    contexts(mean, scale)
    assert mean.tolist() == [5, -70, 2**20]
    assert scale.tolist() == [0, 4000, 2**30]


def test_thresholds_are_quarter_octaves_to_the_nearest_integer() -> None:
    assert THRESHOLDS.tolist() == [round(2.5 * 2 ** (10 + (level - 28) / 4)) for level in range(1, 120)]


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_integers_leave_no_sum_that_64_bits_do_not_hold(sign: int) -> None:
    weights = np.full((2, 2, 3), 127 * sign)
    prior = common_tables().context_model(SideInformation(np.full(2, -sign * 32767), np.full(2, 127), weights))
    largest = replace(prior, scale_weights=np.full_like(prior.scale_weights, 1 << 18))
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


def test_the_bundled_tables_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "again.safetensors"
    path.write_bytes(common_tables().to_bytes())
    assert load_tables(path).table_id == common_tables().table_id == TABLES.identity
    assert (common_tables().frequencies.sum(axis=1) == 1 << 16).all()


def broken(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    return {
        **{name: array.astype(np.int32) for name, array in vars(common_tables()).items() if name != "table_id"},
        **arrays,
    }


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"scale_floor": np.zeros((2, 6), np.int32)}, "scale_floor has the shape"),
        ({"scale_weights": np.full((2, 7, 7), -1, np.int32)}, "scale_weights is not all within"),
        ({"scale_weights": np.full((2, 7, 7), 1 << 19, np.int32)}, "scale_weights is not all within"),
        ({"scale_spread": np.full((2, 7), 1 << 17, np.int32)}, "scale_spread is not all within"),
        ({"frequencies": np.full((252, 32), 2047, np.int32)}, "frequencies are not all"),
        ({"another": np.zeros(1, np.int32)}, "another"),
    ],
)
def test_a_file_that_holds_no_tables_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], problem: str) -> None:
    save_file(broken(**arrays), tmp_path / "prior.safetensors")
    with pytest.raises(CheckpointError, match=problem):
        load_tables(tmp_path / "prior.safetensors")


@pytest.mark.parametrize("content", [None, b"", b"no tables"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "prior.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="holds no prior"):
        load_tables(path)


def test_a_frequency_of_0_is_refused() -> None:
    frequencies = common_tables().frequencies.copy()
    frequencies[0, :2] += [frequencies[0, 1], -frequencies[0, 1]]
    with pytest.raises(ValueError, match="at least 1"):
        replace(common_tables(), frequencies=frequencies)
