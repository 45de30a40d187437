# SPDX-License-Identifier: Apache-2.0
"""One image's latents in steps -> integers -> bytes, and bytes -> integers, each in one compiled pass.

A range coder codes symbols by the tables of a context model. Two sections stand beside the symbols: the escapes, for
integers too far from their mean, and the low bits, where the scale is large.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentwire_codec.compiled import compiled, inlined, whole
from latentwire_codec.lat.bits import (
    TOO_FEW,
    Integers,
    Octets,
    check_rest,
    length_of,
    octets_of,
    put_bits,
    take_bits,
)
from latentwire_codec.lat.context import ESCAPE, FREQUENCY_BITS, LARGEST, LIMIT, ContextModel, context
from latentwire_codec.lat.traversal import (
    KINDS,
    Plan,
    Surroundings,
    begin_channel,
    expect,
    plan_of,
    put,
    shape_of,
    surroundings,
)
from latentwire_codec.range_coder import (
    Bounds,
    Words,
    begin_symbols,
    begin_words,
    bounds_of,
    end_words,
    ends,
    put_symbol,
    take_symbol,
)
from latentwire_core.container import LAST_BYTES, SECTION_BITS
from latentwire_core.errors import Malformed, TensorError
from latentwire_core.varints import check_varints

Reals = npt.NDArray[np.float64]

# What ends a pass over bytes, before the end of the latents.
_DONE, _NO_SYMBOL, _NO_ESCAPE, _NO_LOW_BITS, _TOO_LARGE = range(5)
_PROBLEMS = {
    _NO_SYMBOL: "the symbols are no output of the range coder",
    _NO_ESCAPE: "there are fewer escapes than the symbols ask for",
    _NO_LOW_BITS: TOO_FEW,
}


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


@dataclass(frozen=True)
class Chosen:
    """The integers that were chosen for one image's latents.

    Attributes:
        integers: (C,h,w).
        means: (C,h,w), the means that were expected of the integers, in sixteenths of a step.
        coded: the integers as bytes.
    """

    integers: Integers
    means: Integers
    coded: Coded


def encode(integers: Integers, model: ContextModel) -> Coded:
    """Map integers (C,h,w), -2^23 + 1 .. 2^23 - 1, to bytes; raises TensorError beyond that range."""
    if integers.size and np.abs(integers).max() >= LIMIT:
        raise TensorError(f"an integer is {np.abs(integers).max()}; the largest is {LIMIT - 1}: take larger steps")
    return choose(integers.astype(np.float64), model, 0.0).coded


def choose(reals: Reals, model: ContextModel, lambda_: float) -> Chosen:
    """Map latents (C,h,w), in steps, to integers that weigh error against bits.

    For each latent the two nearest integers are compared. The one with the smaller squared error + `lambda_` * bits is
    taken; with 0, the nearest integer. Each integer is decided once, in coding order.
    """
    shape = shape_of(reals)
    found, plan = surroundings(shape), plan_of(*shape[1:])
    # Untouched memory costs nothing: each section has the room that the format allows it.
    room = {name: bits * reals.size // 8 + LAST_BYTES for name, bits in SECTION_BITS.items()}
    words = np.empty(length_of(8 * room["symbols"]) // 4 + 1, np.uint32)
    escapes, low_bits = np.empty(room["escapes"], np.uint8), np.zeros(room["low_bits"], np.uint8)
    costs = FREQUENCY_BITS - np.log2(model.frequencies)
    bounds = bounds_of(model.frequencies)
    flat = np.ascontiguousarray(reals.reshape(shape[0], -1))
    used = _encode(flat, shape[2], lambda_, costs, found, plan, model, bounds, words, escapes, low_bits)
    coded = Coded(
        symbols=words[: used[0]].astype("<u4").tobytes(),
        escapes=escapes[: used[1]].tobytes(),
        low_bits=low_bits[: length_of(used[2])].tobytes(),
    )
    return Chosen(found.values.reshape(shape), found.means.reshape(shape), coded)


def decode(coded: Coded, shape: tuple[int, int, int], model: ContextModel) -> tuple[Integers, Integers]:
    """Map bytes from `encode`, made with the same model, to integers (C,h,w) and the means that were expected of them.

    The means are in sixteenths of a step.

    Raises:
        Malformed: `encode` does not make such bytes.
    """
    if len(coded.symbols) % 4:
        raise Malformed(f"the symbols are {len(coded.symbols)} bytes; they are words of 4")
    words = np.frombuffer(coded.symbols, "<u4").astype(np.uint32)
    escapes, low_bits = octets_of(coded.escapes), octets_of(coded.low_bits)
    complaint = check_varints(escapes)
    if complaint:
        raise Malformed(f"an escape {complaint}")
    found, plan = surroundings(shape), plan_of(*shape[1:])
    status, last, escape, position, ended = _decode(
        words, escapes, low_bits, bounds_of(model.frequencies), found, plan, model, shape[2]
    )
    if status == _TOO_LARGE:
        raise Malformed(f"an integer is {last}; the largest is {LIMIT - 1}")
    if status != _DONE:
        raise Malformed(_PROBLEMS[status])
    check_rest(low_bits, position)
    if escape != len(escapes):
        raise Malformed("there are more escapes than the symbols ask for")
    if not ended:
        raise Malformed("there are more symbols than integers")
    return found.values.reshape(shape), found.means.reshape(shape)


@inlined
def distance_of(integer: int, base: int, sign: int, shift: int) -> int:
    """Return the signed difference to the mean for which a symbol stands."""
    return sign * ((integer >> shift) - base)


@inlined
def symbol_of(distance: int) -> int:
    """Map a difference to its symbol."""
    return distance + LARGEST if abs(distance) <= LARGEST else ESCAPE


@compiled
def _encode(
    reals: Reals,
    width: int,
    lambda_: float,
    costs: Reals,
    found: Surroundings,
    plan: Plan,
    model: ContextModel,
    bounds: Bounds,
    words: Words,
    escapes: Octets,
    low_bits: Octets,
) -> tuple[int, int, int]:
    """Choose and code all integers; return the words, the bytes of escapes and the low bits that they took."""
    written, escape, position = begin_words(), 0, 0
    for channel in range(len(reals)):
        begin_channel(found, channel, width)
        for kind in range(len(KINDS)):
            for at in range(plan.begins[kind], plan.begins[kind + 1]):
                place = plan.places[at]
                mean, scale = expect(found, plan, model, channel, kind, at)
                table, base, sign, shift = context(mean, scale)
                real = reals[channel, place]
                nearest = np.rint(real)
                integer = whole(nearest)
                distance = distance_of(integer, base, sign, shift)
                symbol = symbol_of(distance)
                # A latent near an escape keeps the nearest integer: the tables do not state the bits of an escape.
                if lambda_ > 0 and symbol != ESCAPE:
                    step = -1 if real < nearest else 1
                    other_distance = distance_of(integer + step, base, sign, shift)
                    other = symbol_of(other_distance)
                    saved = costs[table, symbol] - costs[table, other]
                    lost = (real - (nearest + step)) ** 2 - (real - nearest) ** 2
                    if other != ESCAPE and lambda_ * saved > lost:
                        integer, symbol = integer + step, other
                written = put_symbol(words, written, bounds, table, symbol)
                if symbol == ESCAPE:
                    escape = _put_escape(escapes, escape, distance)
                position = put_bits(low_bits, position, integer, shift)
                put(found, channel, place, integer, mean)
    return end_words(words, written), escape, position


@compiled
def _decode(
    words: Words,
    escapes: Octets,
    low_bits: Octets,
    bounds: Bounds,
    found: Surroundings,
    plan: Plan,
    model: ContextModel,
    width: int,
) -> tuple[int, int, int, int, bool]:
    """Read all integers.

    Returns:
        why it ended; the last integer; the bytes of escapes and the low bits that were taken; whether the words end.
    """
    read, escape, position, integer = begin_symbols(words), 0, 0, 0
    for channel in range(len(found.values)):
        begin_channel(found, channel, width)
        for kind in range(len(KINDS)):
            for at in range(plan.begins[kind], plan.begins[kind + 1]):
                mean, scale = expect(found, plan, model, channel, kind, at)
                table, base, sign, shift = context(mean, scale)
                read, symbol = take_symbol(words, read, bounds, table)
                if symbol < 0:
                    return _NO_SYMBOL, integer, escape, position, False
                distance = symbol - LARGEST
                if symbol == ESCAPE:
                    if escape == len(escapes):
                        return _NO_ESCAPE, integer, escape, position, False
                    escape, distance = _take_escape(escapes, escape)
                integer = base + sign * distance
                if shift > 0:
                    low = take_bits(low_bits, position, shift)
                    if low < 0:
                        return _NO_LOW_BITS, integer, escape, position, False
                    position += shift
                    integer = (integer << shift) + low
                # At once: sums of larger integers could leave 64 bits.
                if abs(integer) >= LIMIT:
                    return _TOO_LARGE, integer, escape, position, False
                put(found, channel, plan.places[at], integer, mean)
    return _DONE, integer, escape, position, ends(words, read)


@inlined
def _put_escape(escapes: Octets, position: int, distance: int) -> int:
    """Write the distance of an escape; return the position after it."""
    number = 2 * (abs(distance) - LARGEST - 1) + (distance < 0)
    while number >= 128:
        escapes[position] = number & 127 | 128
        number >>= 7
        position += 1
    escapes[position] = number
    return position + 1


@inlined
def _take_escape(escapes: Octets, position: int) -> tuple[int, int]:
    """Return the position after an escape, whose form was checked, and its distance."""
    number, bits = 0, 0
    while escapes[position] >= 128:
        number |= whole(escapes[position] & 127) << bits
        bits += 7
        position += 1
    number |= whole(escapes[position]) << bits
    beyond = (number >> 1) + LARGEST + 1
    return position + 1, -beyond if number & 1 else beyond
