# SPDX-License-Identifier: Apache-2.0
"""An AVIF file -> the code points of its colours, and the sizes of the frames that are decoded.

The boxes are those of ISO/IEC 14496-12 and 23008-12. They are read as libavif reads them, which decodes the file:
where it finds other items or other bytes than this module, a frame goes by unseen.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from latentwire_codec.images.av1 import largest_frames
from latentwire_core.colour.code_points import CodePoints
from latentwire_core.errors import ImageError

MAX_BOXES = 4096
"""Boxes in a row, and entries of a table: a picture of 256 tiles with alpha has some 1,600."""
SPARE_PIXELS = 1 << 20
"""A frame may have these many more pixels than the picture: encoders round sides up, and tiles reach over the edge."""
DECODED_TIMES = 4
"""All frames that are decoded may have so many times these pixels: tiles reach over the edge, and alpha has as many."""

_MISFITS = (KeyError, IndexError, ValueError, struct.error)

Size = tuple[int, int]


def code_points(data: bytes) -> CodePoints | None:
    """Map an AVIF file to the code points of its primary image; None where its boxes name none.

    Raises:
        ImageError: there are more than `MAX_BOXES` boxes, or entries of a table.
    """
    with suppress(*_MISFITS):
        meta = _Meta.of(data)
        for kind, body in meta.properties(meta.primary) if meta else ():
            if kind == b"colr" and bytes(body[:4]) == b"nclx":
                primaries, transfer = struct.unpack_from(">HH", body, 4)
                return CodePoints(primaries, transfer)
    return None


def frames(data: bytes) -> tuple[Size, ...]:
    """Map an AVIF file to (width, height) of each frame that is decoded: as its stream or its box says, the larger.

    A decoder takes the memory for what the stream announces, and then scales the frame to what the box says.

    Raises:
        ImageError: boxes do not fit together, a stream has no sequence header, streams share their bytes, or there are
            too many boxes. A decoder might still find a frame there, of any size.
    """
    try:
        # libavif decodes tracks under the brand `avis`, items under `avif`, and else what it comes to first.
        brand = data[8:12]
        parts = [*(_items(data) if brand != b"avis" else ()), *(_tracks(data) if brand != b"avif" else ())]
    except _MISFITS:
        raise ImageError(
            "the boxes of the AVIF file do not fit together; it is truncated, damaged, or of an unsupported kind (save "
            "it again)"
        ) from None
    if sum(len(stream) for _, stream in parts) > DECODED_TIMES * len(data):
        raise ImageError("the AVIF file decodes the same bytes again and again; save it again")
    parts = [(size, stream) for size, stream in parts if stream]  # libavif passes over items without bytes
    announced = list(largest_frames(stream for _, stream in parts))
    if None in announced:
        raise ImageError("the AVIF file has a picture without a whole AV1 sequence header; save it again")
    return tuple(max(size, frame, key=_pixels) for (size, _), frame in zip(parts, announced, strict=True) if frame)


def check_frames(frames: Sequence[Size], width: int, height: int) -> None:
    """Refuse frames that are larger than their picture, by more than encoders write.

    Args:
        frames: (width, height) of each frame that is decoded.
        width: of the picture, as the decoder understands the boxes.
        height: likewise.

    Raises:
        ImageError: a frame, or all frames together, have too many pixels.
    """
    allowed = width * height + SPARE_PIXELS
    wide, high = max(frames, key=_pixels, default=(0, 0))
    if wide * high > allowed:
        raise ImageError(f"the AVIF file is {width}x{height}, and has a frame of {wide}x{high}; save it again")
    total = sum(map(_pixels, frames))
    if total > DECODED_TIMES * allowed:
        raise ImageError(
            f"the AVIF file is {width}x{height}, and its {len(frames)} frames have {total} pixels; at most "
            f"{DECODED_TIMES * allowed} are decoded; save it again"
        )


def _pixels(size: Size) -> int:
    return size[0] * size[1]


def _items(data: bytes) -> Iterator[tuple[Size, memoryview]]:
    """Yield the size and the bytes of each item that is decoded."""
    meta = _Meta.of(data)
    if meta is None:
        return
    places = _locations(meta.boxes[b"iloc"])
    for item in meta.decoded():
        source, extents = places.get(item, (0, []))
        held = meta.boxes[b"idat"] if source == 1 else memoryview(data)
        pieces = [held[start : start + size] for start, size in extents]
        if sum(map(len, pieces)) > len(data):
            raise ImageError("the AVIF file decodes the same bytes again and again; save it again")
        yield meta.size(item), pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))


def _tracks(data: bytes) -> Iterator[tuple[Size, memoryview]]:
    """Yield the size and the first sample of each track of AV1: the only one that is decoded."""
    for track in _children(memoryview(data), b"moov", b"trak"):
        for table in _children(track, b"mdia", b"minf", b"stbl"):
            boxes = list(_boxes(table))
            if not any(kind == b"stsd" and b"av01" in dict(_boxes(body[8:])) for kind, body in boxes):
                continue
            # A second table would stand beside the first in libavif, and before or behind it.
            ((wide, offsets),) = ((kind == b"co64", body) for kind, body in boxes if kind in (b"co64", b"stco"))
            (sizes,) = (body for kind, body in boxes if kind == b"stsz")
            (offset,) = struct.unpack_from(">Q" if wide else ">I", offsets, 8)
            (size,) = struct.unpack_from(">I", sizes, 4)  # of all samples, or 0 before a list of sizes
            size = size or struct.unpack_from(">I", sizes, 12)[0]
            # The header of a track has its width and height, in 65536ths, behind times of 32 or 64 bits.
            header = dict(_boxes(track))[b"tkhd"]
            width, height = struct.unpack_from(">II", header, 88 if header[0] else 76)
            yield (width >> 16, height >> 16), memoryview(data)[offset : offset + size]


@dataclass(frozen=True)
class _Meta:
    """The boxes of a `meta` box, and the number of the primary item."""

    boxes: dict[bytes, memoryview]
    primary: int

    @classmethod
    def of(cls, data: bytes) -> "_Meta | None":
        """Return the boxes of a file; None where it has no primary item."""
        meta = next((body for kind, body in _boxes(data) if kind == b"meta"), memoryview(b""))
        boxes = dict(_boxes(meta[4:]))
        pitm = boxes.get(b"pitm")
        return None if pitm is None else cls(boxes, struct.unpack_from(">I" if pitm[0] else ">H", pitm, 4)[0])

    @cached_property
    def _properties(self) -> tuple[list[tuple[bytes, memoryview]], dict[int, list[int]]]:
        """All properties, and the numbers of those of each item, from 1."""
        held: list[tuple[bytes, memoryview]] = []
        numbers: dict[int, list[int]] = {}
        for kind, body in _boxes(self.boxes[b"iprp"]):
            if kind == b"ipco":
                held = list(_boxes(body))
            elif kind == b"ipma":  # one for each version
                numbers.update(_associated(body))
        return held, numbers

    def properties(self, item: int) -> Iterator[tuple[bytes, memoryview]]:
        """Yield the kinds and bodies of an item's properties."""
        held, numbers = self._properties
        for number in numbers.get(item, ()):
            if number:  # 0 is no property
                yield held[number - 1]

    def size(self, item: int) -> Size:
        """Return width and height of an item; (0, 0) where it has none."""
        found = (struct.unpack_from(">II", body, 4) for kind, body in self.properties(item) if kind == b"ispe")
        width, height = next(found, (0, 0))
        return width, height

    def decoded(self) -> list[int]:
        """Return the items that a decoder decodes for the picture: it, its tiles, and the alpha of all of them."""
        links = list(_references(self.boxes.get(b"iref", memoryview(bytes(4)))))

        def beside(items: set[int]) -> set[int]:
            return {one for kind, one, others in links if kind == b"auxl" and not items.isdisjoint(others)}

        images = {self.primary} | beside({self.primary})
        tiles = {tile for kind, one, others in links if kind == b"dimg" and one in images for tile in others}
        # An item that has two types is decoded where either is AV1's: libavif reads as many as the box counts.
        coded = {item for item, kind in _kinds(self.boxes[b"iinf"]) if kind == b"av01"}
        return sorted((images | tiles | beside(tiles)) & coded)


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


