# SPDX-License-Identifier: Apache-2.0
"""Symbols of tables <-> 32-bit words: the default range coder of constriction, which docs/bitstream.md specifies.

A state of 64 bits, probabilities of 24; all arithmetic is modulo 2^64. The functions are compiled, so that a pass over
latents codes each integer when its table is known.
"""

import numpy as np
import numpy.typing as npt

from latentwire_codec.compiled import compiled, inlined, whole

Words = npt.NDArray[np.uint32]
Integers = npt.NDArray[np.int64]
Bounds = npt.NDArray[np.uint64]
Written = tuple[np.uint64, np.uint64, int]
"""The lower end of the interval, its width, and the number of words."""
Read = tuple[np.uint64, np.uint64, int]
"""The distance of the point from the lower end of the interval, its width, and the number of words that were taken."""

SYMBOLS = 32
"""Symbols of a table."""
PROBABILITY_BITS = 24
_ALL = np.uint64((1 << 64) - 1)
_WORD = np.uint64(32)
_LARGEST_WORD = np.uint64((1 << 32) - 1)
_BITS = np.uint64(PROBABILITY_BITS)
_ONE = np.uint64(1)
_HALF = np.uint64(SYMBOLS // 2)
_LARGEST_REST = np.uint64((1 << 33) - 1)


def bounds_of(frequencies: Integers) -> Bounds:
    """Map frequencies (tables, 32), in sums of 2^16, to where each symbol begins in 2^24, and 2^24: (tables, 33)."""
    below = np.zeros((len(frequencies), frequencies.shape[1] + 1), np.int64)
    np.cumsum(frequencies, axis=1, out=below[:, 1:])
    bounds = 256 * below + (-below // 2048) + np.arange(below.shape[1])
    bounds[:, -1] = 1 << PROBABILITY_BITS
    made: Bounds = bounds.astype(np.uint64)
    return made


@compiled
def begin_words() -> Written:
    """Return the state before the first symbol."""
    return np.uint64(0), _ALL, 0


@inlined
def put_symbol(words: Words, written: Written, bounds: Bounds, table: int, symbol: int) -> Written:
    """Code a symbol; the words have room for one more."""
    lower, width, count = written
    scale = width >> _BITS
    before = lower
    lower += scale * bounds[table, symbol]
    if lower < before:
        _carry(words, count)
    width = scale * (bounds[table, symbol + 1] - bounds[table, symbol])
    if width <= _LARGEST_WORD:
        words[count] = np.uint32(lower >> _WORD)
        return lower << _WORD, width << _WORD, count + 1
    return lower, width, count


@compiled
def end_words(words: Words, written: Written) -> int:
    """Write what is left after the last symbol, one word or two; return the number of words."""
    lower, width, count = written
    if width == _ALL:
        return 0
    point = lower + _LARGEST_WORD
    if point < lower:
        _carry(words, count)
    words[count] = np.uint32(point >> _WORD)
    if (lower + width) >> _WORD != point >> _WORD:
        return count + 1
    words[count + 1] = np.uint32(0)
    return count + 2


@compiled
def _carry(words: Words, count: int) -> None:
    """Add 1 to the number that the words make; the sum has no more words."""
    while True:
        count -= 1
        words[count] += np.uint32(1)
        if words[count]:
            return


@compiled
def begin_symbols(words: Words) -> Read:
    """Return the state before the first symbol."""
    return _word(words, 0) << _WORD | _word(words, 1), _ALL, 2


@inlined
def take_symbol(words: Words, read: Read, bounds: Bounds, table: int) -> tuple[Read, int]:
    """Return the state after a symbol, and the symbol; -1 where the words are no output of the coder."""
    point, width, count = read
    scale = width >> _BITS
    quantile = point // scale
    if quantile >> _BITS:
        return read, -1
    row, symbol, half = np.uint64(table), np.uint64(0), _HALF
    while half:
        if bounds[row, symbol + half] <= quantile:
            symbol += half
        half >>= _ONE
    point -= scale * bounds[row, symbol]
    width = scale * (bounds[row, symbol + _ONE] - bounds[row, symbol])
    if width <= _LARGEST_WORD:
        return (point << _WORD | _word(words, count), width << _WORD, count + 1), whole(symbol)
    return (point, width, count), whole(symbol)


@compiled
def ends(words: Words, read: Read) -> bool:
    """Return whether the words end here, as the coder ends them."""
    point, _, count = read
    return bool(count >= len(words) and point < _LARGEST_REST)


@inlined
def _word(words: Words, index: int) -> np.uint64:
    return np.uint64(words[index]) if index < len(words) else np.uint64(0)
