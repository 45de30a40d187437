# SPDX-License-Identifier: Apache-2.0
"""Integers come back from their bytes; words are those of the specification; anything else is Malformed."""

from dataclasses import FrozenInstanceError, replace
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire_codec.lat.coder import Coded, code, decode, encode, write
from latentwire_codec.lat.context import ESCAPE, LIMIT, SYMBOLS, TABLES, ContextModel, Contexts
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.tables import common_tables
from latentwire_codec.lat.traversal import traverse
from latentwire_core.container import LAST_BYTES, SECTION_BITS
from latentwire_core.errors import Malformed, TensorError
from tests.codec.lat import lat_reference

Integers = npt.NDArray[np.int64]
unhurried = settings(deadline=None)
sides = st.integers(1, 40)
largest = st.sampled_from([0, 1, 3, 20, 200, 40_000, LIMIT - 1])


def model_of(integers: Integers, shared: bool = True) -> ContextModel:
    return common_tables().context_model(SideInformation.fit(integers, shared=shared))


def drawn(shape: tuple[int, int, int], most: int, seed: int) -> Integers:
    """Integers up to `most`, nearly all of them much smaller."""
    random = np.random.default_rng(seed)
    found: Integers = np.rint(random.laplace(size=shape) * most / 40).astype(np.int64).clip(-most, most)
    found[random.random(shape) < 0.01] = random.choice([-most, most])
    return found


def returns(integers: Integers, model: ContextModel) -> bool:
    return np.array_equal(decode(encode(integers, model), integers.shape, model)[0], integers)


@unhurried
@given(st.tuples(st.integers(1, 6), sides, sides), largest, st.booleans(), st.integers(0, 999))
def test_integers_come_back(shape: tuple[int, int, int], most: int, shared: bool, seed: int) -> None:
    integers = drawn(shape, most, seed)
    assert returns(integers, model_of(integers, shared))


@unhurried
@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 3), largest, st.integers(0, 999))
def test_integers_of_many_channels_come_back(channels: int, height: int, width: int, most: int, seed: int) -> None:
    integers = drawn((channels, height, width), most, seed)
    assert returns(integers, model_of(integers))


@pytest.mark.parametrize("shape", [(1024, 1, 1), (1024, 2, 3), (1, 1, 3000), (2, 300, 150)])
def test_the_extremes_of_shape_come_back(shape: tuple[int, int, int]) -> None:
    integers = drawn(shape, 300, 1)
    assert returns(integers, model_of(integers))


@unhurried
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    st.integers(1 - LIMIT, LIMIT - 1),
    st.integers(0, 99),
)
def test_integers_that_were_not_expected_come_back(shape: tuple[int, int, int], value: int, seed: int) -> None:
    """With any weights, and the largest jumps that there can be."""
    random = np.random.default_rng(seed)
    integers = np.where(random.random(shape) < 0.5, value, random.integers(1 - LIMIT, LIMIT, shape))
    rows = random.integers(0, 256, (shape[0], 9)).astype(np.uint8)
    rows[:, 2] &= 127
    assert returns(integers, common_tables().context_model(SideInformation.from_bytes(rows.tobytes(), shape[0])))


@pytest.mark.parametrize("value", [0, LIMIT - 1])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 24, 24), (60, 2, 3)])
def test_no_integers_take_more_bytes_than_a_reader_lets_through(shape: tuple[int, int, int], value: int) -> None:
    """Jumps as large as there can be, with the largest scale and the smallest."""
    integers = np.random.default_rng(0).choice([-value, value, 1 - LIMIT, LIMIT - 1], shape)
    for expected in (integers, np.zeros_like(integers)):
        sections = vars(encode(integers, model_of(expected)))
        for name, octets in sections.items():
            assert len(octets) <= SECTION_BITS[name] * integers.size // 8 + LAST_BYTES


def test_the_rarest_symbols_take_no_more_bytes_than_a_reader_lets_through() -> None:
    coded = code(np.full(9999, 15), context_of([0] * 9999), tables_of([STEEP]))
    assert 15.9 * 9999 / 8 < len(coded.symbols) <= SECTION_BITS["symbols"] * 9999 // 8 + LAST_BYTES


@pytest.mark.parametrize("value", [LIMIT, -LIMIT, 1 << 40])
def test_integers_beyond_the_limit_are_refused(value: int) -> None:
    with pytest.raises(TensorError, match="take larger steps"):
        encode(np.array([[[value]]]), model_of(np.zeros((1, 1, 1), np.int64)))


def test_a_constant_costs_next_to_nothing() -> None:
    integers = np.full((4, 64, 64), -7)
    coded = encode(integers, model_of(integers))
    assert len(coded.symbols) <= 40
    assert (coded.escapes, coded.low_bits) == (b"", b"")


def tables_of(frequencies: list[list[int]]) -> ContextModel:
    """A context model of which only the tables are used."""
    return replace(model_of(np.zeros((1, 1, 1), np.int64)), frequencies=np.array(frequencies))


def context_of(tables: list[int]) -> Contexts:
    """Contexts of those tables, in which an integer is its symbol less 15."""
    count, none = len(tables), np.empty(0, np.int64)
    return Contexts(np.array(tables), np.zeros(count, np.int64), np.ones(count, np.int64), none, none)


