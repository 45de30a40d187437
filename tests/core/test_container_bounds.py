# SPDX-License-Identifier: Apache-2.0
"""The last value that the container takes, and the first that it refuses."""

from dataclasses import replace
from typing import Any

import pytest

from latentwire_core.container import (
    LARGEST_NUMBER,
    MAX_CHANNELS,
    MAX_NAME_BYTES,
    MAX_SIDE,
    MAX_VALUES,
    SECTION_BITS,
    Header,
    PayloadKind,
    Sections,
    pack,
    read_header,
    unpack,
)
from latentwire_core.errors import Malformed, TensorError, Truncated

SMALL = Header(
    kind=PayloadKind.QUANTIZED,
    model="",
    latent_space="",
    weights_digest="",
    image_size=(0, 0),
    shape=(1, 1, 1),
    table_id=0,
    exponent=0,
    numerators=(1,),
    reconstruction_offset=0,
)


def test_the_limits_are_those_of_the_specification() -> None:
    assert (MAX_CHANNELS, MAX_SIDE, MAX_VALUES, MAX_NAME_BYTES, LARGEST_NUMBER) == (1024, 65536, 2**24, 255, 2**32 - 1)
    assert SECTION_BITS == {"weights": 72, "symbols": 17, "escapes": 32, "low_bits": 23, "remainders": 17}


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (1, 65536, 1)},
        {"shape": (1, 1, 65536)},
        {"shape": (1024, 1, 1), "numerators": (1,) * 1024},
        {"shape": (1, 4096, 4096)},
        {"shape": (256, 256, 256), "numerators": (1,) * 256},
        {"image_size": (1, 1)},
        {"image_size": (LARGEST_NUMBER, LARGEST_NUMBER)},
        {"numerators": (65535,)},
        {"exponent": -64},
        {"exponent": 63},
        {"reconstruction_offset": 255},
        {"reconstruction_offset": 1},
        {"table_id": LARGEST_NUMBER},
        {"model": "m" * 255, "latent_space": "é" * 127},
        {"weights_digest": "0123456789abcdef"},
    ],
)
def test_the_last_allowed_value_is_taken(change: dict[str, Any]) -> None:
    header = replace(SMALL, **change)
    payload = pack(header, Sections())
    assert read_header(payload) == header
    assert unpack(payload) == (header, Sections())


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (1, 65537, 1)},
        {"shape": (1, 1, 65537)},
        {"shape": (1, 0, 1)},
        {"shape": (1, 1, 0)},
        {"shape": (0, 1, 1), "numerators": ()},
        {"shape": (1025, 1, 1), "numerators": (1,) * 1025},
        {"shape": (1, 4096, 4097)},
        {"shape": (2, 1, 1)},
        {"image_size": (0, 1)},
        {"image_size": (1, 0)},
        {"image_size": (LARGEST_NUMBER + 1, 1)},
        {"image_size": (1, LARGEST_NUMBER + 1)},
        {"numerators": (65536,)},
        {"numerators": (0,)},
        {"exponent": -65},
        {"exponent": 64},
        {"reconstruction_offset": 256},
        {"reconstruction_offset": -1},
        {"kind": PayloadKind.FLOAT16, "reconstruction_offset": 1},
        {"model": "m" * 256},
        {"latent_space": "é" * 128},
        {"weights_digest": "0123456789abcde"},
        {"weights_digest": "0123456789abcdeg"},
        {"weights_digest": "0123456789abcdef" + "g"},
    ],
)
def test_the_next_value_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TensorError):
        pack(replace(SMALL, **change), Sections())


def test_a_reader_s_own_limit_of_latents_is_exact() -> None:
    payload = pack(replace(SMALL, shape=(1, 3, 4)), Sections())
    assert unpack(payload, max_values=12)[0].shape == (1, 3, 4)
    with pytest.raises(Malformed, match="announces 12 latents; at most 11 are allowed"):
        unpack(payload, max_values=11)


@pytest.mark.parametrize(("section", "bits"), SECTION_BITS.items())
def test_a_section_may_have_its_bits_for_each_latent_and_eight_bytes(section: str, bits: int) -> None:
    most = bits * 12 // 8 + 8
    header = replace(SMALL, shape=(1, 3, 4))
    largest = Sections(**{section: bytes(most)})
    assert unpack(pack(header, largest)) == (header, largest)
    with pytest.raises(Malformed, match=f"announces {most + 1} bytes of {section}; its latents need at most {most}"):
        unpack(pack(header, Sections(**{section: bytes(most + 1)})))


def test_a_digest_that_is_longer_is_cut_to_eight_bytes() -> None:
    header = replace(SMALL, weights_digest="0123456789abcdef" * 4)
    assert read_header(pack(header, Sections())).weights_digest == "0123456789abcdef"


def test_a_header_that_ends_anywhere_is_truncated() -> None:
    payload = pack(SMALL, Sections())
    for count in range(len(payload)):
        with pytest.raises(Truncated, match=f"^the payload ends after {count} bytes, inside its header$"):
            read_header(payload[:count])


def test_values_are_frozen() -> None:
    for value, name in ((SMALL, "reconstruction_offset"), (Sections(), "weights")):
        with pytest.raises(AttributeError):
            setattr(value, name, 0)
