# SPDX-License-Identifier: Apache-2.0
"""Integers of one image's latents <-> bytes, by a range coder over the tables of a prior.

The walk over the places is the same in both directions; only what happens at each phase differs. Symbols go through
constriction's range coder; integers too far from their mean, and low bits where the scale is large, go beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from latentwire_codec.lat.bits import BitReader, Integers, write_bits
from latentwire_codec.lat.context import ESCAPE, LARGEST, LIMIT, ContextModel, Contexts, Surroundings, contexts
from latentwire_codec.lat.scan import Phase, phases
from latentwire_core.errors import Malformed, TensorError
from latentwire_core.varints import check_varints, from_varints, to_varints

Choose = Callable[[int, Phase, Integers, Integers], Integers]
"""Maps a channel, a phase, and the means and scales at its places, to the integers there."""
CHUNK = 1 << 15
"""Symbols that are handed to the range coder at once, each with 256 bytes of probabilities."""

_MODEL = constriction.stream.model.Categorical(perfect=False)


@dataclass(frozen=True)
class Coded:
    """The integers of one image's latents as bytes.

    Attributes:
        symbols: words of the range coder, little-endian.
        escapes: what is too far from its mean, LEB128.
        low_bits: low bits where the scale is large, first bit highest.
    """

    symbols: bytes
    escapes: bytes
    low_bits: bytes


@dataclass(frozen=True)
class Traversed:
    """The integers of one image's latents, and what was expected of them.

    Attributes:
        integers: (C,h,w).
        means: (C,h,w), in sixteenths of a step.
        coded: integers, means and scales in coding order, (n,) each.
    """

    integers: Integers
    means: Integers
    coded: tuple[Integers, Integers, Integers]


def traverse(shape: tuple[int, int, int], prior: ContextModel, choose: Choose) -> Traversed:
    """Go through all places of (C,h,w) in coding order and put there what `choose` says."""
    found = Surroundings(shape, prior)
    plan = phases(*shape[1:])
    coded = []
    for channel in range(shape[0]):
        found.begin(channel)
        for phase in plan:
            mean, scale = found.expect(channel, phase)
            chosen = choose(channel, phase, mean, scale)
            found.put(channel, phase.places, chosen, mean)
            coded.append((chosen, mean, scale))
    integers, means, scales = (np.concatenate(each) for each in zip(*coded, strict=True))
    return Traversed(found.values.reshape(shape), found.means.reshape(shape), (integers, means, scales))


def symbols(integers: Integers, context: Contexts) -> tuple[Integers, Integers]:
    """Map integers (n,) to their symbols and to the signed differences that these stand for."""
    differences = integers - context.base
    if context.wide.size:
        differences[context.wide] = (integers[context.wide] >> context.shift) - context.base[context.wide]
    differences *= context.sign
    return np.where(np.abs(differences) > LARGEST, ESCAPE, differences + LARGEST), differences


def shape_of(latents: npt.NDArray[Any]) -> tuple[int, int, int]:
    """Return (C,h,w) of one image's latents or integers."""
    channels, height, width = latents.shape
    return channels, height, width


class Writer:
    """Takes the integers of one phase after the other, and gives them as bytes."""

    def __init__(self, prior: ContextModel) -> None:
        self._prior = prior
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
            probabilities = self._prior.probabilities.take(context.table[start : start + CHUNK], axis=0)
            self._coder.encode(coded[start : start + CHUNK], _MODEL, probabilities)

    def finish(self) -> Coded:
        """Return all that was written."""
        integers, counts = (np.concatenate(each) for each in zip(*self._low, strict=True))
        return Coded(
            symbols=self._coder.get_compressed().astype("<u4").tobytes(),
            escapes=to_varints(np.concatenate(self._escapes)),
            low_bits=write_bits(integers, counts),
        )


class Reader:
    """Gives back what a `Writer` took, one phase after the other.

    Raises:
        Malformed: the bytes are none that a `Writer` gives.
    """

    def __init__(self, coded: Coded, prior: ContextModel) -> None:
        if len(coded.symbols) % 4:
            raise Malformed(f"the symbols are {len(coded.symbols)} bytes; they are words of 4")
        self._prior = prior
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
            Malformed: there are none, or one is out of range.
        """
        integers = np.empty(len(context.table), np.int64)
        for start in range(0, len(integers), CHUNK):
            probabilities = self._prior.probabilities.take(context.table[start : start + CHUNK], axis=0)
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
        # At once: sums of larger ones could leave 64 bits.
        if max(integers.max(), -integers.min()) >= LIMIT:
            raise Malformed(f"an integer is {integers.min()} or {integers.max()}; the largest is {LIMIT - 1}")
        return integers

    def finish(self) -> None:
        """Refuse what was not read.

        Raises:
            Malformed: something was not.
        """
        self._low_bits.finish()
        if self._escape != len(self._escapes):
            raise Malformed("there are more escapes than the symbols ask for")
        if not self._coder.maybe_exhausted():
            raise Malformed("there are more symbols than integers")

    def _take_escapes(self, count: int) -> Integers:
        # Made into numbers when they are asked for: those of a whole section take many times its bytes.
        ahead = self._escapes[self._escape : self._escape + 4 * count]
        ends = np.flatnonzero(ahead < 128)[:count]
        if len(ends) < count:
            raise Malformed("there are fewer escapes than the symbols ask for")
        self._escape += int(ends[-1]) + 1
        taken = from_varints(ahead, ends)
        beyond = (taken >> 1) + LARGEST + 1
        return np.where(taken & 1, -beyond, beyond)


def encode(integers: Integers, prior: ContextModel) -> Coded:
    """Map integers (C,h,w) to bytes.

    Args:
        integers: of one image's latents, -2^23 + 1 .. 2^23 - 1.
        prior: for C channels.

    Raises:
        TensorError: an integer is out of range.
    """
    if integers.size and np.abs(integers).max() >= LIMIT:
        raise TensorError(f"an integer is {np.abs(integers).max()}; the largest is {LIMIT - 1}: take larger steps")
    flat = integers.reshape(len(integers), -1)

    def choose(channel: int, phase: Phase, mean: Integers, scale: Integers) -> Integers:
        chosen: Integers = flat[channel].take(phase.places)
        return chosen

    return write(traverse(shape_of(integers), prior, choose), prior)


def write(traversed: Traversed, prior: ContextModel) -> Coded:
    """Map integers, and what the same prior expected of them, to bytes."""
    chosen, mean, scale = traversed.coded
    writer = Writer(prior)
    writer.write(chosen, contexts(mean, scale))
    return writer.finish()


def decode(coded: Coded, shape: tuple[int, int, int], prior: ContextModel) -> tuple[Integers, Integers]:
    """Map bytes to integers (C,h,w), and to the means that were expected of them, in sixteenths.

    Args:
        coded: what `encode` gave.
        shape: (C,h,w).
        prior: for C channels, as it was encoded with.

    Raises:
        Malformed: the bytes are not what `encode` gives.
    """
    reader = Reader(coded, prior)
    found = traverse(shape, prior, lambda channel, phase, mean, scale: reader.read(contexts(mean, scale)))
    reader.finish()
    return found.integers, found.means
