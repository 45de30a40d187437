# SPDX-License-Identifier: Apache-2.0
"""What goes into the container comes out; each kind of damage has its own error; nothing is believed unchecked."""

import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentwire_core.container import (
    LARGEST_NUMBER,
    MAX_VALUES,
    SECTION_NAMES,
    Header,
    PayloadKind,
    Sections,
    pack,
    read_header,
    unpack,
)
from latentwire_core.errors import (
    BitstreamError,
    ChecksumMismatch,
    Malformed,
    TensorError,
    TrailingBytes,
    Truncated,
    UnsupportedVersion,
)
from tests.codec.lat.lat_golden import CASES, read

HEADER = Header(
    kind=PayloadKind.QUANTIZED,
    model="f8c4",
    latent_space="latentwire-f8c4@3",
    weights_digest="0123456789abcdef",
    image_size=(500, 768),
    shape=(4, 63, 96),
    table_id=0x89ABCDEF,
    exponent=17,
    numerators=(65535, 1, 300, 300),
    reconstruction_offset=20,
)
SECTIONS = Sections(bytes(36), b"symbols!", b"\1", b"", b"")

names = st.text(max_size=60)
numbers = st.integers(1, LARGEST_NUMBER)


@st.composite
def headers(draw: st.DrawFn) -> Header:
    channels = draw(st.integers(1, 1024))
    height = draw(st.integers(1, min(1 << 16, MAX_VALUES // channels)))
    width = draw(st.integers(1, min(1 << 16, MAX_VALUES // channels // height)))
    kind = draw(st.sampled_from(PayloadKind))
    step = st.integers(1, 65535)
    steps = draw(st.one_of(st.tuples(step).map(lambda one: one * channels), st.lists(step, min_size=1, max_size=40)))
    return Header(
        kind=kind,
        model=draw(names),
        latent_space=draw(names),
        weights_digest=draw(st.one_of(st.just(""), st.integers(1, 2**64 - 1).map("{:016x}".format))),
        image_size=draw(st.one_of(st.just((0, 0)), st.tuples(numbers, numbers))),
        shape=(channels, height, width),
        table_id=draw(st.integers(0, 2**32 - 1)),
        exponent=draw(st.integers(-64, 63)),
        numerators=tuple((steps * channels)[:channels]),
        reconstruction_offset=draw(st.integers(0, 255)) if kind is PayloadKind.QUANTIZED else 0,
    )


@given(headers(), st.lists(st.binary(max_size=9), min_size=5, max_size=5))
def test_a_header_and_sections_come_back(header: Header, parts: list[bytes]) -> None:
    payload = pack(header, Sections(*parts))
    assert unpack(payload) == (header, Sections(*parts))
    assert read_header(payload) == header


def test_the_bytes_are_those_of_the_specification() -> None:
    head = b"".join(
        [
            b"\x89LAT\1\1",
            b"\4f8c4",
            b"\x11latentwire-f8c4@3",
            bytes.fromhex("0123456789abcdef"),
            b"\xf4\3\x80\6",
            b"\4\x3f\x60",
            b"\xef\xcd\xab\x89",
            b"\x11",
            b"\4\xff\xff\1\0\x2c\1\x2c\1",
            b"\x14",
            b"\x24\x08\1\0\0",
        ]
    )
    parts = [head, bytes(36), b"symbols!", b"\1"]
    assert pack(HEADER, SECTIONS) == b"".join(part + zlib.crc32(part).to_bytes(4, "little") for part in parts)


def test_an_image_of_four_channels_has_at_most_96_bytes_of_overhead() -> None:
    parts = Sections(bytes(36), bytes(6000), bytes(100), bytes(100))
    header = replace(HEADER, image_size=(65536, 65536), shape=(4, 1024, 1024), numerators=(9, 8, 7, 6))
    assert len(pack(header, parts)) - sum(map(len, vars(parts).values())) <= 96


@pytest.mark.parametrize("shape", [(1, 65536, 1), (1, 1, 65536), (1024, 1, 1), (4, 2048, 2048), (1, 65536, 256)])
def test_the_largest_shapes_are_accepted(shape: tuple[int, int, int]) -> None:
    header = replace(HEADER, shape=shape, numerators=(1,) * shape[0])
    assert unpack(pack(header, Sections()))[0].shape == shape


def test_equal_steps_are_written_once() -> None:
    vector = replace(HEADER, shape=(1024, 1, 1), numerators=(5,) * 1024)
    payload = pack(vector, Sections())
    assert len(payload) < 80
    assert read_header(payload).numerators == (5,) * 1024


@pytest.mark.parametrize("name", CASES)
def test_each_truncation_is_named(name: str) -> None:
    payload = read(name)
    for length in range(len(payload)):
        with pytest.raises(Truncated):
            unpack(payload[:length])


@pytest.mark.parametrize("name", CASES)
def test_each_flipped_bit_is_found(name: str) -> None:
    payload = bytearray(read(name))
    for place in range(8 * len(payload)):
        payload[place // 8] ^= 1 << place % 8
        with pytest.raises(BitstreamError):
            unpack(bytes(payload))
        payload[place // 8] ^= 1 << place % 8
    unpack(bytes(payload))


@pytest.mark.parametrize("more", [b"\0", b"\x89LAT", bytes(1000)])
def test_bytes_after_the_end_are_refused(more: bytes) -> None:
    with pytest.raises(TrailingBytes, match="announces"):
        unpack(pack(HEADER, SECTIONS) + more)


@pytest.mark.parametrize("payload", [b"GIF89a", b"\x89PNG\r\n\x1a\n", b"L", b"\x89LAU\1"])
def test_another_kind_of_file_is_refused(payload: bytes) -> None:
    with pytest.raises(Malformed, match="begins with"):
        unpack(payload)


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused_whatever_follows(version: int) -> None:
    with pytest.raises(UnsupportedVersion, match=f"version {version}; this release reads version 1"):
        unpack(b"\x89LAT" + bytes([version]) + b"anything")


def test_a_checksum_names_the_part_that_was_changed() -> None:
    payload = pack(HEADER, SECTIONS)
    for part, place in (("header", 8), ("section symbols", payload.index(b"symbols!"))):
        changed = bytearray(payload)
        changed[place] ^= 4
        with pytest.raises(ChecksumMismatch, match=f"the {part} was changed"):
            unpack(bytes(changed))


def fields(**changes: bytes) -> bytes:
    """A header from its fields as bytes, with a right checksum."""
    parts = {
        "magic": b"\x89LAT\1",
        "kind": b"\1",
        "model": b"\0",
        "space": b"\0",
        "digest": bytes(8),
        "image": b"\0\0",
        "shape": b"\2\3\4",
        "table": bytes(4),
        "exponent": b"\0",
        "steps": b"\1\1\0",
        "reconstruction_offset": b"\0",
        "lengths": bytes(5),
    }
    head = b"".join({**parts, **changes}.values())
    return head + zlib.crc32(head).to_bytes(4, "little")


def test_the_crafted_header_is_right_before_it_is_changed() -> None:
    assert unpack(fields())[0].shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("field", "octets", "problem"),
    [
        ("kind", b"\0", "Kind"),
        ("kind", b"\3", "Kind"),
        ("model", b"\1\xff", "utf-8"),
        ("space", b"\2\xc3\x28", "utf-8"),
        ("image", b"\0\1", "image size"),
        ("image", b"\1\0", "image size"),
        ("image", b"\x80\0\1", "longer than it must be"),
        ("image", b"\xff\xff\xff\xff\x10\1", "32 bits"),
        ("image", b"\x80\x80\x80\x80\x80\1\1", "5 bytes"),
        ("shape", b"\0\1\1", "0 channels"),
        ("shape", b"\x81\x08\1\1", "1025 channels"),
        ("shape", b"\1\0\1", "1x0"),
        ("shape", b"\1\1\0", "0x1"),
        ("shape", b"\1\x81\x80\x04\1", "1x65537"),
        ("shape", b"\x80\x08\xff\xff\x03\xff\xff\x03", "at most 16777216"),
        ("shape", b"\xff\xff\xff\xff\x0f\1\1", "4294967295 channels"),
        ("steps", b"\0", "0 steps"),
        ("steps", b"\3\1\0\1\0\1\0", "3 steps for 2"),
        ("steps", b"\2\1\0\0\0", "steps of 0"),
        ("steps", b"\1\0\0", "steps of 0"),
        ("exponent", b"\x40", "exponent 64"),
        ("exponent", b"\xbf", "exponent -65"),
        ("lengths", b"\xff\xff\xff\xff\x0f\0\0\0\0", "4294967295 bytes of weights; its latents need at most 224"),
        ("lengths", b"\0\x3c\0\0\0", "60 bytes of symbols; its latents need at most 59"),
        ("lengths", b"\0\0\x69\0\0", "105 bytes of escapes; its latents need at most 104"),
        ("lengths", b"\0\0\0\x4e\0", "78 bytes of low_bits; its latents need at most 77"),
        ("lengths", b"\0\0\0\0\x3c", "60 bytes of remainders; its latents need at most 59"),
    ],
)
def test_values_that_the_format_does_not_have_are_refused(field: str, octets: bytes, problem: str) -> None:
    with pytest.raises(Malformed, match=problem):
        unpack(fields(**{field: octets}))


def test_float16_has_no_reconstruction_offset() -> None:
    with pytest.raises(Malformed, match=r"the reconstruction offset 9; 0\.\.0"):
        unpack(fields(kind=b"\2", reconstruction_offset=b"\x09"))


@pytest.mark.parametrize("section", SECTION_NAMES)
def test_a_section_that_is_announced_must_be_there(section: str) -> None:
    lengths = bytes(3 * (name == section) for name in SECTION_NAMES)
    with pytest.raises(Truncated):
        unpack(fields(lengths=lengths) + bytes(6))


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": b"\x80\x08\xff\xff\x03\xff\xff\x03", "steps": b"\1\1\0"},
        {"shape": b"\xff\xff\xff\xff\x0f\1\1", "steps": b"\1\1\0"},
        {"steps": b"\xff\xff\xff\xff\x0f"},
        {"lengths": b"\xff\xff\xff\xff\x0f" * 5},
    ],
)
def test_what_a_header_announces_is_not_allocated_before_it_is_refused(changes: dict[str, bytes]) -> None:
    payload = fields(**changes)
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError):
            unpack(payload)
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_fewer_latents_can_be_allowed() -> None:
    with pytest.raises(Malformed, match="24 latents; at most 23"):
        unpack(fields(), max_values=23)
    assert unpack(fields(), max_values=24)[0].shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"model": "x" * 256}, "256 bytes"),
        ({"latent_space": "ä" * 128}, "256 bytes"),
        ({"model": "\ud800"}, "is no text"),
        ({"weights_digest": "0123"}, "16 hex digits"),
        ({"weights_digest": "x" * 16}, "16 hex digits"),
        ({"image_size": (1, 0)}, "image size"),
        ({"image_size": (-1, 5)}, "image size"),
        ({"image_size": (1, 1 << 32)}, "image size"),
        ({"shape": (1025, 1, 1)}, "1025 channels"),
        ({"shape": (4, 0, 1)}, "sides"),
        ({"shape": (4, 4096, 4096)}, "at most 16777216"),
        ({"numerators": (1, 2, 3)}, "3 steps"),
        ({"numerators": (1, 2, 3, 65536)}, "65535 are allowed"),
        ({"exponent": 64}, "exponent"),
        ({"reconstruction_offset": 256}, "reconstruction offset"),
        ({"reconstruction_offset": 1, "kind": PayloadKind.FLOAT16}, "reconstruction offset"),
    ],
)
def test_what_the_format_has_no_place_for_is_not_written(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(TensorError, match=problem):
        pack(replace(HEADER, **change), SECTIONS)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(payload: bytes) -> None:
    for each in (payload, b"\x89LAT\1" + payload):
        with pytest.raises(BitstreamError):
            unpack(each)
