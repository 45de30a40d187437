# SPDX-License-Identifier: Apache-2.0
"""An AVIF file -> the code points of its colours, from its boxes (ISO/IEC 14496-12, 23008-12)."""

import struct
from collections.abc import Iterator

from latentwire_core.colour.code_points import CodePoints
from latentwire_core.errors import ImageError

MAX_BOXES = 4096
"""Boxes of one file: a picture of 256 tiles with alpha has some 1,600."""


def code_points(data: bytes) -> CodePoints | None:
    """Map an AVIF file to the code points of its primary image; None where its boxes name none.

    Raises:
        ImageError: there are more than `MAX_BOXES` boxes.
    """
    try:
        meta = next(body for kind, body in _boxes(data) if kind == b"meta")[4:]
        parts = dict(_boxes(meta))
        properties = dict(_boxes(parts[b"iprp"]))
        held = list(_boxes(properties[b"ipco"]))
        for index in _associated(properties[b"ipma"], _primary(parts[b"pitm"])):
            kind, body = held[index - 1]
            if kind == b"colr" and body[:4] == b"nclx":
                primaries, transfer = struct.unpack_from(">HH", body, 4)
                return CodePoints(primaries, transfer)
    except (StopIteration, KeyError, IndexError, struct.error):
        return None  # the decoder says what is wrong with the file
    return None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = count = 0
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, position + 8)
            head = 16
        if size == 0:
            size = len(data) - position
        if size < head:
            return
        count += 1
        if count > MAX_BOXES:
            raise ImageError(f"the AVIF file has more than {MAX_BOXES} boxes in a row; save it again")
        yield kind, data[position + head : position + size]
        position += size


def _primary(pitm: bytes) -> int:
    (item,) = struct.unpack_from(">I" if pitm[0] else ">H", pitm, 4)
    return int(item)


def _associated(ipma: bytes, item: int) -> list[int]:
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
