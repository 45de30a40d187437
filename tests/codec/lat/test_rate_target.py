# SPDX-License-Identifier: Apache-2.0
"""A wanted size or quality is met as closely as is said, in as few tries as are said, or refused."""

import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentwire_codec.lat.payload import compress_latents, decompress_latents
from latentwire_codec.lat.rate_target import COARSEST, FINEST, RESOLUTION, largest_within, smallest_with

MOST_TRIES = 11
LATENTS = np.random.default_rng(5).normal(size=(3, 12, 16)).astype(np.float32)


class Coder:
    """Payloads whose length falls with the step, by a law that is known; remembers the steps that were tried."""

    def __init__(self, bytes_of: Callable[[float], int]) -> None:
        self.bytes_of = bytes_of
        self.steps: list[float] = []

    def __call__(self, step: float) -> bytes:
        self.steps.append(step)
        return bytes(self.bytes_of(np.log2(step)))


def ideal(octave: float) -> int:
    """1000 latents, a bit less for each octave, none left from step 1 on."""
    return 40 + max(0, round(1000 * -octave / 8))


@given(most_bytes=st.integers(40, 2000))
def test_a_size_is_met_to_a_64th_bit_for_each_latent(most_bytes: int) -> None:
    coder = Coder(ideal)
    payload = largest_within(coder, most_bytes)
    assert len(payload) <= most_bytes
    reachable = min(most_bytes, ideal(FINEST))
    assert reachable - len(payload) <= 1000 * RESOLUTION / 8 + 1
    assert len(coder.steps) <= MOST_TRIES


@given(wanted=st.floats(-10, 66))
def test_a_measure_is_met_with_as_few_bytes_as_that_takes(wanted: float) -> None:
    steps: list[float] = []

    def attempt(step: float) -> bytes:
        steps.append(step)
        return struct.pack("<d", step)

    def measure(payload: bytes) -> float:
        return float(30 - 6 * np.log2(struct.unpack("<d", payload)[0]))

    payload = smallest_with(attempt, measure, wanted)
    assert measure(payload) >= wanted
    assert measure(payload) - max(wanted, 30 - 6 * COARSEST) <= 6 * RESOLUTION
    assert len(steps) <= MOST_TRIES


def test_what_cannot_be_reached_is_refused_after_one_try() -> None:
    coder = Coder(ideal)
    with pytest.raises(ValueError, match="39 bytes cannot be reached; the smallest payload has 40"):
        largest_within(coder, 39)
    with pytest.raises(ValueError, match=r"51 cannot be reached; the finest payload measures 50\.5"):
        smallest_with(coder, lambda payload: 50.5, 51)
    assert coder.steps == [2.0**COARSEST, 2.0**FINEST]


def test_the_best_of_the_tries_is_returned_where_sizes_go_up_and_down() -> None:
    coder = Coder(lambda octave: ideal(octave) + (7 if int(octave * 64) % 2 else 0))
    assert len(largest_within(coder, 500)) <= 500


@pytest.mark.parametrize("most_bytes", [150, 300, 700])
def test_latents_are_compressed_to_a_size(most_bytes: int) -> None:
    payload = largest_within(partial(compress_latents, LATENTS), most_bytes)
    assert 0.95 * most_bytes - 8 <= len(payload) <= most_bytes


@pytest.mark.parametrize("decibels", [10.0, 25.0])
def test_latents_are_compressed_to_an_error(decibels: float) -> None:
    def measure(payload: bytes) -> float:
        error = np.square(decompress_latents(payload)[0] - LATENTS).mean()
        return float(-10 * np.log10(error))

    payload = smallest_with(partial(compress_latents, LATENTS), measure, decibels)
    assert decibels <= measure(payload) < decibels + 0.5


def test_it_needs_no_torch_and_no_coder() -> None:
    script = (
        "import sys, latentwire_codec.lat.rate_target; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'numba')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
