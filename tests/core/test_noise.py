# SPDX-License-Identifier: Apache-2.0
"""Seeded noise is the documented algorithm: its words are Philox's, its numbers Box and Muller's."""

import math

import numpy as np
import pytest

from latentwire_core.errors import TensorError
from latentwire_core.noise import check_seed, seeded_noise

WORD = MAX_SEED = 2**64 - 1


def philox(counter: int, key: tuple[int, int]) -> list[int]:
    """Map a counter and a key to the four words of Philox4x64-10, written from the paper with Python's integers."""
    words, (key0, key1) = [counter, 0, 0, 0], key
    for _ in range(10):
        product0, product1 = 0xD2E7470EE14C6C93 * words[0], 0xCA5A826395121157 * words[2]
        words = [
            (product1 >> 64) ^ words[1] ^ key0,
            product1 & WORD,
            (product0 >> 64) ^ words[3] ^ key1,
            product0 & WORD,
        ]
        key0, key1 = (key0 + 0x9E3779B97F4A7C15) & WORD, (key1 + 0xBB67AE8584CAA73B) & WORD
    return words


@pytest.mark.parametrize("seed", [0, 1, 2**63 + 12345, MAX_SEED])
@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 3, 5), (1, 2, 3), (16, 1, 1), (3, 1, 2**19 + 1)])
def test_the_numbers_are_those_of_the_algorithm(seed: int, shape: tuple[int, int, int]) -> None:
    channels, height, width = shape
    noise = seeded_noise(seed, shape)
    assert noise.shape == shape
    assert noise.dtype == np.float32
    key = (seed, channels * 2**40 + height * 2**20 + width)
    words = [word for counter in range(1, 16) for word in philox(counter, key)]
    expected: list[float] = []
    for one, two in zip(words[::2], words[1::2], strict=True):
        radius = math.sqrt(-2 * math.log(((one >> 11) + 1) * 2**-53))
        angle = 2 * math.pi * (two >> 11) * 2**-53
        expected += [radius * math.cos(angle), radius * math.sin(angle)]
    count = min(noise.size, len(expected))
    np.testing.assert_allclose(noise.reshape(-1)[:count], expected[:count], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("seed", [0, MAX_SEED])
def test_the_smallest_and_the_largest_seed_are_taken(seed: int) -> None:
    check_seed(seed)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_beside_them_is_refused_by_its_name(seed: int) -> None:
    with pytest.raises(TensorError, match=rf"^seeds\[3\] is {seed}; it must be in 0\.\.2\^64-1$"):
        check_seed(seed, "seeds[3]")


def test_a_word_of_zeros_gives_the_largest_number_and_no_infinity(monkeypatch: pytest.MonkeyPatch) -> None:
    class Zeros:
        def __init__(self, key: object) -> None: ...

        def random_raw(self, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
            return np.zeros(count, np.uint64)

    monkeypatch.setattr(np.random, "Philox", Zeros)
    # u = 2^-53 and v = 0.
    np.testing.assert_allclose(seeded_noise(0, (1, 1, 2))[0, 0], [math.sqrt(2 * 53 * math.log(2)), 0.0], rtol=1e-6)
