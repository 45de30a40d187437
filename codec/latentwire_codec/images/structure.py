# SPDX-License-Identifier: Apache-2.0
"""An image file -> the bytes to decode and what they say of their colours; files that are all structure are refused.

The size of a file and of its image do not bound the work of a decoder: a progressive JPEG of 100 kB may go over all its
pixels 4000 times. What is counted here costs next to nothing to count.

docs/limits.md has the table of limits with what encoders write.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from latentwire_codec.images import boxes
from latentwire_core.colour.code_points import CodePoints
from latentwire_core.errors import ImageError

JPEG_SCANS, JPEG_SEGMENTS, JPEG_STRAY_BYTES = 100, 4096, 65_536
PNG_CHUNKS = 65_536
GIF_HEAD_BYTES, GIF_BLOCKS = 1 << 20, 65_536
TIFF_STRIPS = 65_536
WEBP_CHUNKS = 1024
PPM_HEAD_BYTES = 4096
MAX_PROFILE_BYTES = 16 << 20
"""An ICC profile that is larger is ignored; printers' with the finest tables have 4 MB."""
MAX_TEXT_BYTES = 1 << 20
"""Pillow refuses a PNG whose texts are larger; only XMP's is looked at, for the orientation."""


@dataclass(frozen=True)
class Checked:
    """A file that may be decoded.

    Attributes:
        data: the file, without parts that say nothing of its pixels where Pillow would stumble over them.
        colours: code points of its colours, where it has any.
        icc: its ICC profile, where Pillow does not find it.
        frames: (width, height) of the frames that are decoded, where they may be larger than the picture.
    """

    data: bytes
    colours: CodePoints | None = None
    icc: bytes | None = None
    frames: tuple[tuple[int, int], ...] = ()


def check(name: str, data: bytes) -> Checked:
    """Map a file of the format `name` to what may be decoded.

    Raises:
        ImageError: it has more parts than the format's limit, or parts that do not fit together, or is a camera's raw
            file, or HDR is all that it holds.
    """
    return _CHECKS.get(name, Checked)(data)


def _refuse(name: str, count: int, what: str, limit: int, remedy: str) -> None:
    if count > limit:
        raise ImageError(f"the {name} file has more than {limit} {what}, which takes long to decode; {remedy}")


_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_SOS, _EOI, _TEM, _SOI = 0xDA, 0xD9, 0x01, 0xD8
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}


def _jpeg(data: bytes) -> Checked:
    position = scans = segments = frames = stray = 0
    while marker := _MARKER.search(data, position):
        if not scans:  # Pillow goes over them one by one
            stray += marker.start() - position
            _refuse("JPEG", stray, "stray bytes before its first scan", JPEG_STRAY_BYTES, "save it again")
        kind, position = marker[1][0], marker.end()
        if kind == _EOI:
            break
        if kind in (_SOI, _TEM):
            continue
        scans += kind == _SOS
        frames += kind in _FRAMES
        segments += 1
        _refuse("JPEG", frames, "frame headers", 1, "save it as a baseline JPEG")
        _refuse("JPEG", scans, "scans", JPEG_SCANS, "save it as a baseline JPEG")
        _refuse("JPEG", segments, "segments", JPEG_SEGMENTS, "save it without metadata")
        position += int.from_bytes(data[position : position + 2], "big")
    return Checked(data)


ANCILLARY = 0x20
_KEPT = (b"tRNS", b"eXIf")
"""Ancillary chunks that Pillow is to see."""
_XMP = b"XML:com.adobe.xmp\0"


