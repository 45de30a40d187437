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


class Reader:
    """Returns the integers that `code` coded, phase by phase; raises Malformed for all other bytes."""

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
        """Return the next integer of each context; raises Malformed where one is missing or out of range."""
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
        """Refuse bytes that were not read; raises Malformed."""
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
    """Map integers (C,h,w), -2^23 + 1 .. 2^23 - 1, to bytes; raises TensorError beyond that range."""
    if integers.size and np.abs(integers).max() >= LIMIT:
        raise TensorError(f"an integer is {np.abs(integers).max()}; the largest is {LIMIT - 1}: take larger steps")
    flat = integers.reshape(len(integers), -1)

    def choose(channel: int, phase: Phase, mean: Integers, scale: Integers) -> Integers:
        chosen: Integers = flat[channel].take(phase.places)
        return chosen

    return write(traverse(shape_of(integers), model, choose), model)


def write(traversed: Traversed, model: ContextModel) -> Coded:
    """Map integers, traversed with the same context model, to bytes."""
    integers, mean, scale = traversed.coded
    return code(integers, contexts(mean, scale), model)


def code(integers: Integers, context: Contexts, model: ContextModel) -> Coded:
    """Map integers (n,), each with its context, to bytes."""
    coded, differences = symbols(integers, context)
    beyond = differences[coded == ESCAPE]
    coded = coded.astype(np.int32)
    encoder = constriction.stream.queue.RangeEncoder()
    for start in range(0, len(coded), CHUNK):
        probabilities = model.probabilities.take(context.table[start : start + CHUNK], axis=0)
        encoder.encode(coded[start : start + CHUNK], _MODEL, probabilities)
    return Coded(
        symbols=encoder.get_compressed().astype("<u4").tobytes(),
        escapes=to_varints(2 * (np.abs(beyond) - LARGEST - 1) + (beyond < 0)),
        low_bits=write_bits(integers[context.wide], context.shift),
    )


def decode(coded: Coded, shape: tuple[int, int, int], model: ContextModel) -> tuple[Integers, Integers]:
    """Map bytes from `encode`, made with the same model, to integers (C,h,w) and the means that were expected of them.

    The means are in sixteenths of a step.

    Raises:
        Malformed: `encode` does not make such bytes.
    """
    reader = Reader(coded, model)
    found = traverse(shape, model, lambda channel, phase, mean, scale: reader.read(contexts(mean, scale)))
    reader.finish()
    return found.integers, found.means
