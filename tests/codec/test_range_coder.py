# SPDX-License-Identifier: Apache-2.0
"""The words of the range coder are those of the specification, and of the library that it comes from."""

from random import Random

import constriction
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentwire_codec.compiled import compiled
from latentwire_codec.lat.tables import common_tables
from latentwire_codec.range_coder import (
    SYMBOLS,
    Bounds,
    Integers,
    Words,
    begin_symbols,
    begin_words,
    bounds_of,
    end_words,
    ends,
    put_symbol,
    take_symbol,
)
from latentwire_core.container import LAST_BYTES, SECTION_BITS
from tests.codec.lat import lat_reference

STEEP = [65505] + [1] * 31
FLAT = [2048] * 32
RISING = [1 << (symbol // 3) for symbol in range(31)]
RISING.append((1 << 16) - sum(RISING))
THREE = np.array([STEEP, FLAT, RISING])
# The last symbol of the last table has no probability: it is not to be coded.
GOLDEN_TABLES = np.array([STEEP, FLAT, [*(1 << (symbol // 2) for symbol in range(31)), -32766]])
COMMON = common_tables().frequencies
GOLDEN_WORDS = "14faaf4a 3c11978a 2a1d6fca cf0db9ee acd7c336 6603dfac 5e1284c7 73214254"


@compiled
def put_all(words: Words, bounds: Bounds, tables: Integers, symbols: Integers) -> int:
    written = begin_words()
    for at in range(len(tables)):
        written = put_symbol(words, written, bounds, tables[at], symbols[at])
    return end_words(words, written)


@compiled
def take_all(words: Words, bounds: Bounds, tables: Integers, symbols: Integers) -> bool:
    read = begin_symbols(words)
    for at in range(len(tables)):
        read, symbols[at] = take_symbol(words, read, bounds, tables[at])
    return ends(words, read)


def words_of(pairs: list[tuple[int, int]], frequencies: Integers) -> Words:
    tables, symbols = np.array(pairs, np.int64).reshape(-1, 2).T.copy()
    words = np.empty(len(pairs) + 2, np.uint32)
    return words[: put_all(words, bounds_of(frequencies), tables, symbols)]


def bytes_of(words: Words) -> bytes:
    return words.astype("<u4").tobytes()


def constrictions(pairs: list[tuple[int, int]], frequencies: Integers) -> npt.NDArray[np.uint32]:
    """The words that constriction makes."""
    tables, symbols = np.array(pairs, np.int64).reshape(-1, 2).T
    encoder = constriction.stream.queue.RangeEncoder()
    model = constriction.stream.model.Categorical(perfect=False)
    encoder.encode(symbols.astype(np.int32), model, frequencies[tables] / 65536)
    words: npt.NDArray[np.uint32] = encoder.get_compressed()
    return words


def check(pairs: list[tuple[int, int]], frequencies: Integers) -> None:
    words = words_of(pairs, frequencies)
    assert words.tolist() == constrictions(pairs, frequencies).tolist()
    tables = np.array([table for table, _ in pairs], np.int64)
    found = np.empty_like(tables)
    assert take_all(words, bounds_of(frequencies), tables, found)
    assert found.tolist() == [symbol for _, symbol in pairs]


def test_the_words_of_the_range_coder_are_what_they_always_were() -> None:
    random = Random(1)
    tables = [random.getrandbits(8) % 3 for _ in range(24)]
    symbols = [random.getrandbits(8) % 31 for _ in tables]
    words = words_of(list(zip(tables, symbols, strict=True)), GOLDEN_TABLES)
    assert bytes_of(words).hex(" ", -4) == GOLDEN_WORDS


@given(st.lists(st.tuples(st.integers(0, len(COMMON) - 1), st.integers(0, SYMBOLS - 1)), max_size=60))
def test_symbols_of_the_common_tables_have_the_words_of_constriction(
    pairs: list[tuple[int, int]],
) -> None:
    check(pairs, COMMON)


@given(st.integers(0, 9999), st.sampled_from([(0,), (0, 1), (0, 1, 2)]), st.floats(0, 1))
def test_long_rows_of_rare_symbols_and_carries_come_back(seed: int, tables: tuple[int, ...], rare: float) -> None:
    """Where nearly all the interval is one symbol's, words of ones wait for a carry."""
    random = np.random.default_rng(seed)
    chosen = random.choice(tables, 3000)
    symbols = np.where(random.random(3000) < rare, random.integers(0, SYMBOLS, 3000), 0)
    check(list(zip(chosen.tolist(), symbols.tolist(), strict=True)), THREE)


@given(st.lists(st.tuples(st.integers(0, len(COMMON) - 1), st.integers(0, SYMBOLS - 1)), min_size=1, max_size=60))
def test_the_range_coder_is_that_of_the_specification(pairs: list[tuple[int, int]]) -> None:
    reference = lat_reference.RangeDecoder(bytes_of(words_of(pairs, COMMON)))
    assert [(table, reference.symbol(COMMON[table].tolist())) for table, _ in pairs] == pairs
    reference.finish()


@given(
    st.lists(st.sampled_from([0, 1, 2**31, 2**32 - 2, 2**32 - 1]) | st.integers(0, 2**32 - 1), max_size=6),
    st.lists(st.integers(0, 2), max_size=200),
)
def test_words_of_chance_are_read_and_refused_as_the_specification_says(words: list[int], tables: list[int]) -> None:
    given_words, found = np.array(words, np.uint32), np.empty(len(tables), np.int64)
    ended = take_all(given_words, bounds_of(THREE), np.array(tables, np.int64), found)
    reference, symbols = lat_reference.RangeDecoder(bytes_of(given_words)), []
    try:
        symbols += [reference.symbol(THREE[table].tolist()) for table in tables]
    except lat_reference.Wrong:
        assert -1 in found
        return
    assert found.tolist() == symbols
    try:
        reference.finish()
    except lat_reference.Wrong:
        assert not ended
        return
    assert ended


def test_each_symbol_of_each_table_has_the_width_of_the_specification() -> None:
    for symbol in range(SYMBOLS):
        pairs = [(table, symbol) for table in range(len(COMMON))]
        reference = lat_reference.RangeDecoder(bytes_of(words_of(pairs, COMMON)))
        assert {reference.symbol(table) for table in COMMON.tolist()} == {symbol}
        reference.finish()


def test_the_rarest_symbols_take_no_more_bytes_than_a_reader_lets_through() -> None:
    words = words_of([(0, 30)] * 9999, THREE)
    assert 15.9 * 9999 / 8 < 4 * len(words) <= SECTION_BITS["symbols"] * 9999 // 8 + LAST_BYTES


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_a_symbol_that_is_nearly_certain_costs_next_to_nothing(count: int) -> None:
    assert len(words_of([(0, 0)] * count, THREE)) <= 2
