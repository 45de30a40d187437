# SPDX-License-Identifier: Apache-2.0
"""Bytes and a random generator -> damaged bytes: the mutators that all targets share."""

from collections.abc import Callable
from random import Random

Mutator = Callable[[Random, bytearray, int, bytes], None]
"""Changes bytes in place at a position, 0..length; the last argument is another input to copy from."""


def flip_bit(random: Random, data: bytearray, at: int, other: bytes) -> None:
    """Flip one bit."""
    if at < len(data):
        data[at] ^= 1 << random.randrange(8)


def set_limit(random: Random, data: bytearray, at: int, other: bytes) -> None:
    """Set a byte to a limit of its values, or of the values of a varint's group."""
    if at < len(data):
        data[at] = random.choice((0, 127, 128, 255))


def insert(random: Random, data: bytearray, at: int, other: bytes) -> None:
    """Insert random bytes."""
    data[at:at] = random.randbytes(random.randint(1, 8))


def delete(random: Random, data: bytearray, at: int, other: bytes) -> None:
    """Delete some bytes."""
    del data[at : at + random.randint(1, 8)]


def truncate(random: Random, data: bytearray, at: int, other: bytes) -> None:
    """Cut off the rest."""
    del data[at:]


def splice(random: Random, data: bytearray, at: int, other: bytes) -> None:
    """Replace the rest with the end of another input."""
    data[at:] = other[random.randint(0, len(other)) :]


def repeat(random: Random, data: bytearray, at: int, other: bytes) -> None:
    """Overwrite some bytes with one value."""
    count = random.randint(1, 16)
    data[at : at + count] = bytes([random.choice((0, 128, 255))]) * count


MUTATORS: tuple[Mutator, ...] = (flip_bit, set_limit, insert, delete, truncate, splice, repeat)


def damaged(random: Random, data: bytes, other: bytes) -> bytes:
    """Apply one to eight mutators to a copy of the bytes."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        random.choice(MUTATORS)(random, changed, random.randint(0, len(changed)), other)
    return bytes(changed)
