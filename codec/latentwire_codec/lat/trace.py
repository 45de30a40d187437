# SPDX-License-Identifier: Apache-2.0
"""Integers and their context model -> how each integer is coded; a `.lat` payload -> the bits of each channel."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from latentwire_codec.compiled import compiled
from latentwire_codec.lat import coder
from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.context import ESCAPE, FREQUENCY_BITS, LARGEST, SCALE_TERMS, ContextModel, context
from latentwire_codec.lat.payload import decompress_latents
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.tables import common_tables
from latentwire_codec.lat.traversal import (
    KINDS,
    Plan,
    Surroundings,
    begin_channel,
    expect,
    plan_of,
    put,
    scale_features,
    shape_of,
    surroundings,
)
from latentwire_core.container import unpack


class Trace(NamedTuple):
    """How the integers of one channel are coded, in coding order.

    Attributes:
        features: (N, 7), of the scale, as in `ContextModel`.
        means: (N,), in sixteenths of a step.
        tables: (N,), indices of the tables of frequencies.
        symbols: (N,).
        distances: (N,), the signed differences to the mean for which the symbols stand.
        shifts: (N,), the numbers of low bits.
    """

    features: Integers
    means: Integers
    tables: Integers
    symbols: Integers
    distances: Integers
    shifts: Integers


def trace(integers: Integers, model: ContextModel) -> Iterator[Trace]:
    """Map integers (C,h,w) to the trace of each channel, one after the other."""
    shape = shape_of(integers)
    found, plan = surroundings(shape), plan_of(*shape[1:])
    for channel, plane in enumerate(integers.reshape(shape[0], -1)):
        count = plane.size
        traced = Trace(np.empty((count, SCALE_TERMS), np.int64), *np.empty((5, count), np.int64))
        _trace(found, plan, model, channel, shape[2], np.ascontiguousarray(plane), traced)
        yield traced


def channel_bits(payload: bytes) -> npt.NDArray[np.float64]:
    """Map a payload to the bits of each channel's integers, (C,).

    A symbol counts as -log2 of its probability, which is what the range coder spends on it; low bits and escapes count
    as they are. The sum is the size of the sections symbols, escapes and low_bits, up to a few words to which the coder
    rounds. Weights, and the remainders of float16 latents, are sections of their own and not counted here.

    Raises:
        BitstreamError: the payload cannot be decoded.
    """
    decompress_latents(payload)  # refuses a payload that is damaged
    header, sections = unpack(payload)
    model = common_tables().context_model(SideInformation.from_bytes(sections.weights, header.shape[0]))
    coded = coder.Coded(sections.symbols, sections.escapes, sections.low_bits)
    integers, _ = coder.decode(coded, header.shape, model)
    costs = FREQUENCY_BITS - np.log2(model.frequencies)
    return np.array([_bits(each, costs) for each in trace(integers, model)])


def _bits(traced: Trace, costs: npt.NDArray[np.float64]) -> float:
    beyond = np.abs(traced.distances[traced.symbols == ESCAPE]) - LARGEST - 1
    # An escape is LEB128, 7 bits in a byte: twice the distance beyond the last symbol, and the sign.
    escapes = 8 * np.maximum(np.ceil(np.log2(2 * beyond + 2) / 7), 1)
    bits: float = costs[traced.tables, traced.symbols].sum() + escapes.sum() + traced.shifts.sum()
    return bits


@compiled
def _trace(
    found: Surroundings, plan: Plan, model: ContextModel, channel: int, width: int, integers: Integers, traced: Trace
) -> None:
    begin_channel(found, channel, width)
    for kind in range(len(KINDS)):
        for at in range(plan.begins[kind], plan.begins[kind + 1]):
            mean, scale = expect(found, plan, model, channel, kind, at)
            table, base, sign, shift = context(mean, scale)
            integer = integers[plan.places[at]]
            for index, feature in enumerate(scale_features(found, plan, channel, at)):
                traced.features[at, index] = feature
            distance = coder.distance_of(integer, base, sign, shift)
            traced.means[at], traced.tables[at], traced.distances[at], traced.shifts[at] = mean, table, distance, shift
            traced.symbols[at] = coder.symbol_of(distance)
            put(found, channel, plan.places[at], integer, mean)
