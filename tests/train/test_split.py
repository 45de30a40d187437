# SPDX-License-Identifier: Apache-2.0
"""Names in, indices to train on and indices held out."""

import hashlib

import pytest

from latentwire_core.errors import DataError
from latentwire_train.data.split import split_by_hash

NAMES = [f"folder/{k:04}.png" for k in range(2000)]


def test_the_held_out_share_is_met_and_nothing_is_lost_or_twice() -> None:
    train, held_out = split_by_hash(NAMES, 0.1)
    assert sorted(train + held_out) == list(range(2000))
    assert 150 < len(held_out) < 250  # 3.7 standard deviations of the binomial
    assert train == sorted(train)


def test_the_split_is_what_the_hash_of_each_path_says() -> None:
    _, held_out = split_by_hash(NAMES, 0.1)
    first_bits = [hashlib.sha256(b"\0" + name.encode()).hexdigest() for name in NAMES]
    tenth = f"{int(0.1 * 2**64):016x}"
    assert set(held_out) == {k for k, bits in enumerate(first_bits) if bits[:16] < tenth}
    assert held_out == sorted(held_out, key=lambda k: first_bits[k])


def test_every_file_stays_on_its_side_when_files_are_added_or_removed() -> None:
    def held(names: list[str]) -> set[str]:
        return {names[k] for k in split_by_hash(names, 0.05)[1]}

    more = [f"new/{k}.jpg" for k in range(500)] + NAMES
    assert held(more) & set(NAMES) == held(NAMES)
    assert held(NAMES[::2]) == held(NAMES) & set(NAMES[::2])


def test_a_small_set_holds_out_one_at_least() -> None:
    train, held_out = split_by_hash(NAMES[:3], 1e-9)
    assert (len(train), len(held_out)) == (2, 1)


def test_a_split_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="1 images cannot be split"):
        split_by_hash(NAMES[:1], 0.5)
    with pytest.raises(DataError, match="all 3 images would be held out"):
        split_by_hash(NAMES[:3], 1 - 1e-12)
    for share in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must lie between 0 and 1"):
            split_by_hash(NAMES, share)
