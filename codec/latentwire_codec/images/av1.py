# SPDX-License-Identifier: Apache-2.0
"""The bytes of an AV1 stream -> the largest frame that its sequence headers announce (AV1 specification, 5.3 and 5.5).

A decoder takes the memory for that frame before it compares the frame with the size in the file's boxes.
"""

from collections.abc import Iterator
from contextlib import suppress

from latentwire_core.errors import ImageError

SEQUENCE_HEADER = 1
MAX_UNITS = 4096
"""Open bitstream units of one picture: encoders write three, and one for each group of tiles."""


def largest_frame(stream: bytes | memoryview) -> tuple[int, int]:
    """Map a stream to (width, height) of its largest frame, by the number of pixels; (0, 0) where no header is whole.

    Raises:
        ImageError: the stream has more than `MAX_UNITS` units.
    """
    frames = [(0, 0)]
    with suppress(IndexError):  # the stream ends too early, which the decoder says
        for kind, payload in _units(stream):
            if kind == SEQUENCE_HEADER:
                frames.append(_frame(payload))
    return max(frames, key=lambda frame: frame[0] * frame[1])


def _units(stream: bytes | memoryview) -> Iterator[tuple[int, bytes | memoryview]]:
    """Yield the type and the payload of each open bitstream unit."""
    position = count = 0
    while position < len(stream):
        count += 1
        if count > MAX_UNITS:
            raise ImageError(f"the AVIF file has more than {MAX_UNITS} units in one picture; save it again")
        head = stream[position]
        position += 2 if head & 4 else 1
        size = len(stream) - position
        if head & 2:
            size, position = _leb128(stream, position)
        yield head >> 3 & 15, stream[position : position + size]
        position += size


def _leb128(stream: bytes | memoryview, position: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, the lowest first, and where it ends."""
    value = 0
    for number in range(8):
        byte = stream[position + number]
        value |= (byte & 127) << 7 * number
        if byte < 128:
            break
    return value, position + number + 1


class _Bits:
    """Takes bits from bytes, the highest first; raises IndexError behind the end."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data, self._position = data, 0

    def take(self, count: int) -> int:
        value = 0
        for position in range(self._position, self._position + count):
            value = value << 1 | self._data[position // 8] >> 7 - position % 8 & 1
        self._position += count
        return value


def _frame(header: bytes | memoryview) -> tuple[int, int]:
    """Map a sequence header to the largest (width, height) of its frames."""
    bits = _Bits(header)
    bits.take(4)  # seq_profile, still_picture
    if bits.take(1):  # reduced_still_picture_header
        bits.take(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(width_bits) + 1, bits.take(height_bits) + 1


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.take(1):  # timing_info_present_flag
        bits.take(64)
        if bits.take(1):  # equal_picture_interval
            zeros = 0
            while not bits.take(1):
                zeros += 1
            bits.take(zeros)
        if bits.take(1):  # decoder_model_info_present_flag
            delay_bits = bits.take(5) + 1
            bits.take(42)
    displays = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if displays and bits.take(1):
            bits.take(4)
