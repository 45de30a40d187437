# SPDX-License-Identifier: Apache-2.0
"""Numbers of few bits come back from their bytes; bytes that are not exactly theirs are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentwire_codec.compiled import compiled
from latentwire_codec.lat.bits import MOST, Integers, Octets, check_rest, length_of, octets_of, put_bits, take_bits
from latentwire_core.errors import Malformed

numbers_of_bits = st.lists(
    st.integers(0, MOST).flatmap(lambda count: st.tuples(st.integers(0, (1 << count) - 1), st.just(count)))
)


@compiled
def put_all(octets: Octets, numbers: Integers, counts: Integers) -> int:
    position = 0
    for at in range(len(numbers)):
        position = put_bits(octets, position, numbers[at], counts[at])
    return position


@compiled
def take_all(octets: Octets, numbers: Integers, counts: Integers) -> int:
    """The position after the last number, or -1."""
    position = 0
    for at in range(len(numbers)):
        numbers[at] = take_bits(octets, position, counts[at])
        if numbers[at] < 0:
            return -1
        position += counts[at]
    return position


def written(pairs: list[tuple[int, int]]) -> bytes:
    numbers, counts = np.array(pairs, np.int64).reshape(-1, 2).T.copy()
    octets = np.zeros(length_of(int(counts.sum())), np.uint8)
    assert put_all(octets, numbers, counts) == counts.sum()
    return octets.tobytes()


def taken(data: bytes, counts: list[int]) -> list[int] | None:
    """The numbers, all of whose bytes were taken; None where there are too few."""
    numbers, octets = np.empty(len(counts), np.int64), octets_of(data)
    position = take_all(octets, numbers, np.array(counts, np.int64))
    if position < 0:
        return None
    check_rest(octets, position)
    return numbers.tolist()


@given(numbers_of_bits)
def test_numbers_come_back(pairs: list[tuple[int, int]]) -> None:
    data = written(pairs)
    assert len(data) == -(-sum(count for _, count in pairs) // 8)
    assert taken(data, [count for _, count in pairs]) == [number for number, _ in pairs]


@given(numbers_of_bits)
def test_bits_are_those_of_the_numbers_one_after_the_other(pairs: list[tuple[int, int]]) -> None:
    bits = "".join(f"{number:0{count}b}" for number, count in pairs if count)
    padded = bits + "0" * (-len(bits) % 8)
    assert written(pairs) == bytes(int(padded[at : at + 8], 2) for at in range(0, len(padded), 8))


def test_the_first_bit_is_the_highest() -> None:
    assert written([(1, 1), (0b10, 3), (0b111, 4)]) == bytes([0b1_010_0111])


@given(st.integers(-(1 << 40), 1 << 40), st.integers(0, MOST))
def test_only_the_low_bits_are_written_of_negative_numbers_too(number: int, count: int) -> None:
    assert taken(written([(number, count)]), [count]) == [number % (1 << count)]


@given(numbers_of_bits.filter(lambda pairs: any(count for _, count in pairs)))
def test_fewer_bytes_than_bits_are_noticed(pairs: list[tuple[int, int]]) -> None:
    assert taken(written(pairs)[:-1], [count for _, count in pairs]) is None


@given(numbers_of_bits)
def test_a_byte_that_nobody_takes_is_refused(pairs: list[tuple[int, int]]) -> None:
    with pytest.raises(Malformed, match="more low bits"):
        taken(written(pairs) + b"\0", [count for _, count in pairs])


@pytest.mark.parametrize("unused", range(1, 8))
def test_an_unused_bit_that_is_not_0_is_refused(unused: int) -> None:
    for place in range(unused):
        with pytest.raises(Malformed, match="more low bits"):
            taken(bytes([1 << place]), [8 - unused])
