# SPDX-License-Identifier: Apache-2.0
"""Contexts follow from integers alone, as docs/bitstream.md says."""

from hypothesis import example, given
from hypothesis import strategies as st

from latentwire_codec.lat.context import THRESHOLDS, context
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
@example(0, THRESHOLDS[27] - 1, 15)
@example(0, THRESHOLDS[27], 15)
@example(-9, THRESHOLDS[-1], 15)
def test_a_context_is_that_of_the_specification(mean: int, scale: int, symbol: int) -> None:
    table, base, sign, shift = (int(each) for each in context(mean, int(scale)))
    recorder, low = Recorder(symbol), Zeros()
    wanted = lat_reference.one(mean, int(scale), TABLES, recorder, lat_reference.Octets(b""), low)  # type: ignore[arg-type]
    assert ((base + sign * (symbol - 15)) << shift, shift) == (wanted, low.taken)
    assert TABLES.frequencies[table] == TABLES.frequencies[recorder.table]


def test_thresholds_are_quarter_octaves_to_the_nearest_integer() -> None:
    assert THRESHOLDS.tolist() == [round(2.5 * 2 ** (10 + (level - 28) / 4)) for level in range(1, 120)]
