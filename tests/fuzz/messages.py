# SPDX-License-Identifier: Apache-2.0
"""Protobuf bytes -> protobuf bytes with other fields, wire types, numbers and lengths."""

from random import Random

from latentwire_core.varints import to_varint
from tests.fuzz.damage import damaged

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
NUMBERS = (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 64, 255, 256, 65535, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
HUGE = (1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
MOST_FIELDS = 2000

Field = tuple[int, int, int | bytes]
"""Number, wire type, and the value: bytes of the types that have a length or a fixed size."""


def fields(data: bytes) -> list[Field] | None:
    """Take a message apart; None where the bytes are no message."""
    found: list[Field] = []
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        value: int | bytes
        if wire == VARINT:
            value, at = _varint(data, at)
        elif wire in {FIXED64, FIXED32, BYTES}:
            size = {FIXED64: 8, FIXED32: 4}.get(wire, 0)
            if wire == BYTES:
                size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            return None
        if number == 0 or at > len(data):
            return None
        found.append((number, wire, value))
    return found


def joined(parts: list[Field]) -> bytes:
    """Put fields together."""
    data = []
    for number, wire, value in parts:
        data.append(to_varint(number << 3 | wire))
        if isinstance(value, int):
            data.append(to_varint(value))
        else:
            data += [to_varint(len(value))] * (wire == BYTES) + [value]
    return b"".join(data)


def changed(random: Random, data: bytes) -> bytes:
    """Change one field of a message, of a message in it, or its bytes."""
    parts = fields(data)
    if not parts or random.random() < 0.1:
        return damaged(random, data, data)
    at = random.randrange(len(parts))
    number, wire, value = parts[at]
    choice = random.randrange(10)
    if choice < 5:
        parts[at] = (number, wire, _value(random, value))
    elif choice == 5:
        parts[at] = (random.choice((1, 2, 3, 4, 5, 6, 7, 8, 100, (1 << 29) - 1)), wire, value)
    elif choice == 6:
        size = random.choice((4, 8))
        other: Field = (number, {4: FIXED32, 8: FIXED64}[size], random.randbytes(size))
        parts[at] = random.choice((other, (number, BYTES, random.randbytes(size)), (number, VARINT, _number(random))))
    elif choice == 7:
        del parts[at]
    elif choice == 8:
        parts[at:at] = [parts[at]] * random.choice((1, 2, 70, MOST_FIELDS if len(data) < 1000 else 2))
    else:
        parts.insert(random.randint(0, len(parts)), (random.randint(1, 12), BYTES, data[: random.choice((0, 9, 99))]))
    return joined(parts)


def _value(random: Random, value: int | bytes) -> int | bytes:
    if isinstance(value, int):
        return random.choice((value + 1, _number(random)))
    choice = random.randrange(5)
    if choice < 3 and fields(value):
        return changed(random, value)
    if choice == 3:  # numbers in a row, such as a shape
        return b"".join(to_varint(_number(random)) for _ in range(random.choice((0, 1, 3, 4, 4, 5, 500))))
    return damaged(random, value, value)


def _number(random: Random) -> int:
    return random.choice(HUGE) if random.random() < 0.2 else random.choice(NUMBERS)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            break
    return value, at
