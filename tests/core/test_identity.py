# SPDX-License-Identifier: Apache-2.0
"""Who may decode what: by name where both have one, else by weights, else what is unknown fits."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from latentwire_core.identity import same_space, space_in_words, weights_digest

ONE, TWO = "1234567890abcdef" * 4, "fedcba0987654321" * 4


@dataclass(frozen=True)
class Maker:
    latent_space: str = ""
    weights_digest: str = ""


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Maker("sd1"), Maker("sd1"), True),
        (Maker("sd1"), Maker("sdxl"), False),
        (Maker("sd1", ONE), Maker("sd1", TWO), True),
        (Maker("sd1", ONE), Maker("sdxl", ONE), False),
        (Maker("sd1", ONE), Maker("", ONE), True),
        (Maker("sd1", ONE), Maker("", TWO), False),
        (Maker("", ONE), Maker("", ONE), True),
        (Maker("", ONE), Maker("", TWO), False),
        (Maker("", ONE), Maker("", ONE[:16]), True),
        (Maker("", ONE), Maker("", TWO[:16]), False),
        (Maker("", ONE), Maker("", ONE[:15] + "0"), False),
        (Maker("sd1"), Maker("", ONE), False),
        (Maker(), Maker(), True),
        (Maker(), Maker("sd1"), True),
        (Maker(), Maker("", ONE), True),
        (Maker(), Maker("sd1", ONE), True),
    ],
)
def test_two_origins_are_of_one_space_or_not(one: Maker, other: Maker, same: bool) -> None:
    assert same_space(one, other) is same
    assert same_space(other, one) is same


def test_a_space_is_named_in_messages() -> None:
    assert space_in_words(Maker("sd1", ONE)) == "'sd1'"
    assert space_in_words(Maker("", ONE)) == "unnamed, of weights 1234567890ab"
    assert space_in_words(Maker()) == "unknown"


def test_a_digest_is_that_of_names_dtypes_shapes_and_elements_in_order() -> None:
    tensors: dict[str, npt.NDArray[Any]] = {"b": np.array([[1.5, -2.0]], np.float32), "a": np.array(7, np.int64)}

    def read(tensor: npt.NDArray[Any]) -> tuple[str, tuple[int, ...], memoryview]:
        return tensor.dtype.name, tensor.shape, memoryview(tensor.tobytes())

    expected = hashlib.sha256(
        b"a\0int64\0\0" + b"\7" + bytes(7) + b"b\0float32\0" + b"1,2\0" + bytes.fromhex("0000c03f000000c0")
    ).hexdigest()
    assert weights_digest(tensors, read) == expected
    assert weights_digest(dict(reversed(tensors.items())), read) == expected
