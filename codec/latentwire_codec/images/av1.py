# SPDX-License-Identifier: Apache-2.0
"""The bytes of an AV1 stream -> the largest frame that its headers announce (AV1 specification, 5.3 and 5.5).

A decoder takes the memory for that frame before it compares the frame with the size in the file's boxes.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from latentwire_core.errors import ImageError

SEQUENCE_HEADER, FRAME_HEADERS = 1, (3, 6, 7)
KEY, SWITCH = 0, 3
"""Types of frames."""
ADAPTIVE = 2
"""A tool that each frame turns on or off."""
MAX_UNITS = 4096
"""Open bitstream units of one picture: encoders write three for each item, and one for each group of tiles."""
HEADER_BYTES = 512
"""A sequence header with all operating points and timing has some 400 bytes."""


def largest_frames(streams: Iterable[bytes | memoryview]) -> Iterator[tuple[int, int] | None]:
    """Map streams to (width, height) of each one's largest frame, by the number of pixels; None without a whole header.

    Raises:
        ImageError: the streams have more than `MAX_UNITS` units, or a frame may be far larger than its sequence header
            announces.
    """
    left = MAX_UNITS
    for stream in streams:
        found: list[tuple[int, int]] = []
        header = None
        with suppress(IndexError):  # the stream ends too early, which the decoder says
            for kind, payload in _units(stream):
                left -= 1
                if left < 0:
                    raise ImageError(f"the AVIF file has more than {MAX_UNITS} units in one picture; save it again")
                if kind == SEQUENCE_HEADER:
                    header = _Header.read(_Bits(payload))
                    found.append((header.width, header.height))
                elif kind in FRAME_HEADERS:
                    if header is None:
                        break  # tiles share a decoder, which might still hold the header of another
                    header.check_override(_Bits(payload))
        yield max(found, key=lambda frame: frame[0] * frame[1], default=None)


def _units(stream: bytes | memoryview) -> Iterator[tuple[int, bytes | memoryview]]:
    """Yield the type and the payload of each open bitstream unit."""
    position = 0
    while position < len(stream):
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
    """Takes bits from the beginning of bytes, the highest first; raises IndexError behind `HEADER_BYTES`."""

    def __init__(self, data: bytes | memoryview) -> None:
        held = data[:HEADER_BYTES]
        self._value, self._left = int.from_bytes(held, "big"), 8 * len(held)

    def take(self, count: int) -> int:
        if count > self._left:
            raise IndexError
        self._left -= count
        return self._value >> self._left & (1 << count) - 1


@dataclass(frozen=True)
class _Header:
    """What a sequence header says of the sizes of frames, and what must be known to read a frame's header."""

    width: int
    height: int
    width_bits: int
    height_bits: int
    reduced: bool
    presentation_bits: int
    screen_content: int
    integer_motion: int
    frame_id_bits: int

    @classmethod
    def read(cls, bits: _Bits) -> "_Header":
        bits.take(4)  # seq_profile, still_picture
        reduced = bool(bits.take(1))
        presentation_bits = 0
        if reduced:
            bits.take(5)  # seq_level_idx
        else:
            presentation_bits = _operating_points(bits)
        width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
        width, height = bits.take(width_bits) + 1, bits.take(height_bits) + 1
        frame_id_bits, tools = 0, (ADAPTIVE, ADAPTIVE)
        if not reduced:
            if bits.take(1):  # frame_id_numbers_present_flag
                frame_id_bits = bits.take(4) + 2 + bits.take(3) + 1
            bits.take(3)  # use_128x128_superblock, enable_filter_intra, enable_intra_edge_filter
            tools = _tools(bits)
        return cls(width, height, width_bits, height_bits, reduced, presentation_bits, *tools, frame_id_bits)

    def check_override(self, bits: _Bits) -> None:
        """Refuse a frame that tells its own size, where that may have more than twice the largest width or height.

        The standard forbids it to be larger at all, but dav1d does not look. The number of bits bounds it: encoders
        take no more than the largest width and height need.
        """
        if self._overrides(bits) and (1 << self.width_bits > 2 * self.width or 1 << self.height_bits > 2 * self.height):
            raise ImageError(
                f"the AVIF file has frames of their own size, of up to {1 << self.width_bits}x{1 << self.height_bits}, "
                f"where {self.width}x{self.height} is announced; save it again"
            )

    def _overrides(self, bits: _Bits) -> bool:
        if self.reduced or bits.take(1):  # show_existing_frame
            return False
        kind, shown = bits.take(2), bits.take(1)
        bits.take(self.presentation_bits if shown else 1)
        if not (kind == SWITCH or (kind == KEY and shown)):
            bits.take(1)  # error_resilient_mode
        bits.take(1)  # disable_cdf_update
        screen_content = bits.take(1) if self.screen_content == ADAPTIVE else self.screen_content
        if screen_content and self.integer_motion == ADAPTIVE:
            bits.take(1)  # force_integer_mv
        bits.take(self.frame_id_bits)
        return kind == SWITCH or bool(bits.take(1))


def _operating_points(bits: _Bits) -> int:
    """Read timing and operating points; return the number of bits of a frame's presentation time."""
    delay_bits = presentation_bits = equal = 0
    if bits.take(1):  # timing_info_present_flag
        bits.take(64)
        equal = bits.take(1)  # equal_picture_interval
        if equal:
            zeros = 0
            while not bits.take(1):
                zeros += 1
            bits.take(zeros)
        if bits.take(1):  # decoder_model_info_present_flag
            delay_bits = bits.take(5) + 1
            bits.take(37)
            presentation_bits = bits.take(5) + 1
    displays = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if displays and bits.take(1):
            bits.take(4)
    return 0 if equal else presentation_bits


def _tools(bits: _Bits) -> tuple[int, int]:
    """Read the tools of a sequence; return seq_force_screen_content_tools and seq_force_integer_mv."""
    bits.take(4)  # interintra, masked compound, warped motion, dual filter
    if bits.take(1):  # enable_order_hint
        bits.take(2)
    screen_content = ADAPTIVE if bits.take(1) else bits.take(1)
    if not screen_content or bits.take(1):  # seq_choose_integer_mv
        return screen_content, ADAPTIVE
    return screen_content, bits.take(1)
