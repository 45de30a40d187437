# SPDX-License-Identifier: Apache-2.0
"""The `.lat` container: a header and sections of bytes <-> one payload, checked. Needs no torch and no coder.

docs/bitstream.md specifies it byte by byte. Nothing is allocated for the numbers in a header before the checksum of the
header is verified.
"""

import enum
import math
import string
import zlib
from dataclasses import dataclass

from latentwire_core.errors import (
    ChecksumMismatch,
    Malformed,
    TensorError,
    TrailingBytes,
    Truncated,
    UnsupportedVersion,
)
from latentwire_core.varints import to_varint

MAGIC = b"\x89LAT"
VERSION = 1
MAX_CHANNELS = 1024
MAX_SIDE = 1 << 16
MAX_VALUES = 1 << 24
"""Latents in one payload at most, unless the reader sets another limit: 16384x16384 pixels at f = 8 and C = 4."""
MAX_NAME_BYTES = 255
DIGEST_BYTES = 8
LARGEST_STEP = (1 << 16) - 1
EXPONENTS = range(-64, 64)
LARGEST_NUMBER = (1 << 32) - 1
"""The largest number that is written as a varint."""
SECTION_BITS = {"weights": 72, "symbols": 17, "escapes": 32, "low_bits": 23, "remainders": 17}
"""Bits of each section for a latent, at most, beside its last bytes; docs/bitstream.md gives the reasons."""
LAST_BYTES = 8
"""Room for the last words of the range coder, and for bytes that are not full."""


class PayloadKind(enum.IntEnum):
    """The kind of numbers in a payload."""

    QUANTIZED = 1
    """Latents rounded to multiples of each channel's step."""
    FLOAT16 = 2
    """Float16 latents, bit for bit."""


@dataclass(frozen=True)
class Header:
    """The facts that a payload states about itself.

    Attributes:
        kind: the kind of its numbers.
        model: the name of the model that made it; empty: unknown.
        latent_space: such as `latentwire-f8c4@3`; empty: unnamed or unknown.
        weights_digest: the first 8 bytes of the digest of the model's weights, 16 hex digits; empty: unknown.
        image_size: (height, width) that the decoded image is cropped to; (0, 0): all of it.
        shape: (C, h, w).
        table_id: identifies the tables that it was coded with, see `tables.Tables.table_id`.
        exponent: the step of a channel is its numerator * 2^-exponent; -64 .. 63.
        numerators: one for each channel, 1 .. 65535.
        reconstruction_offset: see `quantizer.dequantize`; 0 .. 255, and 0 for `PayloadKind.FLOAT16`.
    """

    kind: PayloadKind
    model: str
    latent_space: str
    weights_digest: str
    image_size: tuple[int, int]
    shape: tuple[int, int, int]
    table_id: int
    exponent: int
    numerators: tuple[int, ...]
    reconstruction_offset: int

    def check(self, max_values: int = MAX_VALUES) -> None:
        """Refuse values that the format does not have; raises Malformed."""
        _check_shape(self.shape, max_values)
        most_offset = 0 if self.kind is PayloadKind.FLOAT16 else 255
        wrong = ""
        if self.image_size != (0, 0) and not all(1 <= side <= LARGEST_NUMBER for side in self.image_size):
            wrong = f"the image size {self.image_size}; both sides are 0, or both 1..{LARGEST_NUMBER}"
        elif len(self.numerators) != self.shape[0]:
            wrong = f"{len(self.numerators)} steps for {self.shape[0]} channels; one is needed for each, or one for all"
        elif not all(1 <= step <= LARGEST_STEP for step in self.numerators):
            wrong = f"steps of {min(self.numerators)}..{max(self.numerators)}; 1..{LARGEST_STEP} are allowed"
        elif self.exponent not in EXPONENTS:
            wrong = f"the exponent {self.exponent}; {EXPONENTS[0]}..{EXPONENTS[-1]} are allowed"
        elif not 0 <= self.reconstruction_offset <= most_offset:
            wrong = f"the reconstruction offset {self.reconstruction_offset}; 0..{most_offset} are allowed"
        if wrong:
            raise Malformed(f"the header announces {wrong}")


