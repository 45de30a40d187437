# SPDX-License-Identifier: Apache-2.0
"""Image files as bug reports describe them, made byte by byte, for tests of every way in."""

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

COLOUR = (200, 60, 40)
SIDE = 16
RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(SIDE, SIDE)
"""Grey levels of 12 bits."""


def encode(image: Image.Image, name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def plain(name: str, size: tuple[int, int] = (SIDE, SIDE), **options: Any) -> bytes:
    return encode(Image.new("RGB", size, COLOUR), name, **options)


# PNG


def chunk(kind: bytes, body: bytes, damage: int = 0) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ damage)


def with_chunks(file: bytes, *chunks: bytes) -> bytes:
    """Put chunks behind the IHDR of a PNG."""
    return file[:33] + b"".join(chunks) + file[33:]


# JPEG


def jpeg_of_scans(scans: int) -> bytes:
    """A progressive, grey JPEG of 16x16: one scan of the mean, all others refine nothing."""

    def segment(marker: int, body: bytes) -> bytes:
        return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body

    head = segment(0xDB, b"\0" + bytes([16] * 64)) + segment(0xC2, struct.pack(">BHHB", 8, 16, 16, 1) + b"\1\x11\0")
    tables = segment(0xC4, b"\0" + bytes([1, *[0] * 15]) + b"\0")
    tables += segment(0xC4, b"\x10" + bytes([1, 1, *[0] * 14]) + b"\xe0\0")
    first = segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + b"\x0f"
    refining = segment(0xDA, bytes([1, 1, 0, 1, 63, 0x10])) + b"\xab"
    return b"\xff\xd8" + head + tables + first + refining * (scans - 1) + b"\xff\xd9"


# TIFF


def rgb_tiff(tags: dict[int, int], strips: int = 1, order: str = "<") -> bytes:
    """A TIFF of 4x4 RGB pixels; tags: number -> LONG."""
    return _tiff({256: 4, 257: 4, 258: 8, 262: 2, 277: 3, 278: 4, **tags}, bytes(COLOUR) * 16, strips, order)


def grey_tiff(tags: dict[int, int], data: bytes) -> bytes:
    """A TIFF of 16x16 with one channel, of 16 bits unless a tag says another depth."""
    return _tiff({256: SIDE, 257: SIDE, 258: 16, 262: 1, 277: 1, 278: SIDE, **tags}, data)