STEEP = [65505] + [1] * 31
FLAT = [2048] * 32
RISING = [1 << (symbol // 2) for symbol in range(31)]
RISING.append((1 << 16) - sum(RISING))
GOLDEN_WORDS = "14faaf4a 3c11978a 2a1d6fca cf0db9ee acd7c336 6603dfac 5e1284c7 73214254"


def golden_sequence() -> tuple[list[int], list[int]]:
    random = Random(1)
    tables = [random.getrandbits(8) % 3 for _ in range(24)]
    return tables, [random.getrandbits(8) % ESCAPE for _ in tables]


def test_the_words_of_the_range_coder_are_what_they_always_were() -> None:
    """What constriction gives is part of the format: another version of it must give the same."""
    tables, symbols = golden_sequence()
    coded = code(np.array(symbols) - 15, context_of(tables), tables_of([STEEP, FLAT, RISING]))
    assert coded.symbols.hex(" ", -4) == GOLDEN_WORDS


@given(st.lists(st.tuples(st.integers(0, TABLES - 1), st.integers(0, ESCAPE - 1)), max_size=60))
def test_the_range_coder_is_that_of_the_specification(pairs: list[tuple[int, int]]) -> None:
    tables, symbols = [table for table, _ in pairs], [symbol for _, symbol in pairs]
    model = model_of(np.zeros((1, 1, 1), np.int64))
    coded = code(np.array(symbols, np.int64) - 15, context_of(tables), model)
    reference = lat_reference.RangeDecoder(coded.symbols)
    assert [reference.symbol(model.frequencies[table].tolist()) for table in tables] == symbols
    if pairs:
        reference.finish()


def test_each_symbol_of_each_table_has_the_width_of_the_specification() -> None:
    model = model_of(np.zeros((1, 1, 1), np.int64))
    for symbol in range(SYMBOLS - 1):
        coded = code(np.full(TABLES, symbol - 15), context_of(list(range(TABLES))), model)
        reference = lat_reference.RangeDecoder(coded.symbols)
        assert {reference.symbol(table) for table in model.frequencies.tolist()} == {symbol}
        reference.finish()


def coded_outliers() -> tuple[Coded, tuple[int, int, int], ContextModel]:
    integers = drawn((2, 9, 9), 3, 0)
    integers[0, 2, 3], integers[1, 5, 5] = 70_000, -90_000
    model = model_of(integers)
    coded = encode(integers, model)
    assert coded.escapes
    assert coded.low_bits
    return coded, (2, 9, 9), model


@pytest.mark.parametrize(
    ("section", "change", "problem"),
    [
        ("symbols", lambda data: data[:-1], "words of 4"),
        ("symbols", lambda data: data + b"\0", "words of 4"),
        ("symbols", lambda data: data + bytes(8), "more symbols"),
        ("symbols", lambda data: data + bytes(400), "more symbols"),
        ("symbols", lambda data: b"\xff" * len(data), "no output of the range coder"),
        ("escapes", lambda data: b"", "fewer escapes"),
        ("escapes", lambda data: data + b"\0", "more escapes"),
        ("escapes", lambda data: data + b"\x80", "does not end"),
        ("escapes", lambda data: data + b"\x80\0", "longer than it must be"),
        ("escapes", lambda data: data + b"\x80\x80\x80\x80\1", "longer than it must be"),
        ("escapes", lambda data: b"\xff\xff\xff\x7f" * 40, "the largest is"),
        ("low_bits", lambda data: b"", "fewer low bits"),
        ("low_bits", lambda data: data[:-1], "fewer low bits"),
        ("low_bits", lambda data: data + b"\0", "more low bits"),
    ],
)
def test_sections_that_do_not_belong_together_are_refused(section: str, change, problem: str) -> None:  # type: ignore[no-untyped-def]
    coded, shape, model = coded_outliers()
    wrong = replace(coded, **{section: change(getattr(coded, section))})
    with pytest.raises(Malformed, match=problem):
        decode(wrong, shape, model)


@given(
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.binary(max_size=400),
    st.binary(min_size=18, max_size=18),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_sections_of_chance_give_integers_or_are_malformed(
    symbols: bytes, escapes: bytes, low_bits: bytes, weights: bytes, size: tuple[int, int]
) -> None:
    try:
        model = common_tables().context_model(SideInformation.from_bytes(weights, 2))
        integers, _ = decode(Coded(symbols, escapes, low_bits), (2, *size), model)
    except Malformed:
        return
    assert np.abs(integers).max() < LIMIT


@pytest.mark.parametrize("value", [LIMIT, -LIMIT])
def test_an_integer_just_out_of_range_is_malformed(value: int) -> None:
    model = model_of(np.zeros((1, 1, 1), np.int64))
    coded = write(traverse((1, 1, 1), model, lambda *_: np.array([value])), model)
    with pytest.raises(Malformed, match=f"the largest is {LIMIT - 1}"):
        decode(coded, (1, 1, 1), model)


def test_coded_integers_stay_as_they_are() -> None:
    with pytest.raises(FrozenInstanceError):
        Coded(b"", b"", b"").symbols = b"1234"  # type: ignore[misc]
