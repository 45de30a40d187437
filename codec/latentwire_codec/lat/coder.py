# SPDX-License-Identifier: Apache-2.0
"""Integers of one image's latents <-> bytes, by a range coder over the tables of a context model.

Symbols go through constriction's range coder. Two sections stand beside them: the escapes, for integers too far from
their mean, and the low bits, where the scale is large.
"""

from dataclasses import dataclass

import constriction
import numpy as np

from latentwire_codec.lat.bits import BitReader, Integers, write_bits
from latentwire_codec.lat.context import ESCAPE, LARGEST, LIMIT, ContextModel, Contexts, contexts
from latentwire_codec.lat.traversal import Phase, Traversed, shape_of, symbols, traverse
from latentwire_core.errors import Malformed, TensorError
from latentwire_core.varints import check_varints, from_varints, to_varints

CHUNK = 1 << 15
"""Symbols that the range coder takes at once; each comes with 256 bytes of probabilities."""

_MODEL = constriction.stream.model.Categorical(perfect=False)


@dataclass(frozen=True)
class Coded:
    """The integers of one image's latents as bytes.

    Attributes:
        symbols: words of the range coder, little-endian.
        escapes: distances of the integers that are too far from their mean, LEB128.
        low_bits: low bits where the scale is large, first bit highest.
    """

    symbols: bytes
    escapes: bytes
    low_bits: bytes


class Writer:
    """Codes integers, phase by phase, and returns their bytes."""

    def __init__(self, model: ContextModel) -> None:
        self._model = model
        self._coder = constriction.stream.queue.RangeEncoder()
        self._escapes = [np.empty(0, np.int64)]
        self._low = [(np.empty(0, np.int64), np.empty(0, np.int64))]

    def write(self, integers: Integers, context: Contexts) -> None:
        """Code integers (n,), each with its context."""
        coded, differences = symbols(integers, context)
        far = coded == ESCAPE
        if far.any():
            beyond = differences[far]
            self._escapes.append(2 * (np.abs(beyond) - LARGEST - 1) + (beyond < 0))
        if context.wide.size:
            self._low.append((integers[context.wide], context.shift))
        coded = coded.astype(np.int32)
        for start in range(0, len(coded), CHUNK):
            probabilities = self._model.probabilities.take(context.table[start : start + CHUNK], axis=0)
            self._coder.encode(coded[start : start + CHUNK], _MODEL, probabilities)

    def finish(self) -> Coded:
        """Return the bytes of all integers that were written."""
        integers, counts = (np.concatenate(each) for each in zip(*self._low, strict=True))
        return Coded(
            symbols=self._coder.get_compressed().astype("<u4").tobytes(),
            escapes=to_varints(np.concatenate(self._escapes)),
            low_bits=write_bits(integers, counts),
        )


class Reader:
    """Returns the integers that a `Writer` coded, phase by phase.

    Raises:
        Malformed: no `Writer` makes such bytes.
    """

    def __init__(self, coded: Coded, model: ContextModel) -> None:
        if len(coded.symbols) % 4:
            raise Malformed(f"the symbols are {len(coded.symbols)} bytes; they are words of 4")
        self._model = model
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(coded.symbols, "<u4").astype(np.uint32))
        self._escapes = np.frombuffer(coded.escapes, np.uint8)
        complaint = check_varints(self._escapes)
        if complaint:
            raise Malformed(f"an escape {complaint}")
        self._low_bits = BitReader(coded.low_bits)
        self._escape = 0

    def read(self, context: Contexts) -> Integers:
        """Return the next integers, as many as there are contexts.

        Raises:
            Malformed: the bytes hold fewer integers, or one is out of range.
        """
        integers = np.empty(len(context.table), np.int64)
        for start in range(0, len(integers), CHUNK):
            probabilities = self._model.probabilities.take(context.table[start : start + CHUNK], axis=0)
            try:
                integers[start : start + CHUNK] = self._coder.decode(_MODEL, probabilities)
            except AssertionError as error:
                raise Malformed("the symbols are no output of the range coder") from error
        far = (integers == ESCAPE).nonzero()[0]
        integers -= LARGEST
        if far.size:
            integers[far] = self._take_escapes(far.size)
        integers *= context.sign
        integers += context.base
        if context.wide.size:
            integers[context.wide] = (integers[context.wide] << context.shift) + self._low_bits.read(context.shift)
        # At once: sums of larger integers could leave 64 bits.
        if max(integers.max(), -integers.min()) >= LIMIT:
            raise Malformed(f"an integer is {integers.min()} or {integers.max()}; the largest is {LIMIT - 1}")
        return integers

    def finish(self) -> None:
        """Refuse bytes that were not read.

        Raises:
            Malformed: a section holds more than was read.
        """
        self._low_bits.finish()
        if self._escape != len(self._escapes):
            raise Malformed("there are more escapes than the symbols ask for")
        if not self._coder.maybe_exhausted():
            raise Malformed("there are more symbols than integers")

    def _take_escapes(self, count: int) -> Integers:
        # Decoded only when needed: the numbers of a whole section take many times its bytes.
        ahead = self._escapes[self._escape : self._escape + 4 * count]
        ends = np.flatnonzero(ahead < 128)[:count]
        if len(ends) < count:
            raise Malformed("there are fewer escapes than the symbols ask for")
        self._escape += int(ends[-1]) + 1
        taken = from_varints(ahead, ends)
        beyond = (taken >> 1) + LARGEST + 1
        return np.where(taken & 1, -beyond, beyond)


def encode(integers: Integers, model: ContextModel) -> Coded:
    """Map integers (C,h,w) to bytes.

    Args:
        integers: one image's latents, -2^23 + 1 .. 2^23 - 1.
        model: for C channels.

    Raises:
        TensorError: an integer is out of range.
    """
    if integers.size and np.abs(integers).max() >= LIMIT:
        raise TensorError(f"an integer is {np.abs(integers).max()}; the largest is {LIMIT - 1}: take larger steps")
    flat = integers.reshape(len(integers), -1)

    def choose(channel: int, phase: Phase, mean: Integers, scale: Integers) -> Integers:
        chosen: Integers = flat[channel].take(phase.places)
        return chosen

    return write(traverse(shape_of(integers), model, choose), model)


def write(traversed: Traversed, model: ContextModel) -> Coded:
    """Map integers, traversed with the same context model, to bytes."""
    chosen, mean, scale = traversed.coded
    writer = Writer(model)
    writer.write(chosen, contexts(mean, scale))
    return writer.finish()


def decode(coded: Coded, shape: tuple[int, int, int], model: ContextModel) -> tuple[Integers, Integers]:
    """Map bytes to integers (C,h,w), and to the means that were expected of them, in sixteenths of a step.

    Args:
        coded: bytes that `encode` returned.
        shape: (C,h,w).
        model: the one that the integers were encoded with.

    Raises:
        Malformed: `encode` does not make such bytes.
    """
    reader = Reader(coded, model)
    found = traverse(shape, model, lambda channel, phase, mean, scale: reader.read(contexts(mean, scale)))
    reader.finish()
    return found.integers, found.means
