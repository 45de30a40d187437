# SPDX-License-Identifier: Apache-2.0
"""An image file <-> its parts (segments, chunks, boxes, tags), which can be changed and put together again."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz.image_files import chunk, joined_profile, png


@dataclass
class Part:
    """A part of a file.

    Attributes:
        kind: the marker, the type or the number of the part; empty for bytes without a head.
        body: what it holds.
        announced: the length, or the number of values, that its head tells; None: the right one.
        sound: whether its checksum is right.
    """

    kind: bytes
    body: bytes
    announced: int | None = None
    sound: bool = True


@dataclass(frozen=True)
class Layout:
    """How a format is taken apart and put together.

    Attributes:
        split: maps a file to its parts.
        join: maps the parts to a file, given the file that they are of.
        fields: kind of a part, offset in its body, bytes, order: numbers that announce sides, counts or places.
        containers: kind of a part -> bytes in front of the parts that it holds.
    """

    split: Callable[[bytes], list[Part]]
    join: Callable[[list[Part], bytes], bytes]
    fields: tuple[tuple[bytes, int, int, str], ...]
    containers: dict[bytes, int]


def _split_jpeg(data: bytes) -> list[Part]:
    parts, at = [], 2
    while at + 2 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1 : at + 2]
        if kind == b"\xd9":
            parts.append(Part(kind, b""))
            return [*parts, Part(b"", data[at + 2 :])]
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        parts.append(Part(kind, data[at + 4 : end]))
        at = end
        if kind == b"\xda":
            while not (data[end : end + 1] == b"\xff" and data[end + 1] not in (0, *range(0xD0, 0xD8))):
                end += 1
            parts.append(Part(b"", data[at:end]))
            at = end
    return parts


def _join_jpeg(parts: list[Part], original: bytes) -> bytes:
    data = [b"\xff\xd8"]
    for part in parts:
        if part.kind:
            data.append(b"\xff" + part.kind)
        if part.kind not in {b"", b"\xd9"}:
            length = len(part.body) + 2 if part.announced is None else part.announced
            data.append(struct.pack(">H", length % 65536))
        data.append(part.body)
    return b"".join(data)


def _split_png(data: bytes) -> list[Part]:
    parts, at = [], 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        parts.append(Part(data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return parts


def _join_png(parts: list[Part], original: bytes) -> bytes:
    data = [original[:8]]
    for part in parts:
        length = len(part.body) if part.announced is None else part.announced
        checksum = zlib.crc32(part.kind + part.body) ^ (not part.sound)
        data += [struct.pack(">I", length % (1 << 32)), part.kind, part.body, struct.pack(">I", checksum)]
    return b"".join(data)


def _split_webp(data: bytes) -> list[Part]:
    parts, at = [], 12
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        parts.append(Part(data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return parts


def _join_webp(parts: list[Part], original: bytes) -> bytes:
    data = [b"WEBP"]
    for part in parts:
        length = len(part.body) if part.announced is None else part.announced
        data += [part.kind, struct.pack("<I", length % (1 << 32)), part.body, bytes(len(part.body) % 2)]
    joined = b"".join(data)
    return b"RIFF" + struct.pack("<I", len(joined)) + joined


def _split_gif(data: bytes) -> list[Part]:
    """Take a GIF apart into its screen, its extensions, its frames and what follows them."""
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    parts = [Part(b"", data[:at])]
    while data[at : at + 1] in {b"!", b","}:
        start = at
        if data[at] == ord("!"):
            at += 2
        else:
            at += 11 + (3 << (data[at + 9] & 7) + 1 if data[at + 9] & 0x80 else 0)
        while data[at]:
            at += data[at] + 1
        at += 1
        parts.append(Part(data[start : start + 1], data[start + 1 : at]))
    return [*parts, Part(b";", data[at + 1 :])]


def _joined(parts: list[Part], original: bytes) -> bytes:
    return b"".join(part.kind + part.body for part in parts)


def _split_bmp(data: bytes) -> list[Part]:
    (pixels,) = struct.unpack_from("<I", data, 10)
    return [Part(b"BM", data[2:pixels]), Part(b"", data[pixels:])]


def _split_ppm(data: bytes) -> list[Part]:
    words = data.split(b"\n", 4)
    return [Part(b"", word + b"\n") for word in words[:-1]] + [Part(b"", words[-1])]


# Type of a TIFF's values -> bytes of one.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def _tiff_form(data: bytes) -> tuple[str, bool]:
    order = "<" if data[:2] == b"II" else ">"
    return order, 43 in data[2:4]


def _split_tiff(data: bytes) -> list[Part]:
    """Take the first directory apart: a part is a tag and its type, in the file's order, with its values."""
    order, big = _tiff_form(data)
    wide, counted, size = ("Q", "Q", 20) if big else ("I", "H", 12)
    (at,) = struct.unpack_from(f"{order}{wide}", data, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{counted}", data, at)
    at += struct.calcsize(counted)
    parts = []
    for entry in range(at, at + size * count, size):
        kind, (values,) = (
            struct.unpack_from(f"{order}H", data, entry + 2)[0],
            struct.unpack_from(f"{order}{wide}", data, entry + 4),
        )
        length, place = values * _SIZES[kind], entry + 4 + struct.calcsize(wide)
        if length > struct.calcsize(wide):
            (place,) = struct.unpack_from(f"{order}{wide}", data, place)
        parts.append(Part(data[entry : entry + 4], data[place : place + length]))
    return parts


def _join_tiff(parts: list[Part], original: bytes) -> bytes:
    """Append a new directory to the file, so that every place in the file stays what it is."""
    order, big = _tiff_form(original)
    wide, counted, room = ("Q", "Q", 8) if big else ("I", "H", 4)
    data = bytearray(original + bytes(len(original) % 2))
    entries = bytearray()
    for part in parts:
        kind = struct.unpack(f"{order}H", part.kind[2:])[0]
        count = len(part.body) // _SIZES.get(kind, 1) if part.announced is None else part.announced
        value = part.body.ljust(room, b"\0")
        if len(part.body) > room:
            value = struct.pack(f"{order}{wide}", len(data))
            data += part.body + bytes(len(part.body) % 2)
        entries += part.kind + struct.pack(f"{order}{wide}", count % (1 << 8 * room)) + value
    directory = struct.pack(f"{order}{counted}", len(parts) % 65536) + entries + bytes(room)
    start = 8 if big else 4
    data[start : start + room] = struct.pack(f"{order}{wide}", len(data))
    return bytes(data + directory)


def split_boxes(data: bytes) -> list[Part]:
    """Take boxes of an ISO media file apart."""
    parts, at = [], 0
    while at + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        size = size if size >= 8 else len(data) - at
        parts.append(Part(data[at + 4 : at + 8], data[at + 8 : at + size]))
        at += size
    return parts


def _join_boxes(parts: list[Part], original: bytes) -> bytes:
    data = []
    for part in parts:
        length = len(part.body) + 8 if part.announced is None else part.announced
        data += [struct.pack(">I", length % (1 << 32)), part.kind, part.body]
    return b"".join(data)


def _split_profile(data: bytes) -> list[Part]:
    (count,) = struct.unpack_from(">I", data, 128)
    parts = [Part(b"", data[:128])]
    for tag in range(count):
        at, length = struct.unpack_from(">II", data, 132 + 12 * tag + 4)
        parts.append(Part(data[132 + 12 * tag :][:4], data[at : at + length]))
    return parts


def _join_profile(parts: list[Part], original: bytes) -> bytes:
    """Put a profile into a PNG."""
    head = next((part.body for part in parts if not part.kind), original[:128])
    tags = [
        (part.kind, part.body, len(part.body) if part.announced is None else part.announced)
        for part in parts
        if part.kind
    ]
    profile = joined_profile(head, tags)
    grey = profile[16:20] == b"GRAY"
    return png(8, 0 if grey else 2, 0, chunk(b"iCCP", b"x\0\0" + zlib.compress(profile, 1)))


def _join_metadata(parts: list[Part], original: bytes) -> bytes:
    """Put Exif into a PNG."""
    return png(8, 2, 0, chunk(b"eXIf", _join_tiff(parts, original)))


_FRAMES = tuple((bytes([kind]), at, 2, ">") for kind in (0xC0, 0xC2) for at in (1, 3))
_TIFF_FIELDS = tuple(
    (struct.pack(f"{order}HH", tag, kind), 0, size, order)
    for order in "<>"
    for kind, size in ((3, 2), (4, 4))
    for tag in (256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339)
)
LAYOUTS = {
    "JPEG": Layout(_split_jpeg, _join_jpeg, (*_FRAMES, (b"\xc0", 5, 1, ">"), (b"\xdd", 0, 2, ">")), {}),
    "PNG": Layout(
        _split_png,
        _join_png,
        (
            *((b"IHDR", at, 4, ">") for at in (0, 4)),
            *((b"IHDR", at, 1, ">") for at in range(8, 13)),
            *((b"fcTL", at, 4, ">") for at in (0, 4, 8, 12, 16)),
            (b"acTL", 0, 4, ">"),
        ),
        {},
    ),
    "GIF": Layout(
        _split_gif,
        _joined,
        (*((b"", at, 2, "<") for at in (6, 8)), *((b",", at, 2, "<") for at in (0, 2, 4, 6)), (b",", 9, 1, "<")),
        {},
    ),
    "WEBP": Layout(
        _split_webp,
        _join_webp,
        (
            (b"VP8X", 4, 3, "<"),
            (b"VP8X", 7, 3, "<"),
            (b"VP8 ", 6, 2, "<"),
            (b"VP8 ", 8, 2, "<"),
            (b"VP8L", 1, 4, "<"),
            *((b"ANMF", at, 3, "<") for at in range(0, 15, 3)),
        ),
        {b"ANMF": 16},
    ),
    "BMP": Layout(_split_bmp, _joined, tuple((b"BM", at, 4, "<") for at in range(8, 52, 4)), {}),
    "TIFF": Layout(_split_tiff, _join_tiff, _TIFF_FIELDS, {}),
    "AVIF": Layout(
        split_boxes,
        _join_boxes,
        (
            *((b"ispe", at, 4, ">") for at in (4, 8)),
            (b"pitm", 4, 2, ">"),
            (b"iloc", 6, 2, ">"),
            (b"stsz", 4, 4, ">"),
            (b"stsz", 8, 4, ">"),
            (b"stts", 8, 4, ">"),
            (b"stts", 12, 4, ">"),
            (b"mdat", 2, 1, ">"),
            (b"mdat", 3, 1, ">"),
            (b"mdat", 4, 2, ">"),
            (b"ipma", 4, 4, ">"),
            (b"iinf", 4, 2, ">"),
        ),
        {b"meta": 4, b"iprp": 0, b"ipco": 0, b"iref": 4, b"iinf": 6}
        | dict.fromkeys((b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts"), 0),
    ),
    "PPM": Layout(_split_ppm, _joined, (), {}),
    "ICC": Layout(
        _split_profile,
        _join_profile,
        tuple((kind, at, 4, ">") for kind in (b"A2B0", b"D2B0", b"rTRC", b"kTRC") for at in (0, 8, 12, 16)),
        {},
    ),
    "EXIF": Layout(
        _split_tiff,
        _join_metadata,
        tuple((struct.pack(f"{order}HH", tag, 4), 0, 4, order) for order in "<>" for tag in (0x8769, 0xA005)),
        {},
    ),
}
"""Formats, and the profiles and metadata that files carry."""