@dataclass(frozen=True)
class Sections:
    """The parts that follow the header; an empty section takes no bytes.

    `side_information` explains the weights, `coder.Coded` the symbols, escapes and low bits, and `exact` the
    remainders, which only `PayloadKind.FLOAT16` has.
    """

    weights: bytes = b""
    symbols: bytes = b""
    escapes: bytes = b""
    low_bits: bytes = b""
    remainders: bytes = b""


SECTION_NAMES = tuple(SECTION_BITS)


def pack(header: Header, sections: Sections) -> bytes:
    """Map a header and its sections to a payload; raises TensorError where a value has no place in the format."""
    try:
        header.check()
    except Malformed as error:
        raise TensorError(str(error)) from error
    parts = [getattr(sections, name) for name in SECTION_NAMES]
    written = bytearray([*MAGIC, VERSION, header.kind])
    for name in (header.model, header.latent_space):
        written += _name(name)
    written += _digest(header.weights_digest)
    for number in (*header.image_size, *header.shape):
        written += to_varint(number)
    written += header.table_id.to_bytes(4, "little")
    written += header.exponent.to_bytes(1, "little", signed=True)
    # In latents of many channels and few places, C steps would take more bytes than the latents.
    steps = header.numerators[:1] if len(set(header.numerators)) == 1 else header.numerators
    written += to_varint(len(steps))
    for step in steps:
        written += step.to_bytes(2, "little")
    written.append(header.reconstruction_offset)
    for part in parts:
        written += to_varint(len(part))
    written += zlib.crc32(written).to_bytes(4, "little")
    for part in parts:
        if part:
            written += part + zlib.crc32(part).to_bytes(4, "little")
    return bytes(written)


def unpack(payload: bytes, max_values: int = MAX_VALUES) -> tuple[Header, Sections]:
    """Map a payload, a whole `.lat` file, to its header and sections; it may hold `max_values` latents at most.

    Raises:
        UnsupportedVersion: the payload has another version of the format.
        Truncated: it ends too early.
        TrailingBytes: bytes follow its end.
        ChecksumMismatch: the header or a section was changed.
        Malformed: it is no `.lat` payload, or a value is out of range.
    """
    header, lengths, end = _read_header(payload, max_values)
    for (name, bits), length in zip(SECTION_BITS.items(), lengths, strict=True):
        most = bits * math.prod(header.shape) // 8 + LAST_BYTES
        if length > most:
            raise Malformed(f"the header announces {length} bytes of {name}; its latents need at most {most}")
    total = end + sum(length + 4 for length in lengths if length)
    if len(payload) != total:
        error = Truncated if len(payload) < total else TrailingBytes
        raise error(f"the payload has {len(payload)} bytes; its header announces {total}")
    parts = {}
    for name, length in zip(SECTION_NAMES, lengths, strict=True):
        if length:
            parts[name] = payload[end : end + length]
            _check(parts[name], payload[end + length : end + length + 4], f"section {name}")
            end += length + 4
    return header, Sections(**parts)


def read_header(payload: bytes) -> Header:
    """Map the beginning of a payload to its header, whatever follows; raises as `unpack`."""
    return _read_header(payload, MAX_VALUES)[0]


