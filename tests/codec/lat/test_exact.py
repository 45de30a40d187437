# SPDX-License-Identifier: Apache-2.0
"""Every finite float16 comes back bit for bit; integers and remainders that contradict each other are refused."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from latentwire_codec.lat.exact import join, split
from latentwire_codec.lat.payload import compress_latents, decompress_latents
from latentwire_codec.lat.quantizer import Steps
from latentwire_core.container import LAST_BYTES, SECTION_BITS
from latentwire_core.errors import Malformed, NonFiniteError, TensorError

Half = npt.NDArray[np.float16]
unhurried = settings(deadline=None)
PATTERNS = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(np.float16)
FINITE = PATTERNS[np.isfinite(PATTERNS)]
shapes = st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12))
# Places among the finite patterns, so that no number has to be drawn again.
halves = arrays.arrays(np.intp, shapes, elements=st.integers(0, FINITE.size - 1)).map(FINITE.take)


def same(first: Half, second: Half) -> bool:
    return first.dtype == second.dtype and np.array_equal(first.view(np.uint16), second.view(np.uint16))


@pytest.mark.parametrize("shape", [(1, 248, 256), (62, 32, 32), (31, 50, 40), (124, 500, 1)])
def test_all_finite_patterns_come_back(shape: tuple[int, int, int]) -> None:
    assert FINITE.size == 63488
    latents = FINITE[: np.prod(shape)].reshape(shape)
    assert same(join(*split(latents)), latents)


@pytest.mark.parametrize("largest", [2.0**-24, 2.0**-15, 1e-3, 1.0, 300.0])
def test_all_patterns_up_to_a_size_come_back(largest: float) -> None:
    """Channels of another spread have other steps."""
    latents = FINITE[np.abs(FINITE) <= largest].reshape(2, -1, 1)
    assert same(join(*split(latents)), latents)


def test_all_finite_patterns_come_back_from_a_payload() -> None:
    latents = np.random.default_rng(0).permutation(FINITE).reshape(1, 248, 256)
    assert same(decompress_latents(compress_latents(latents, "lossless"))[0].astype(np.float16), latents)


@unhurried
@given(halves)
def test_any_latents_come_back_from_a_payload(latents: Half) -> None:
    found, header = decompress_latents(compress_latents(latents, "lossless"))
    assert found.dtype == np.float16
    assert same(found.astype(np.float16), latents)
    assert header.reconstruction_offset == 0


@unhurried
@given(halves)
def test_steps_are_powers_of_two_and_remainders_at_most_17_bits_for_each(latents: Half) -> None:
    integers, steps, remainders = split(latents)
    assert len(remainders) <= SECTION_BITS["remainders"] * latents.size // 8 + LAST_BYTES
    assert all(numerator & (numerator - 1) == 0 for numerator in steps.numerators)
    assert np.abs(integers).max() < 1 << 23


def test_big_endian_latents_come_back_as_numbers() -> None:
    latents = np.array([[[1.5, -0.0, 65504.0]]], ">f2")
    assert same(decompress_latents(compress_latents(latents, "lossless"))[0].astype("<f2"), latents.astype("<f2"))


def test_another_dtype_is_refused() -> None:
    with pytest.raises(TensorError, match="float32; only float16"):
        split(np.zeros((1, 1, 1), np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(NonFiniteError):
        split(np.full((1, 2, 2), value, np.float16))


ONE = np.ones((1, 1, 1), np.int64)


@pytest.mark.parametrize(
    ("integers", "steps", "remainders", "problem"),
    [
        (ONE, Steps((3,), 0), b"", "not powers of 2"),
        (ONE, Steps((1 << 15,), -10), b"", "not powers of 2"),
        (ONE, Steps((1,), 25), b"", "not powers of 2"),
        (ONE << 16, Steps((1,), 0), b"", "above 65504"),
        (-ONE << 22, Steps((1 << 15,), -9), b"", "above 65504"),
        (ONE * 32, Steps((1 << 11,), 0), b"", "above 65504"),
        (ONE * 31, Steps((1 << 11,), 0), b"", "fewer low bits"),
        (ONE * 31, Steps((1 << 11,), 0), b"\xff\xff", "more low bits"),
        (ONE, Steps((1,), 24), b"\0", "more low bits"),
        (ONE * 0, Steps((1,), 24), b"", "fewer low bits"),
        (ONE * 0, Steps((1,), 24), b"\x02\0", "more low bits"),
        (ONE * 0, Steps((1,), 24), b"\x04", "larger than its step"),
        (ONE * 0, Steps((1,), 0), b"\x64", "larger than its step"),
        (ONE * 0, Steps((1 << 15,), -9), b"\xa8\0\0", "above 65504"),
    ],
)
def test_what_no_float16_gives_is_refused(
    integers: npt.NDArray[np.int64], steps: Steps, remainders: bytes, problem: str
) -> None:
    with pytest.raises(Malformed, match=problem):
        join(integers, steps, remainders)


@unhurried
@given(
    st.lists(st.integers(1 - (1 << 23), (1 << 23) - 1), min_size=1, max_size=9),
    st.integers(0, 15),
    st.integers(-64, 63),
    st.binary(max_size=30),
)
def test_anything_gives_float16_or_is_malformed(
    integers: list[int], shift: int, exponent: int, remainders: bytes
) -> None:
    try:
        found = join(np.array(integers).reshape(1, 1, -1), Steps((1 << shift,), exponent), remainders)
    except Malformed:
        return
    assert np.isfinite(found).all()
