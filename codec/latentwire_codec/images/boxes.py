# SPDX-License-Identifier: Apache-2.0
"""An AVIF file -> the code points of its colours; frames that are larger than its picture are refused.

The boxes are those of ISO/IEC 14496-12 and 23008-12. What they lack, or do not fit, is left to the decoder to say.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from latentwire_codec.images.av1 import largest_frame
from latentwire_core.colour.code_points import CodePoints
from latentwire_core.errors import ImageError

MAX_BOXES = 4096
"""Boxes of one file: a picture of 256 tiles with alpha has some 1,600."""
SPARE_PIXELS = 1 << 20
"""A frame may have these many more pixels than the picture: encoders round sides up, and tiles reach over the edge."""
DECODED_TIMES = 4
"""All frames that are decoded may have so many times these pixels: tiles reach over the edge, and alpha has as many."""

_MISFITS = (StopIteration, KeyError, IndexError, ValueError, struct.error)


def code_points(data: bytes) -> CodePoints | None:
    """Map an AVIF file to the code points of its primary image; None where its boxes name none.

    Raises:
        ImageError: there are more than `MAX_BOXES` boxes.
    """
    with suppress(*_MISFITS):
        meta = _Meta.of(data)
        for kind, body in meta.properties(meta.primary):
            if kind == b"colr" and bytes(body[:4]) == b"nclx":
                primaries, transfer = struct.unpack_from(">HH", body, 4)
                return CodePoints(primaries, transfer)
    return None


def check_frames(data: bytes) -> None:
    """Refuse an AVIF file with a frame that is larger than its picture, by more than encoders write.

    Raises:
        ImageError: a frame, or all frames that are decoded, have too many pixels; or there are too many boxes.
    """
    with suppress(*_MISFITS):
        meta = _Meta.of(data)
        size = meta.size(meta.primary)
        _check([meta.size(item) for item in meta.decoded()], *size)  # a decoder scales frames to it
        streams = list(meta.streams(data))
        if sum(map(len, streams)) > DECODED_TIMES * len(data):
            raise ImageError("the AVIF file decodes the same bytes again and again; save it again")
        _check(list(map(largest_frame, streams)), *size)
    with suppress(*_MISFITS):
        for track in _children(next(body for kind, body in _boxes(data) if kind == b"moov"), b"trak"):
            # The header of a track ends with its width and height, in 65536ths.
            width, height = struct.unpack_from(">II", dict(_boxes(track))[b"tkhd"][-8:])
            _check([largest_frame(_first_sample(data, track))], width >> 16, height >> 16)


def _check(frames: list[tuple[int, int]], width: int, height: int) -> None:
    allowed = width * height + SPARE_PIXELS
    pixels = [frame[0] * frame[1] for frame in frames]
    if max(pixels, default=0) > allowed:
        wide, high = frames[pixels.index(max(pixels))]
        raise ImageError(f"the AVIF file is {width}x{height}, and has a frame of {wide}x{high}; save it again")
    if sum(pixels) > DECODED_TIMES * allowed:
        raise ImageError(
            f"the AVIF file is {width}x{height}, and its {len(frames)} frames have {sum(pixels)} pixels; at most "
            f"{DECODED_TIMES * allowed} are decoded; save it again"
        )


@dataclass(frozen=True)
class _Meta:
    """The boxes of a `meta` box, and the number of the primary item."""

    boxes: dict[bytes, memoryview]
    primary: int

    @classmethod
    def of(cls, data: bytes) -> "_Meta":
        meta = next(body for kind, body in _boxes(data) if kind == b"meta")[4:]
        boxes = dict(_boxes(meta))
        pitm = boxes[b"pitm"]
        return cls(boxes, struct.unpack_from(">I" if pitm[0] else ">H", pitm, 4)[0])

    def properties(self, item: int) -> Iterator[tuple[bytes, memoryview]]:
        """Yield the kinds and bodies of an item's properties."""
        parts = dict(_boxes(self.boxes[b"iprp"]))
        held = list(_boxes(parts[b"ipco"]))
        for index in _associated(parts[b"ipma"], item):
            yield held[index - 1]

    def size(self, item: int) -> tuple[int, int]:
        """Return width and height of an item; (0, 0) where it has none."""
        found = (struct.unpack_from(">II", body, 4) for kind, body in self.properties(item) if kind == b"ispe")
        width, height = next(found, (0, 0))
        return width, height

    def decoded(self) -> list[int]:
        """Return the items that a decoder decodes for the picture: it, its alpha, and the tiles of both."""
        links = list(_references(self.boxes.get(b"iref", memoryview(bytes(4)))))
        images = [self.primary, *(one for kind, one, others in links if kind == b"auxl" and self.primary in others)]
        tiles = [tile for kind, one, others in links if kind == b"dimg" and one in images for tile in others]
        kinds = dict(_kinds(self.boxes[b"iinf"]))
        return [item for item in dict.fromkeys([*images, *tiles]) if kinds.get(item) == b"av01"]

    def streams(self, data: bytes) -> Iterator[memoryview]:
        """Yield the bytes of each item that is decoded."""
        places = _locations(self.boxes[b"iloc"])
        for item in self.decoded():
            source, extents = places[item]
            held = self.boxes[b"idat"] if source == 1 else memoryview(data)
            parts = [held[start : start + size if size else None] for start, size in extents]
            if sum(map(len, parts)) > len(data):
                raise ImageError("the AVIF file decodes the same bytes again and again; save it again")
            yield parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _boxes(data: bytes | memoryview) -> Iterator[tuple[bytes, memoryview]]:
    view = memoryview(data)
    position = count = 0
    while position + 8 <= len(view):
        size, kind = struct.unpack_from(">I4s", view, position)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", view, position + 8)
            head = 16
        if size == 0:
            size = len(view) - position
        if size < head:
            return
        count += 1
        if count > MAX_BOXES:
            raise ImageError(f"the AVIF file has more than {MAX_BOXES} boxes in a row; save it again")
        yield kind, view[position + head : position + size]
        position += size


