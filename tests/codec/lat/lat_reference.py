# SPDX-License-Identifier: Apache-2.0
"""A `.lat` payload and the tables -> integers and latents: a second decoder, written from docs/bitstream.md alone.

Python's integers only, one symbol after the other: slow, and no line in common with the package. Whatever is wrong with
a payload is a `Wrong`. Numpy reads the file of the tables and rounds to float32; it computes nothing.
"""

import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

SECTIONS = {"weights": 72, "symbols": 17, "escapes": 32, "low_bits": 23, "remainders": 17}
LIMIT = 2**23
Place = tuple[int, int]


class Wrong(Exception):
    """The payload is not as it was written."""


def need(condition: bool, what: str) -> None:
    if not condition:
        raise Wrong(what)


@dataclass
class Payload:
    """Header and sections, as the page names them."""

    kind: int
    model: str
    latent_space: str
    digest: str
    image_size: tuple[int, int]
    shape: tuple[int, int, int]
    table_id: int
    exponent: int
    numerators: list[int]
    offset: int
    sections: dict[str, bytes] = field(default_factory=dict)


class Octets:
    """Fields from the beginning on."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        need(self.at + count <= len(self.data), "truncated")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(count), "little", signed=signed)

    def varint(self, most: int) -> int:
        number, count = 0, 0
        while True:
            octet = self.number(1)
            number |= (octet & 127) << 7 * count
            count += 1
            if octet < 128:
                need(count == 1 or octet > 0, "varint with a leading zero")
                need(count <= most, "long varint")
                return number
            need(count < most, "long varint")


def parse(payload: bytes) -> Payload:
    octets = Octets(payload)
    need(octets.take(4) == b"\x89LAT", "magic")
    need(octets.number(1) == 1, "version")
    kind = octets.number(1)
    model, latent_space = (octets.take(octets.number(1)).decode() for _ in range(2))
    digest = octets.take(8).hex()
    height, width, channels, rows, columns = (octets.varint(5) for _ in range(5))
    table_id = octets.number(4)
    exponent = octets.number(1, signed=True)
    numerators = [octets.number(2) for _ in range(octets.varint(5))]
    offset = octets.number(1)
    lengths = [octets.varint(5) for _ in SECTIONS]
    checksum = zlib.crc32(payload[: octets.at])
    need(octets.number(4) == checksum, "checksum of the header")
    need(kind in (1, 2) and exponent in range(-64, 64) and len(numerators) in (1, channels), "header")
    need(1 <= channels <= 1024 and 1 <= rows <= 65536 and 1 <= columns <= 65536, "shape")
    need(0 not in numerators and (height > 0) == (width > 0) and (kind == 1 or offset == 0), "header")
    for bits, length in zip(SECTIONS.values(), lengths, strict=True):
        need(length <= bits * channels * rows * columns // 8 + 8, "length of a section")
    found = Payload(
        kind=kind,
        model=model,
        latent_space=latent_space,
        digest=digest,
        image_size=(height, width),
        shape=(channels, rows, columns),
        table_id=table_id,
        exponent=exponent,
        numerators=numerators if len(numerators) == channels else numerators * channels,
        offset=offset,
    )
    for name, length in zip(SECTIONS, lengths, strict=True):
        found.sections[name] = octets.take(length)
        if length:
            need(octets.number(4) == zlib.crc32(found.sections[name]), f"checksum of {name}")
    need(octets.at == len(payload), "trailing bytes")
    return found


def order(height: int, width: int) -> list[tuple[int, list[Place]]]:
    """Every phase's kind and places, in coding order."""
    found = [(0, [(y, x) for y in range(0, height, 8) for x in range(0, width, 8)])]
    for kind, stride in ((1, 4), (3, 2), (5, 1)):
        grid = [(y, x) for y in range(0, height, stride) for x in range(0, width, stride)]
        odd = [(y // stride % 2, x // stride % 2) for y, x in grid]
        found.append((kind, [place for place, parity in zip(grid, odd, strict=True) if parity == (1, 1)]))
        found.append((kind + 1, [place for place, parity in zip(grid, odd, strict=True) if sum(parity) == 1]))
    return found


def neighbours(kind: int, place: Place, height: int, width: int) -> list[Place]:
    """The four coded places around one outside the seed."""
    stride = 4 >> (kind - 1) // 2
    diagonal = [(-1, -1), (1, 1), (-1, 1), (1, -1)]
    cross = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    found: list[Place | None] = []
    for down, right in diagonal if kind % 2 else cross:
        y, x = place[0] + down * stride, place[1] + right * stride
        y = y if 0 <= y < height else place[0] - down * stride
        x = x if 0 <= x < width else place[1] - right * stride
        found.append((y, x) if 0 <= y < height and 0 <= x < width else None)
    first = next(each for each in found if each is not None)
    return [first if each is None else each for each in found]


class RangeDecoder:
    """Constriction's default range coder: words of 32 bits, a state of 64, probabilities of 24."""

    def __init__(self, data: bytes) -> None:
        need(len(data) % 4 == 0, "length of the symbols")
        self.words = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
        self.lower, self.range = 0, 2**64 - 1
        self.point = self.word() << 32 | self.word()

    def word(self) -> int:
        return self.words.pop(0) if self.words else 0

    def symbol(self, frequencies: list[int]) -> int:
        scale = self.range >> 24
        quantile = (self.point - self.lower) % 2**64 // scale
        need(quantile < 2**24, "no output of the range coder")
        total = left = 0
        for symbol, frequency in enumerate(frequencies):
            total += frequency
            right = 256 * total - -(-total // 2048) + symbol + 1
            if quantile < right:
                break
            left = right
        self.lower = (self.lower + scale * left) % 2**64
        self.range = scale * (right - left)
        if self.range < 2**32:
            self.lower = self.lower << 32 & 2**64 - 1
            self.range <<= 32
            self.point = (self.point << 32 | self.word()) & 2**64 - 1
        return symbol

    def finish(self) -> None:
        need(not self.words and (self.point - self.lower) % 2**64 < 2**33 - 1, "too many symbols")


class Bits:
    """Bits, the first one highest."""

    def __init__(self, data: bytes) -> None:
        self.bits = [octet >> 7 - place & 1 for octet in data for place in range(8)]
        self.at = 0

    def take(self, count: int) -> int:
        need(self.at + count <= len(self.bits), "too few bits")
        self.at += count
        return int("0" + "".join(map(str, self.bits[self.at - count : self.at])), 2)

    def finish(self) -> None:
        need(len(self.bits) - self.at < 8 and not any(self.bits[self.at :]), "too many bits")


class Tables:
    """The four arrays of weights/prior.safetensors, as lists."""

    def __init__(self, path: Path) -> None:
        arrays = load_file(path)
        names = ("scale_weights", "scale_floor", "scale_spread", "frequencies")
        self.identity = zlib.crc32(b"".join(arrays[name].astype("<i4").tobytes() for name in names))
        self.weights, self.floor, self.spread, self.frequencies = (arrays[name].tolist() for name in names)
        self.thresholds = [fourth_root(625 << k + 8) for k in range(1, 120)]


def fourth_root(number: int) -> int:
    """The nearest integer: the largest n with (2n - 1)^4 <= 16 * number."""
    return (math.isqrt(math.isqrt(16 * number)) + 1) // 2


Plane = dict[Place, int]


class Channel:
    """What is known of one channel, and how its next integers are coded."""

    def __init__(self, index: int, row: bytes, payload: Payload, tables: Tables, before: "Channel | None") -> None:
        self.tables, self.before, self.row = tables, before, min(index, 1)
        self.height, self.width = payload.shape[1:]
        self.values: Plane = {}
        self.means: Plane = {}
        self.errors: Plane = {}
        self.mean = int.from_bytes(row[:2], "little", signed=True)
        need(row[2] < 128, "deviation")
        self.deviation = fourth_root(1 << row[2])
        weights = [int.from_bytes(row[at : at + 1], signed=True) for at in range(3, 9)]
        self.weights = (weights[:3], weights[3:])

    def around(self, plane: Plane, place: Place) -> int:
        """The sum of the four around a place; at the edge the place itself."""
        y, x = place
        every = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        return sum(plane[each] if each in plane else plane[place] for each in every)

    def expect(self, kind: int, place: Place) -> tuple[int, int]:
        """The mean and the scale."""
        mean_terms, scale_terms = [0, 0, 0], [0] * 7
        if kind:
            around = neighbours(kind, place, self.height, self.width)
            a, b, c, d = (self.values[each] for each in around)
            e, f, g, h = (self.errors[each] for each in around)
            mean_terms[:2] = [a + b, c + d]
            scale_terms[:4] = [16 * (abs(a - b) + abs(c - d)), 16 * abs(a + b - c - d), e + f, g + h]
        if self.before is not None:
            value = self.before.values[place]
            mean_terms[2] = value
            edge = 16 * abs(4 * value - self.before.around(self.before.values, place))
            scale_terms[4:] = [self.before.errors[place], self.before.around(self.before.errors, place), edge]
        weights = self.weights[(kind + 1) % 2] if kind else [0, 0, 0]
        before = 0 if self.before is None else self.before.mean
        bias = 64 * self.mean - sum(w * m for w, m in zip(weights, (2 * self.mean, 2 * self.mean, before), strict=True))
        mean = (sum(w * term for w, term in zip(weights, mean_terms, strict=True)) + bias) * 1024 >> 12
        floor = self.tables.floor[self.row][kind] + self.tables.spread[self.row][kind] * self.deviation * 16
        scales = self.tables.weights[self.row][kind]
        return mean, sum(w * term for w, term in zip(scales, scale_terms, strict=True)) + floor >> 12


def integers(payload: Payload, tables: Tables) -> list[Channel]:
    channels, height, width = payload.shape
    sections = payload.sections
    need(payload.table_id == tables.identity, "other tables")
    need(len(sections["weights"]) in (9, 9 * channels), "length of the weights")
    rows = sections["weights"] * (channels if len(sections["weights"]) == 9 else 1)
    coder, escapes, low = RangeDecoder(sections["symbols"]), Octets(sections["escapes"]), Bits(sections["low_bits"])
    found: list[Channel] = []
    plan = order(height, width)
    for index in range(channels):
        channel = Channel(index, rows[9 * index : 9 * index + 9], payload, tables, found[-1] if found else None)
        for kind, places in plan:
            for place in places:
                mean, scale = channel.expect(kind, place)
                value = one(mean, scale, tables, coder, escapes, low)
                need(-LIMIT < value < LIMIT, "integer out of range")
                channel.values[place], channel.means[place] = value, mean
                channel.errors[place] = abs(16 * value - mean)
        found.append(channel)
    coder.finish()
    low.finish()
    need(escapes.at == len(sections["escapes"]), "too many escapes")
    return found


def one(mean: int, scale: int, tables: Tables, coder: RangeDecoder, escapes: Octets, low: Bits) -> int:
    """One integer, whose mean and scale are known."""
    level = sum(threshold <= scale for threshold in tables.thresholds)
    shift = 0
    if level >= 28:
        shift = level // 4 - 6
        level -= 4 * shift
        mean = (2 * mean - 16 * (2**shift - 1)) >> shift + 1
    part = mean % 16
    base, sign = (mean + 8) // 16, 1 if part < 8 else -1
    symbol = coder.symbol(tables.frequencies[9 * level + min(part, 16 - part)])
    difference = symbol - 15
    if symbol == 31:
        code = escapes.varint(4)
        difference = -(code // 2 + 16) if code % 2 else code // 2 + 16
    return ((base + sign * difference) << shift) + low.take(shift)


def dequantized(payload: Payload, channels: list[Channel]) -> list[float]:
    """Latents in the order of their places, before they are rounded to float32."""
    need(not payload.sections["remainders"], "remainders")
    found = []
    for numerator, channel in zip(payload.numerators, channels, strict=True):
        for place in sorted(channel.values):
            distance = max(-16, min(16, 16 * channel.values[place] - channel.means[place]))
            drawn = 4096 * channel.values[place] - payload.offset * distance
            found.append(math.ldexp(drawn * numerator, -payload.exponent - 12))
    return found


def halves(payload: Payload, channels: list[Channel]) -> list[float]:
    """Float16 latents in the order of their places."""
    remainders = payload.sections["remainders"]
    cells = [
        (index, channel.values[place]) for index, channel in enumerate(channels) for place in sorted(channel.values)
    ]
    head_bytes = -(-7 * sum(cell == 0 for _, cell in cells) // 8)
    heads, tails = Bits(remainders[:head_bytes]), Bits(remainders[head_bytes:])
    found = []
    for index, cell in cells:
        numerator = payload.numerators[index]
        power = numerator.bit_length() - 1 - payload.exponent
        need(numerator & (numerator - 1) == 0 and -24 <= power <= 24, "steps of float16")
        dropped = power + 24
        top, negative, low = abs(cell) << dropped, cell < 0, dropped
        if not cell:
            length, negative = heads.take(6), bool(heads.take(1))
            need(length <= dropped, "remainder above a step")
            top, low = 2 ** (length - 1) if length else 0, max(length - 1, 0)
        zeros = min(max(top.bit_length() - 11, 0), low)
        magnitude = top | tails.take(low - zeros) << zeros
        need(magnitude <= 65504 * 2**24, "above 65504")
        found.append(math.copysign(math.ldexp(magnitude, -24), -1 if negative else 1))
    heads.finish()
    tails.finish()
    return found


def decode(data: bytes, tables: Tables) -> tuple[Payload, list[int], list[float]]:
    """Header, integers and latents, these as float16 or float32 hold them."""
    payload = parse(data)
    channels = integers(payload, tables)
    flat = [channel.values[place] for channel in channels for place in sorted(channel.values)]
    if payload.kind == 2:
        return payload, flat, halves(payload, channels)
    return payload, flat, [float(np.float32(latent)) for latent in dequantized(payload, channels)]
