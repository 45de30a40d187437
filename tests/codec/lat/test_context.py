# SPDX-License-Identifier: Apache-2.0
"""Contexts follow from integers alone, as docs/bitstream.md says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from latentwire_codec.lat.context import THRESHOLDS, contexts
from latentwire_codec.lat.tables import FILE
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