def _counted(entries: int) -> range:
    """Return the numbers of a table's entries; raises ImageError where there are more than `MAX_BOXES`."""
    if entries > MAX_BOXES:
        raise ImageError(f"the AVIF file has a table of {entries} entries; at most {MAX_BOXES} are read; save it again")
    return range(entries)


def _associated(ipma: memoryview) -> Iterator[tuple[int, list[int]]]:
    """Yield the items and the numbers of their properties, from 1; 0 is no property."""
    version, wide = ipma[0], ipma[3] & 1
    position = 8
    for _ in _counted(struct.unpack_from(">I", ipma, 4)[0]):
        (number,) = struct.unpack_from(">I" if version else ">H", ipma, position)
        position += 4 if version else 2
        count = ipma[position]
        raw = struct.unpack_from(f">{count}{'H' if wide else 'B'}", ipma, position + 1)
        yield number, [each & (0x7FFF if wide else 0x7F) for each in raw]
        position += 1 + count * (2 if wide else 1)


def _references(iref: memoryview) -> Iterator[tuple[bytes, int, tuple[int, ...]]]:
    """Yield the kind of each reference, the item that it starts from, and the items that it leads to."""
    number = ">I" if iref[0] else ">H"
    step = struct.calcsize(number)
    for kind, body in _boxes(iref[4:]):
        (item,) = struct.unpack_from(number, body)
        (count,) = struct.unpack_from(">H", body, step)
        yield kind, item, struct.unpack_from(f">{len(_counted(count))}{number[1]}", body, step + 2)


def _kinds(iinf: memoryview) -> Iterator[tuple[int, bytes]]:
    """Yield the items and their types."""
    for kind, body in _boxes(iinf[8 if iinf[0] else 6 :]):
        if kind == b"infe" and body[0] >= 2:
            number = ">I" if body[0] == 3 else ">H"
            position = 4 + struct.calcsize(number) + 2
            yield struct.unpack_from(number, body, 4)[0], bytes(body[position : position + 4])


def _locations(iloc: memoryview) -> dict[int, tuple[int, list[tuple[int, int]]]]:
    """Map items to where their bytes are: 0 for the file or 1 for `idat`, and (offset, size).

    A size of 0 is no bytes, as in libavif; the standard means all bytes up to the end.
    """
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
    for _ in _counted(take(wide)):
        item = take(wide)
        if item in found:
            raise ValueError  # libavif adds up what the entries say
        source = take(2) & 15 if version else 0
        take(2)
        base = take(base_bytes)
        extents = []
        for _ in _counted(take(2)):
            take(index_bytes)
            extents.append((base + take(offset_bytes), take(size_bytes)))
        found[item] = source, extents
    return found
