# SPDX-License-Identifier: Apache-2.0
"""LEB128 as others write it; bytes too many are refused."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from latentwire_core.varints import check_varints, to_varint

LARGEST = 2**28 - 1

# From the DWARF specification (LEB128), figure 22, and the bounds of each length.
KNOWN = {
    0: "00", 2: "02", 127: "7f", 128: "8001", 129: "8101", 12857: "b964", 16383: "ff7f", 16384: "808001",
    2**21 - 1: "ffff7f", 2**21: "80808001", LARGEST: "ffffff7f",
}  # fmt: skip


@pytest.mark.parametrize(("number", "octets"), KNOWN.items())
def test_a_number_has_its_bytes(number: int, octets: str) -> None:
    assert to_varint(number).hex() == octets


def test_a_single_number_may_be_longer_than_those_of_an_array() -> None:
    assert to_varint(2**32 - 1).hex() == "ffffffff0f"


@given(st.lists(st.integers(0, LARGEST), max_size=20))
@example([])
@example([LARGEST, 0, 128, 127])
def test_numbers_one_after_the_other_are_taken(numbers: list[int]) -> None:
    assert check_varints(np.frombuffer(b"".join(map(to_varint, numbers)), np.uint8)) == ""


@pytest.mark.parametrize("octets", ["80", "ff", "0180", "ffffff"])
def test_a_number_that_does_not_end_is_refused(octets: str) -> None:
    assert check_varints(np.frombuffer(bytes.fromhex(octets), np.uint8)) == "does not end"


@pytest.mark.parametrize("octets", ["8000", "818000", "ff00", "8080808001", "ffffffff7f", "018000", "0180808080017f"])
def test_a_number_with_bytes_too_many_is_refused(octets: str) -> None:
    complaint = check_varints(np.frombuffer(bytes.fromhex(octets), np.uint8))
    assert complaint == "is longer than it must be, or than 4 bytes"


@pytest.mark.parametrize("octets", ["", "00", "0000", "ffffff7f", "80808001ffffff7f", "7f00"])
def test_numbers_of_the_longest_kind_and_zeros_are_taken(octets: str) -> None:
    assert check_varints(np.frombuffer(bytes.fromhex(octets), np.uint8)) == ""
