# SPDX-License-Identifier: Apache-2.0
"""Numbers of few bits come back from their bytes; bytes that are not exactly theirs are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentwire_codec.lat.bits import MOST, BitReader, write_bits
from latentwire_core.errors import Malformed

numbers_of_bits = st.lists(
    st.integers(0, MOST).flatmap(lambda count: st.tuples(st.integers(0, (1 << count) - 1), st.just(count)))
)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


@given(numbers_of_bits, st.integers(0, 20))
def test_numbers_come_back_in_pieces(pairs: list[tuple[int, int]], cut: int) -> None:
    numbers, counts = columns(pairs)
    written = write_bits(numbers, counts)
    assert len(written) == -(-int(counts.sum()) // 8)
    reader = BitReader(written)
    found = np.concatenate([reader.read(counts[:cut]), reader.read(counts[cut:])])
    reader.finish()
    assert found.tolist() == numbers.tolist()


def test_the_first_bit_is_the_highest() -> None:
    assert write_bits(np.array([1, 0b10, 0b111]), np.array([1, 3, 4])) == bytes([0b1_010_0111])


@given(st.integers(-(1 << 40), 1 << 40), st.integers(0, MOST))
def test_only_the_low_bits_are_written_of_negative_numbers_too(number: int, count: int) -> None:
    written = write_bits(np.array([number]), np.array([count]))
    assert BitReader(written).read(np.array([count])).tolist() == [number % (1 << count)]


@given(numbers_of_bits.filter(lambda pairs: any(count for _, count in pairs)))
def test_fewer_bytes_than_bits_are_refused(pairs: list[tuple[int, int]]) -> None:
    numbers, counts = columns(pairs)
    with pytest.raises(Malformed, match="fewer low bits"):
        BitReader(write_bits(numbers, counts)[:-1]).read(counts)


@given(numbers_of_bits)
def test_a_byte_that_nobody_reads_is_refused(pairs: list[tuple[int, int]]) -> None:
    numbers, counts = columns(pairs)
    reader = BitReader(write_bits(numbers, counts) + b"\0")
    reader.read(counts)
    with pytest.raises(Malformed, match="more low bits"):
        reader.finish()


@pytest.mark.parametrize("unused", range(1, 8))
def test_an_unused_bit_that_is_not_0_is_refused(unused: int) -> None:
    for place in range(unused):
        reader = BitReader(bytes([1 << place]))
        reader.read(np.array([8 - unused]))
        with pytest.raises(Malformed, match="more low bits"):
            reader.finish()