def twelve_bits() -> bytes:
    """The ramp as a TIFF of 12 bits."""
    bits = "".join(f"{value:012b}" for value in RAMP.reshape(-1).tolist())
    return grey_tiff({258: 12}, int(bits, 2).to_bytes(len(bits) // 8, "big"))


def _tiff(tags: dict[int, int], data: bytes, strips: int = 1, order: str = "<") -> bytes:
    longs = {259: 1, 273: 0, 279: len(data), **tags}
    longs[273] = 8 + 2 + 12 * len(longs) + 4
    entries = b"".join(
        struct.pack(f"{order}HHII", number, 4, strips if number == 273 else 1, value)
        for number, value in sorted(longs.items())
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return head + struct.pack(f"{order}H", len(longs)) + entries + bytes(4) + data


# Others


def gif_of_a_part() -> bytes:
    """A screen of 4x2 whose only frame is the right half, all red; colours green, red, blue, white."""
    palette = bytes([0, 255, 0, 255, 0, 0, 0, 0, 255, 255, 255, 255])
    codes = [4, 1] * 4 + [5]  # clear, red; clear, red ...; end: codes stay at three bits
    packed = sum(code << 3 * number for number, code in enumerate(codes))
    data = packed.to_bytes((3 * len(codes) + 7) // 8, "little")
    frame = b"," + struct.pack("<4HB", 2, 0, 2, 2, 0) + bytes([2, len(data)]) + data + b"\0;"
    return b"GIF89a" + struct.pack("<HHBBB", 4, 2, 0x81, 0, 0) + palette + frame


def bmp(alpha: int) -> bytes:
    """2x2 pixels of 32 bits with an alpha mask (V4 header), all of one alpha."""
    header = struct.pack("<LllHHLLllLL", 108, 2, 2, 1, 32, 3, 16, 2835, 2835, 0, 0)
    header += struct.pack("<4L", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52)
    return b"BM" + struct.pack("<LHHL", 138, 0, 0, 122) + header + bytes([10, 20, 200, alpha]) * 4


def bmp_with_profile(icc: bytes) -> bytes:
    """One pixel of 24 bits with a BITMAPV5HEADER that embeds a profile."""
    pixels = bytes([*reversed(COLOUR), 0])
    header = struct.pack("<LllHHLLllLL", 124, 1, 1, 1, 24, 0, 4, 2835, 2835, 0, 0) + bytes(16) + b"DEBM" + bytes(52)
    header += struct.pack("<LLL", 124 + len(pixels), len(icc), 0)
    return b"BM" + struct.pack("<LHHL", 138 + len(pixels) + len(icc), 0, 0, 138) + header.ljust(124) + pixels + icc


def avif_of(image: Image.Image, primaries: int, transfer: int) -> bytes:
    """An AVIF with these code points in its colr box."""
    file = bytearray(encode(image, "AVIF", quality=100, subsampling="4:4:4"))
    at = file.index(b"nclx") + 4
    file[at : at + 4] = struct.pack(">HH", primaries, transfer)
    return bytes(file)


def av1_sequence_header(width: int, height: int, *, reduced: bool = True, side_bits: int = 0) -> bytes:
    """The unit of an AV1 stream that announces frames of at most this size; in full form with timing and two points.

    Frames have no presentation time, number or order, and turn on screen content tools and integer motion themselves.
    Sides take as few bits as they need, or as many as told.
    """
    bits = "000" + "1" * (1 + reduced)
    if reduced:
        bits += "00000"
    else:
        bits = "00010" + "1" + f"{1:064b}" + "1" + "0001" + "010" + "1" + f"{9:05b}" + f"{0:032b}" + f"{0:010b}"
        bits += "1" + f"{1:05b}"
        bits += f"{0:012b}" + f"{9:05b}" + "0" + "1" + f"{0:020b}" + "0" + "1" + "0000"
        bits += f"{1:012b}" + f"{4:05b}" + "0" + "0"
    for side in (width, height):
        bits += f"{(side_bits or max(1, (side - 1).bit_length())) - 1:04b}"
    for side in (width, height):
        bits += f"{side - 1:0{side_bits or max(1, (side - 1).bit_length())}b}"
    if not reduced:
        bits += "0" + "000" + "0000" + "0" + "1" + "1"
    return av1_unit(1, bits)


def av1_unit(kind: int, bits: str) -> bytes:
    """A unit of an AV1 stream with these bits and what fills their last byte."""
    size = -(-len(bits) // 8)
    assert size < 128
    return bytes([kind << 3 | 2, size]) + int(bits.ljust(8 * size, "0"), 2).to_bytes(size, "big")


def av1_frame(override: bool, kind: int = 0) -> bytes:
    """The beginning of a frame that is shown and tells its own size, or not; 0 is the type of a key frame."""
    resilient = "" if kind in (0, 3) else "0"
    return av1_unit(6, "0" + f"{kind:02b}" + "1" + resilient + "0" + "1" + "0" + ("" if kind == 3 else f"{override:b}"))


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box of a file in the ISO base media format."""
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


@dataclass(frozen=True)
class AvifItem:
    """An item of an AVIF: its type, its size as the boxes announce it, and its bytes; None has no place in the file.

    `blank` lists property 0, which is no property, before the others.
    """

    kind: bytes
    size: tuple[int, int]
    data: bytes | None
    alpha: bool = False
    blank: bool = False

    @property
    def properties(self) -> list[bytes]:
        sides = box(b"ispe", bytes(4), struct.pack(">II", *self.size))
        if self.kind != b"av01":
            return [sides]
        use = [box(b"auxC", bytes(4), b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0")] if self.alpha else []
        return [*use, box(b"av1C", b"\x81\0\x1c\0" if self.alpha else b"\x81\0\x0c\0"), sides]


def avif_boxes(
    items: Sequence[AvifItem],
    references: Sequence[tuple[bytes, int, Sequence[int]]] = (),
    *,
    in_idat: bool = False,
    extents: int = 1,
) -> bytes:
    """An AVIF whose boxes hold these items; the first is the primary one, and numbers begin with 1.

    Items with the same bytes share them.
    """
    zero = bytes(4)
    placed = [(number, item.data) for number, item in enumerate(items, 1) if item.data is not None]
    streams = list(dict.fromkeys(data for _, data in placed))
    held = b"".join(streams)

    def meta(start: int) -> bytes:
        places = b""
        for number, data in placed:
            at = start + sum(map(len, streams[: streams.index(data)]))
            places += struct.pack(">HHHH", number, int(in_idat), 0, extents)
            step = -(-len(data) // extents)
            for part in range(extents):
                size = min(step, len(data) - part * step)
                places += struct.pack(">II", at, size)
                at += size
        infos = [
            box(b"infe", b"\2\0\0\0", struct.pack(">HH4sx", number, 0, item.kind))
            for number, item in enumerate(items, 1)
        ]
        properties: list[bytes] = []
        links = b""
        for number, item in enumerate(items, 1):
            own = [0] * item.blank + [len(properties) + each for each in range(1, 1 + len(item.properties))]
            properties += item.properties
            links += struct.pack(">HB", number, len(own)) + bytes(own)
        leads = [
            box(kind, struct.pack(f">HH{len(others)}H", one, len(others), *others)) for kind, one, others in references
        ]
        return box(
            b"meta",
            zero,
            box(b"hdlr", zero, zero, b"pict", bytes(13)),
            box(b"pitm", zero, struct.pack(">H", 1)),
            box(b"iloc", b"\1\0\0\0", b"\x44\0", struct.pack(">H", len(placed)), places),
            box(b"iinf", zero, struct.pack(">H", len(items)), *infos),
            box(b"iprp", box(b"ipco", *properties), box(b"ipma", zero, struct.pack(">I", len(items)), links)),
            box(b"iref", zero, *leads) if leads else b"",
            box(b"idat", held) if in_idat else b"",
        )

    head = box(b"ftyp", b"avif", zero, b"avifmif1miaf")
    start = 0 if in_idat else len(head) + len(meta(0)) + 8
    return head + meta(start) + (b"" if in_idat else box(b"mdat", held))


def avif_stream(image: Image.Image, **options: Any) -> bytes:
    """The AV1 stream of an image, as an encoder writes it."""
    file = encode(image, "AVIF", speed=10, **options)
    return file[file.rindex(b"mdat") + 4 :]
