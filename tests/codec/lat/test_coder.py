# SPDX-License-Identifier: Apache-2.0
"""Integers come back from their bytes, and the second decoder finds them too; anything else is Malformed."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire_codec.lat.coder import Coded, choose, decode, encode
from latentwire_codec.lat.context import LIMIT, ContextModel
from latentwire_codec.lat.quantizer import LAMBDA
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.tables import FILE, common_tables
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


@pytest.mark.parametrize("value", [LIMIT, -LIMIT, 1 << 40])
def test_integers_beyond_the_limit_are_refused(value: int) -> None:
    with pytest.raises(TensorError, match="take larger steps"):
        encode(np.array([[[value]]]), model_of(np.zeros((1, 1, 1), np.int64)))


def test_a_constant_costs_next_to_nothing() -> None:
    integers = np.full((4, 64, 64), -7)
    coded = encode(integers, model_of(integers))
    assert len(coded.symbols) <= 40
    assert (coded.escapes, coded.low_bits) == (b"", b"")


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
    coded = choose(np.array([[[float(value)]]]), model, 0).coded
    with pytest.raises(Malformed, match=f"an integer is {value}; the largest is {LIMIT - 1}"):
        decode(coded, (1, 1, 1), model)


@unhurried
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12)),
    largest,
    st.booleans(),
    st.sampled_from([0.0, LAMBDA, 3.0]),
    st.integers(0, 999),
)
def test_the_second_decoder_finds_the_same_integers_and_means(
    shape: tuple[int, int, int], most: int, fitted: bool, lambda_: float, seed: int
) -> None:
    """For weights that fit, and for weights of chance."""
    random = np.random.default_rng(seed)
    reals = (drawn(shape, most, seed) + random.uniform(-0.5, 0.5, shape)).clip(1 - LIMIT, LIMIT - 1)
    rows = random.integers(0, 256, (shape[0], 9)).astype(np.uint8)
    rows[:, 2] &= 127
    sent = SideInformation.fit(np.rint(reals).astype(np.int64)).to_bytes() if fitted else rows.tobytes()
    model = common_tables().context_model(SideInformation.from_bytes(sent, shape[0]))
    chosen = choose(reals, model, lambda_)
    tables = lat_reference.Tables(FILE)
    payload = SimpleNamespace(shape=shape, table_id=tables.identity, sections={"weights": sent, **vars(chosen.coded)})
    found = lat_reference.integers(payload, tables)  # type: ignore[arg-type]
    for planes, name in ((chosen.integers, "values"), (chosen.means, "means")):
        expected = [[getattr(channel, name)[place] for place in sorted(channel.values)] for channel in found]
        assert planes.reshape(shape[0], -1).tolist() == expected


def test_in_many_threads_at_once_each_finds_its_integers() -> None:
    images = [drawn((4, 33, 30), 200, seed) for seed in range(16)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda integers: returns(integers, model_of(integers)), images * 4))


def test_coded_integers_stay_as_they_are() -> None:
    with pytest.raises(FrozenInstanceError):
        Coded(b"", b"", b"").symbols = b"1234"  # type: ignore[misc]
