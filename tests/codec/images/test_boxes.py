# SPDX-License-Identifier: Apache-2.0
"""AVIF files whose boxes and AV1 streams contradict each other are refused; those that encoders write are not."""

import struct
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from latentwire_codec.images import av1, boxes
from latentwire_codec.images.av1 import largest_frames
from latentwire_codec.images.files import read_image
from latentwire_core.errors import ImageError
from tests.image_files import AvifItem, av1_frame, av1_sequence_header, av1_unit, avif_boxes, avif_stream, box, encode

DELIMITER = b"\x12\x00"
SIDES = st.integers(1, 65_536)
SIZE = (128, 64)
HUGE = av1_sequence_header(16_384, 8192)
SMALL = AvifItem(b"av01", SIZE, DELIMITER + av1_sequence_header(*SIZE))
GRID = AvifItem(b"grid", SIZE, bytes(4) + struct.pack(">HH", *SIZE))
SIDE = 1100
"""Width and height of a frame that is larger than its picture and the pixels to spare."""


def largest_frame(stream: bytes) -> tuple[int, int] | None:
    return next(largest_frames([stream]))


def check(data: bytes) -> None:
    boxes.check_frames(boxes.frames(data), *SIZE)


@cache
def colours(side: tuple[int, int] = SIZE) -> bytes:
    return avif_stream(Image.new("RGB", side, (200, 60, 40)))


@cache
def alpha(side: tuple[int, int] = SIZE) -> bytes:
    return avif_stream(Image.new("L", side, 200))


LARGE = (SIDE, SIDE)
PICTURE = AvifItem(b"av01", SIZE, colours())
ALPHA = AvifItem(b"av01", SIZE, alpha(), alpha=True)
BOMB = AvifItem(b"av01", SIZE, colours(LARGE))


# Streams


@given(width=SIDES, height=SIDES, reduced=st.booleans())
def test_a_sequence_header_tells_the_largest_frame(width: int, height: int, reduced: bool) -> None:
    stream = DELIMITER + av1_sequence_header(width, height, reduced=reduced)
    assert largest_frame(stream) == (width, height)


def test_the_largest_of_several_headers_counts() -> None:
    streams = [av1_sequence_header(*size) for size in ((64, 64), (300, 200), (100, 100))]
    assert largest_frame(b"".join(streams)) == (300, 200)


def test_a_stream_that_ends_too_early_tells_what_is_whole() -> None:
    assert largest_frame(av1_sequence_header(64, 64) + HUGE[:5]) == (64, 64)
    assert largest_frame(HUGE[:5]) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_a_stream(stream: bytes) -> None:
    try:
        size = largest_frame(stream)
    except ImageError:
        return
    assert size is None or min(size) >= 1