def _png(data: bytes) -> Checked:
    """Leave out the chunks that say nothing of the pixels: Pillow refuses good pixels for a damaged comment."""
    colours, icc, dropped = None, None, False
    kept = [(0, 8)]
    for number, (kind, start, end) in enumerate(_png_chunks(data), 1):
        _refuse("PNG", number, "chunks", PNG_CHUNKS, "save it again")
        if (kind == b"IHDR") != (number == 1):
            raise ImageError("the PNG file does not begin with its only IHDR chunk; save it again")
        if kind[0] & ANCILLARY:
            chunk = data[start:end]
            sound = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
            if kind == b"cICP" and sound and len(chunk) >= 16:
                colours = CodePoints(chunk[8], chunk[9])
            elif kind == b"iCCP" and sound:
                icc = icc or _inflated(chunk[8:-4])
            xmp = kind == b"iTXt" and chunk.startswith(_XMP, 8) and len(chunk) <= MAX_TEXT_BYTES
            if not sound or not (kind in _KEPT or xmp):
                dropped = True
                continue
        kept.append((start, end))
    if dropped:
        data = b"".join(data[start:end] for start, end in kept)
    return Checked(data, colours, icc)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, the beginning and the end of each chunk up to IEND; the last one may be cut short."""
    position, kind = 8, b""
    while position + 8 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, position, position + 12 + length
        position += 12 + length


def _inflated(body: bytes) -> bytes | None:
    """Map the body of an iCCP chunk to its profile; None where it is broken or too large."""
    compressed = body.partition(b"\0")[2][1:]
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(compressed, MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if inflater.eof else None


_GIF_BLOCK = re.compile(rb"[!,;]")
_GIF_REMEDY = "save it without comments"


def _gif(data: bytes) -> Checked:
    """Count what Pillow goes over, in Python, before the first frame: blocks, and bytes that are in none."""
    position, blocks = 13, 0
    if len(data) > 10 and data[10] & 0x80:
        position += 3 << (data[10] & 7) + 1
    while True:
        found = _GIF_BLOCK.search(data, position)
        start = found.start() if found else len(data)
        blocks += start - position
        _refuse("GIF", blocks, "blocks and stray bytes before its first frame", GIF_BLOCKS, _GIF_REMEDY)
        if data[start : start + 1] != b"!":
            return Checked(data)
        position, length = start + 2, 1
        while length and position < len(data):
            length = data[position]
            position += length + 1
            blocks += 1
            _refuse("GIF", position, "bytes before its first frame", GIF_HEAD_BYTES, _GIF_REMEDY)
            _refuse("GIF", blocks, "blocks and stray bytes before its first frame", GIF_BLOCKS, _GIF_REMEDY)


_SUBFILE_TYPE, _STRIPS, _TILES, _DNG_VERSION = 254, 273, 324, 50706


def _tiff(data: bytes) -> Checked:
    """Count strips and tiles of the first image, which is the one that is decoded, and refuse one that is a preview."""
    if data[8:10] == b"CR":
        raise ImageError("the TIFF file is a camera's raw file (CR2); develop it, and send the result")
    tags = _first_tags(data)
    if _DNG_VERSION in tags:
        raise ImageError("the TIFF file is a camera's raw file (DNG); develop it, and send the result")
    if tags.get(_SUBFILE_TYPE, (1, 0))[1] & 1:
        raise ImageError(
            "the first image of the TIFF file is a preview of another (tag 254): it is a camera's raw file or a "
            "pyramid; save the full image first, or as PNG"
        )
    for tag, what in ((_STRIPS, "strips"), (_TILES, "tiles")):
        _refuse("TIFF", tags.get(tag, (0, 0))[0], what, TIFF_STRIPS, "save it with larger ones")
    return Checked(data)


def _first_tags(data: bytes) -> dict[int, tuple[int, int]]:
    """Map a TIFF file to count and value of each tag of its first directory; empty where it has none."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    at, size, counted = (8, 20, "Q") if big else (4, 12, "H")
    try:
        (start,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, at)
        (count,) = struct.unpack_from(f"{order}{counted}", data, start)
        start += 8 if big else 2
        tags = {}
        for entry in range(min(count, 65_536)):
            tag, kind, values = struct.unpack_from(f"{order}HH{'Q' if big else 'I'}", data, start + size * entry)
            form = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind, "I")
            (value,) = struct.unpack_from(f"{order}{form}", data, start + size * entry + (12 if big else 8))
            tags[tag] = (values, value)
        return tags
    except struct.error:
        return {}  # the decoder says what is wrong with the file


def _webp(data: bytes) -> Checked:
    position, count = 12, 0
    while position + 8 <= len(data):
        count += 1
        _refuse("WEBP", count, "chunks", WEBP_CHUNKS, "save it again")
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + size + size % 2
    return Checked(data)


def _ppm(data: bytes) -> Checked:
    head = re.sub(rb"#[^\r\n]*", b"", data[:PPM_HEAD_BYTES])
    if len(data) > PPM_HEAD_BYTES and len(head.split(None, 3)) < 3:
        raise ImageError(f"the PPM file has more than {PPM_HEAD_BYTES} bytes of comments in its header; remove them")
    return Checked(data)


def _bmp(data: bytes) -> Checked:
    """Find the ICC profile of a header of version 5 (BITMAPV5HEADER: bV5CSType is `MBED`)."""
    if len(data) < 138 or int.from_bytes(data[14:18], "little") < 124 or data[70:74] != b"DEBM":
        return Checked(data)
    at, size = struct.unpack_from("<II", data, 126)
    return Checked(data, icc=data[14 + at : 14 + at + size] if size <= MAX_PROFILE_BYTES else None)


_CHECKS: dict[str, Callable[[bytes], Checked]] = {
    "AVIF": lambda data: Checked(data, boxes.code_points(data), frames=boxes.frames(data)),
    "BMP": _bmp,
    "GIF": _gif,
    "JPEG": _jpeg,
    "PNG": _png,
    "PPM": _ppm,
    "TIFF": _tiff,
    "WEBP": _webp,
}
