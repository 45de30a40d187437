# SPDX-License-Identifier: Apache-2.0
"""Keys in, random numbers out: the same everywhere."""

import numpy as np
import pytest

from latentwire_core.draws import Draws

# Random123, kat_vectors: philox4x64 10, counter and key all zero.
PHILOX_ZERO = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]


def test_the_words_are_those_of_philox_from_the_second_block_on() -> None:
    # numpy counts before it computes: its first block is that of counter 1.
    before = np.random.Philox(key=0, counter=2**256 - 1)
    assert before.random_raw(4).tolist() == PHILOX_ZERO
    words = Draws(0, 0, 0).words(8)
    assert words.tolist() == before.random_raw(8).tolist()


def test_draws_depend_on_each_of_their_three_numbers_and_on_nothing_else() -> None:
    keys = [(1, 2, 3), (2, 1, 3), (1, 2, 4), (1, 3, 3), (2**64 - 1, 2, 3), (1, 2, 2**64 - 1)]
    assert len({Draws(*key).uniform() for key in keys}) == len(keys)
    assert Draws(1, 2, 3).uniform() == Draws(1, 2, 3).uniform()


@pytest.mark.parametrize("key", [(-1, 0, 0), (2**64, 0, 0), (0, 2**64, 0), (0, 0, -1)])
def test_numbers_out_of_range_are_refused(key: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"must be >= 0 and below 2\*\*64"):
        Draws(*key)


def test_uniform_numbers_lie_in_the_unit_interval_with_the_right_mean() -> None:
    draws = Draws(5, 0, 0)
    numbers = [draws.uniform() for _ in range(4000)]
    assert min(numbers) >= 0
    assert max(numbers) < 1
    assert abs(np.mean(numbers) - 0.5) < 4 * (1 / 12 / 4000) ** 0.5