def test_streams_of_many_units_together_are_refused() -> None:
    with pytest.raises(ImageError, match=f"more than {av1.MAX_UNITS} units"):
        list(largest_frames([DELIMITER * (av1.MAX_UNITS // 2 + 1)] * 2))


def test_a_frame_before_the_header_has_none() -> None:
    assert largest_frame(DELIMITER + av1_frame(override=False) + av1_sequence_header(64, 64)) is None


@pytest.mark.parametrize("kind", [0, 1, 2, 3], ids=["key", "inter", "intra", "switch"])
def test_a_frame_that_overrides_its_size_cannot_be_far_larger_than_announced(kind: int) -> None:
    # dav1d takes whatever the bits hold, also beyond the largest size.
    wide = av1_sequence_header(*SIZE, reduced=False, side_bits=16)
    with pytest.raises(ImageError, match="frames of their own size, of up to 65536x65536, where 128x64 is announced"):
        largest_frame(wide + av1_frame(override=True, kind=kind))
    layers = av1_sequence_header(*SIZE, reduced=False) + av1_frame(override=True, kind=kind)
    assert largest_frame(layers) == SIZE
    if kind != 3:
        assert largest_frame(wide + av1_frame(override=False, kind=kind)) == SIZE


def overriding(side: int) -> bytes:
    """A stream of a key frame of `side` whose sequence header announces 128x64, in 16 bits."""
    image = Image.new("RGB", (side, side), (200, 60, 40))
    data = encode(image, "AVIF", save_all=True, append_images=[image.copy()], speed=10)
    sizes = data.rindex(b"stsz") + 16
    (length,) = struct.unpack_from(">I", data, sizes)
    (start,) = struct.unpack_from(">I", data, data.rindex(b"stco") + 12)
    stream = data[start : start + length]
    assert stream.startswith(DELIMITER + b"\x0a")
    header, rest = stream[4 : 4 + stream[3]], stream[4 + stream[3] :]
    bits = "".join(f"{byte:08b}" for byte in header)
    sides = f"{side - 1:b}" * 2
    need = f"{len(sides) // 2 - 1:04b}" * 2
    at = bits.index(need + sides)
    tail = bits[at + 8 + len(sides) :].rstrip("0")
    bits = bits[:at] + "1111" * 2 + f"{SIZE[0] - 1:016b}{SIZE[1] - 1:016b}" + tail
    # Frames have no numbers, but an order, and turn on screen content tools and integer motion themselves.
    assert (tail[0], tail[8], tail[11:13]) == ("0", "1", "11")
    order = int(tail[13:16], 2) + 1
    assert rest[0] == 0x32
    length, body = av1._leb128(rest, 1)
    frame = "".join(f"{byte:08b}" for byte in rest[body : body + length])
    flag = 4 + 1 + 1 + int(frame[5])  # type and shown; CDF update; tools, and with them integer motion
    assert frame[flag] == "0"
    size = f"{side - 1:016b}" * 2
    frame = frame[:flag] + "1" + frame[flag + 1 : flag + 1 + order] + size + frame[flag + 1 + order :]
    payload = int(frame, 2).to_bytes(len(frame) // 8, "big")
    length = len(payload)
    return DELIMITER + av1_unit(1, bits) + bytes([0x32, length & 127 | 128, length >> 7]) + payload


# Boxes


@pytest.mark.parametrize("extents", [1, 3])
@pytest.mark.parametrize("in_idat", [False, True])
def test_a_frame_that_is_larger_than_its_picture_is_refused(in_idat: bool, extents: int) -> None:
    item = AvifItem(b"av01", SIZE, DELIMITER + HUGE)
    with pytest.raises(ImageError, match="is 128x64, and has a frame of 16384x8192; save it again"):
        check(avif_boxes([item], in_idat=in_idat, extents=extents))


@pytest.mark.parametrize("reference", [(b"auxl", 2, [1]), (b"dimg", 1, [2])])
@pytest.mark.parametrize(
    "other", [AvifItem(b"av01", SIZE, HUGE), AvifItem(b"av01", (16_384, 8192), SMALL.data)], ids=["frame", "ispe"]
)
def test_the_frames_and_sizes_of_alpha_and_of_tiles_count(reference: Any, other: AvifItem) -> None:
    primary = GRID if reference[0] == b"dimg" else SMALL
    with pytest.raises(ImageError, match="is 128x64, and has a frame of 16384x8192"):
        check(avif_boxes([primary, other], [reference]))


def test_items_that_are_not_decoded_may_be_of_any_size() -> None:
    check(avif_boxes([SMALL, AvifItem(b"av01", (16_384, 8192), HUGE)], [(b"thmb", 2, [1])]))


def test_many_tiles_that_together_are_much_larger_than_the_picture_are_refused() -> None:
    tile = AvifItem(b"av01", (1024, 1024), av1_sequence_header(1024, 1024))
    with pytest.raises(ImageError, match=r"and its 5 frames have 5242880 pixels; at most \d+ are decoded"):
        check(avif_boxes([GRID, *[tile] * 5], [(b"dimg", 1, range(2, 7))]))


def test_bytes_that_many_tiles_share_are_refused() -> None:
    tile = AvifItem(b"av01", (64, 64), bytes(8192))
    with pytest.raises(ImageError, match="decodes the same bytes again and again"):
        check(avif_boxes([GRID, *[tile] * 6], [(b"dimg", 1, range(2, 8))]))


def test_a_picture_without_a_sequence_header_is_refused() -> None:
    with pytest.raises(ImageError, match="a picture without a whole AV1 sequence header"):
        check(avif_boxes([AvifItem(b"av01", SIZE, DELIMITER)]))


def test_boxes_that_do_not_fit_together_are_refused() -> None:
    data = avif_boxes([SMALL])
    place = data.index(b"iloc") + 12  # the item's number, behind the count
    assert data[place - 2 : place + 2] == b"\0\1\0\1"
    for count in (b"\0\2", b"\0\xff"):
        with pytest.raises(ImageError, match="boxes of the AVIF file do not fit together"):
            check(data[: place - 2] + count + data[place:])
    with pytest.raises(ImageError, match="a table of 65535 entries; at most 4096"):
        check(data[: place - 2] + b"\xff\xff" + data[place:])


def test_a_table_is_read_once_however_many_items_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    # 4000 tiles took 9 s when each read the table anew.
    reads: list[memoryview] = []
    associated = boxes._associated

    def read(ipma: memoryview) -> Iterator[tuple[int, list[int]]]:
        reads.append(ipma)
        return associated(ipma)

    monkeypatch.setattr(boxes, "_associated", read)
    check(avif_boxes([GRID, *[SMALL] * 20], [(b"dimg", 1, range(2, 22))]))
    assert len(reads) == 1


# What libavif reads and decodes, although it is odd


def sequence(tail: bytes = b"", before: bool = False) -> bytes:
    """A sequence of 128x64 with a large first sample; a longer header of its track, or a track without samples before.

    The sample stands behind all else, so that no place moves but its own.
    """
    images = [Image.new("RGB", SIZE, (40 * shade, 0, 0)) for shade in range(3)]
    data = bytearray(encode(images[0], "AVIF", save_all=True, append_images=images[1:], speed=10))
    first = colours(LARGE)
    sizes, offset = data.rindex(b"stsz") + 16, data.rindex(b"stco") + 12
    (start,) = struct.unpack_from(">I", data, offset)
    (length,) = struct.unpack_from(">I", data, sizes)
    movie, track, header = (data.index(kind) - 4 for kind in (b"moov", b"trak", b"tkhd"))
    end = header + struct.unpack_from(">I", data, header)[0]
    empty = box(b"trak", bytes(data[header:end])) if before else b""
    added = len(tail) + len(empty)
    struct.pack_into(">I", data, offset, len(data) + added + 8)
    struct.pack_into(">I", data, sizes, len(first))
    for at, more in ((movie, added), (track, len(tail)), (header, len(tail))):
        struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + more)
    moved = data[:track] + empty + data[track:end] + tail + data[end:]
    return bytes(moved) + box(b"mdat", first, bytes(data[start + length :]))


GRIDDED = [(b"dimg", 1, [2])]
SOUND: dict[str, Callable[[], bytes]] = {
    "plain": lambda: avif_boxes([PICTURE]),
    "in idat": lambda: avif_boxes([PICTURE], in_idat=True, extents=2),
    "alpha": lambda: avif_boxes([PICTURE, ALPHA], [(b"auxl", 2, [1])]),
    "alpha without bytes": lambda: avif_boxes(
        [PICTURE, AvifItem(b"av01", SIZE, None, alpha=True)], [(b"auxl", 2, [1])]
    ),
    "property 0": lambda: avif_boxes([AvifItem(b"av01", SIZE, colours(), blank=True)]),
    "grid": lambda: avif_boxes([GRID, PICTURE], GRIDDED),
    "alpha of a tile": lambda: avif_boxes([GRID, PICTURE, ALPHA], [*GRIDDED, (b"auxl", 3, [2])]),
}
BOMBS: dict[str, Callable[[], bytes]] = {
    "plain": lambda: avif_boxes([BOMB]),
    "in idat": lambda: avif_boxes([BOMB], in_idat=True, extents=2),
    "alpha": lambda: avif_boxes([PICTURE, AvifItem(b"av01", SIZE, alpha(LARGE), alpha=True)], [(b"auxl", 2, [1])]),
    # libavif passes over the second item.
    "alpha without bytes": lambda: avif_boxes([BOMB, AvifItem(b"av01", SIZE, None, alpha=True)], [(b"auxl", 2, [1])]),
    # Property 0 is not the last one.
    "property 0": lambda: avif_boxes(
        [AvifItem(b"av01", SIZE, colours(LARGE), blank=True), AvifItem(b"av01", LARGE, None)]
    ),
    "grid": lambda: avif_boxes([GRID, BOMB], GRIDDED),
    "alpha of a tile": lambda: avif_boxes(
        [GRID, PICTURE, AvifItem(b"av01", SIZE, alpha(LARGE), alpha=True)], [*GRIDDED, (b"auxl", 3, [2])]
    ),
    "sequence": sequence,
    "sequence with a long track header": lambda: sequence(tail=struct.pack(">II", SIDE << 16, SIDE << 16)),
    "sequence behind a track without samples": lambda: sequence(before=True),
}


@pytest.mark.parametrize("form", SOUND)
def test_odd_boxes_that_libavif_reads_are_read(form: str) -> None:
    assert read_image(SOUND[form]()).shape == (64, 128, 3)


@pytest.mark.parametrize("form", BOMBS)
def test_a_large_frame_is_refused_wherever_libavif_finds_it(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = BOMBS[form]()
    with pytest.raises(ImageError, match=f"is 128x64, and has a frame of {SIDE}x{SIDE}"):
        read_image(data)
    monkeypatch.setattr(boxes, "check_frames", lambda *_: None)
    assert read_image(data).shape == (64, 128, 3)  # libavif decodes the frame, and scales it


def test_a_large_frame_that_overrides_its_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = avif_boxes([AvifItem(b"av01", SIZE, overriding(SIDE))])
    with pytest.raises(ImageError, match="frames of their own size, of up to 65536x65536"):
        read_image(data)
    monkeypatch.setattr(av1._Header, "check_override", lambda *_: None)
    assert read_image(data).shape == (64, 128, 3)


# What encoders write


@pytest.mark.parametrize("side", [(1, 1), (3, 5), (65, 127), (500, 300)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_what_an_encoder_writes_is_accepted(side: tuple[int, int], mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (side[1], side[0], 4), np.uint8)
    image = Image.fromarray(pixels, "RGBA").convert(mode)
    ways: list[dict[str, Any]] = [{"subsampling": each} for each in ("4:4:4", "4:2:2", "4:2:0", "4:0:0")]
    for way in [*ways, {"quality": 100}, {"tile_rows": 1, "tile_cols": 1}]:
        assert read_image(encode(image, "AVIF", speed=10, **way)).shape == (side[1], side[0], 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("side", [(1, 1), (65, 127), (1300, 700)])
def test_a_sequence_that_an_encoder_writes_is_accepted(
    side: tuple[int, int], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [Image.new("RGBA", side, (40 * shade, 0, 0, 200)).convert(mode) for shade in range(3)]
    data = encode(images[0], "AVIF", save_all=True, append_images=images[1:], speed=10)
    monkeypatch.setattr(boxes, "SPARE_PIXELS", 0)
    assert read_image(data).shape == (side[1], side[0], 3)
    assert len(boxes.frames(data)) == 1 + (mode == "RGBA")