def _read_header(payload: bytes, max_values: int) -> tuple[Header, tuple[int, ...], int]:
    if payload[: len(MAGIC)] != MAGIC[: len(payload)]:
        raise Malformed(f"a .lat payload begins with {MAGIC!r}; this one with {payload[:4]!r}")
    reader = _Reader(payload)
    reader.take(len(MAGIC))
    version = reader.byte()
    if version != VERSION:
        raise UnsupportedVersion(f"the payload is of version {version}; this release reads version {VERSION}")
    kind = reader.byte()
    names = [reader.take(reader.byte()) for _ in range(2)]
    digest = reader.take(DIGEST_BYTES)
    image_height, image_width, channels, height, width = (reader.varint() for _ in range(5))
    table_id = int.from_bytes(reader.take(4), "little")
    exponent = int.from_bytes(reader.take(1), "little", signed=True)
    # `take` raises Truncated before the announced count is used, so that a hostile count allocates nothing.
    octets = reader.take(2 * reader.varint())
    steps = tuple(int.from_bytes(octets[at : at + 2], "little") for at in range(0, len(octets), 2))
    offset = reader.byte()
    lengths = tuple(reader.varint() for _ in SECTION_NAMES)
    end = reader.position
    _check(payload[:end], reader.take(4), "header")
    _check_shape((channels, height, width), max_values)
    try:
        model, latent_space = (name.decode() for name in names)
        header = Header(
            kind=PayloadKind(kind),
            model=model,
            latent_space=latent_space,
            weights_digest=digest.hex() if any(digest) else "",
            image_size=(image_height, image_width),
            shape=(channels, height, width),
            table_id=table_id,
            exponent=exponent,
            numerators=steps * channels if len(steps) == 1 else steps,
            reconstruction_offset=offset,
        )
    except ValueError as error:
        raise Malformed(f"the header has a value that the format does not have: {error}") from error
    header.check(max_values)
    return header, lengths, reader.position


def _check_shape(shape: tuple[int, int, int], max_values: int) -> None:
    channels, height, width = shape
    if not 1 <= channels <= MAX_CHANNELS:
        raise Malformed(f"the header announces {channels} channels; 1..{MAX_CHANNELS} are allowed")
    if not 1 <= min(height, width) <= max(height, width) <= MAX_SIDE:
        raise Malformed(f"the header announces latents of {width}x{height}; sides of 1..{MAX_SIDE} are allowed")
    if channels * height * width > max_values:
        raise Malformed(
            f"the header announces {channels * height * width} latents; at most {max_values} are allowed (max_values)"
        )


def _check(part: bytes, checksum: bytes, name: str) -> None:
    if zlib.crc32(part) != int.from_bytes(checksum, "little"):
        raise ChecksumMismatch(f"the {name} was changed: its CRC-32 is not the one that was written")


def _name(name: str) -> bytes:
    try:
        encoded = name.encode()
    except UnicodeEncodeError as error:
        raise TensorError(f"the name {name!r} is no text: {error}") from error
    if len(encoded) > MAX_NAME_BYTES:
        raise TensorError(f"the name {name!r} has {len(encoded)} bytes; at most {MAX_NAME_BYTES} are allowed")
    return bytes([len(encoded)]) + encoded


def _digest(digits: str) -> bytes:
    """Map the hex digits of a digest to its first bytes, and the empty string to zeros."""
    digits = digits or "0" * 2 * DIGEST_BYTES
    if len(digits) < 2 * DIGEST_BYTES or set(digits) - set(string.hexdigits):
        raise TensorError(
            f"the weights digest is {digits!r}; it must have at least {2 * DIGEST_BYTES} hex digits, or be empty"
        )
    return bytes.fromhex(digits[: 2 * DIGEST_BYTES])


class _Reader:
    """Reads one field after the other."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self.position = 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self._payload):
            raise Truncated(f"the payload ends after {len(self._payload)} bytes, inside its header")
        taken = self._payload[self.position : end]
        self.position = end
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        number = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            number |= (byte & 127) << shift
            if byte < 128:
                if (shift and not byte) or number > LARGEST_NUMBER:
                    raise Malformed("a number in the header is longer than it must be, or than 32 bits")
                return number
        raise Malformed("a number in the header is longer than 5 bytes")