def _children(box: memoryview, *path: bytes) -> list[memoryview]:
    """Return the bodies of the boxes at a path below a box."""
    found = [box]
    for name in path:
        found = [body for parent in found for kind, body in _boxes(parent) if kind == name]
    return found


def _associated(ipma: memoryview, item: int) -> list[int]:
    """Map the associations of a file and an item to the numbers of its properties, from 1."""
    version, wide = ipma[0], ipma[3] & 1
    (entries,) = struct.unpack_from(">I", ipma, 4)
    position = 8
    for _ in range(min(entries, MAX_BOXES)):
        (number,) = struct.unpack_from(">I" if version else ">H", ipma, position)
        position += 4 if version else 2
        count = ipma[position]
        position += 1
        step = 2 if wide else 1
        if number == item:
            raw = struct.unpack_from(f">{count}{'H' if wide else 'B'}", ipma, position)
            return [each & (0x7FFF if wide else 0x7F) for each in raw]
        position += count * step
    return []


def _references(iref: memoryview) -> Iterator[tuple[bytes, int, tuple[int, ...]]]:
    """Yield the kind of each reference, the item that it starts from, and the items that it leads to."""
    number = ">I" if iref[0] else ">H"
    step = struct.calcsize(number)
    for kind, body in _boxes(iref[4:]):
        (item,) = struct.unpack_from(number, body)
        (count,) = struct.unpack_from(">H", body, step)
        yield kind, item, struct.unpack_from(f">{count}{number[1]}", body, step + 2)


def _kinds(iinf: memoryview) -> Iterator[tuple[int, bytes]]:
    """Yield the items and their types."""
    for kind, body in _boxes(iinf[8 if iinf[0] else 6 :]):
        if kind == b"infe" and body[0] >= 2:
            number = ">I" if body[0] == 3 else ">H"
            position = 4 + struct.calcsize(number) + 2
            yield struct.unpack_from(number, body, 4)[0], bytes(body[position : position + 4])


def _locations(iloc: memoryview) -> dict[int, tuple[int, list[tuple[int, int]]]]:
    """Map items to where their bytes are: 0 for the file or 1 for `idat`, and (offset, size); 0 bytes: to the end."""
    version = iloc[0]
    sizes = (iloc[4] >> 4, iloc[4] & 15, iloc[5] >> 4, iloc[5] & 15 if version else 0)
    offset_bytes, size_bytes, base_bytes, index_bytes = sizes
    position = 6

    def take(count: int) -> int:
        nonlocal position
        if position + count > len(iloc):
            raise IndexError
        value = int.from_bytes(iloc[position : position + count], "big")
        position += count
        return value

    wide = 4 if version == 2 else 2
    found = {}
    for _ in range(min(take(wide), MAX_BOXES)):
        item = take(wide)
        source = take(2) & 15 if version else 0
        take(2)
        base = take(base_bytes)
        extents = []
        for _ in range(min(take(2), MAX_BOXES)):
            take(index_bytes)
            extents.append((base + take(offset_bytes), take(size_bytes)))
        found[item] = source, extents
    return found


def _first_sample(data: bytes, track: memoryview) -> bytes:
    """Return the bytes of a track's first sample: the only one that is decoded, as it is the still picture."""
    table = dict(_boxes(_children(track, b"mdia", b"minf", b"stbl")[0]))
    wide = b"co64" in table
    (offset,) = struct.unpack_from(">Q" if wide else ">I", table[b"co64" if wide else b"stco"], 8)
    (size,) = struct.unpack_from(">I", table[b"stsz"], 4)  # of all samples, or 0 before a list of sizes
    return data[offset : offset + (size or struct.unpack_from(">I", table[b"stsz"], 12)[0])]
