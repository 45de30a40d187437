# SPDX-License-Identifier: Apache-2.0
"""A `.lat` payload -> the bits that each of its channels takes."""

import numpy as np
import numpy.typing as npt

from latentwire_codec.lat import coder
from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.context import ESCAPE, FREQUENCY_BITS, LARGEST, contexts
from latentwire_codec.lat.payload import decompress_latents
from latentwire_codec.lat.scan import Phase
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.tables import common_tables
from latentwire_core.container import unpack


def channel_bits(payload: bytes) -> npt.NDArray[np.float64]:
    """Map a payload to the bits of each channel's integers, (C,).

    A symbol counts as -log2 of its probability, which is what the range coder spends on it; low bits and escapes count
    as they are. Together they are the sections symbols, escapes and low_bits, but for a few words that the coder rounds
    up to. Weights, and the remainders of float16 latents, are sections of their own and not counted here.

    Raises:
        BitstreamError: it is no payload that can be decoded.
    """
    decompress_latents(payload)  # it refuses what is no such payload
    header, sections = unpack(payload)
    prior = common_tables().context_model(SideInformation.from_bytes(sections.weights, header.shape[0]))
    reader = coder.Reader(coder.Coded(sections.symbols, sections.escapes, sections.low_bits), prior)
    costs = FREQUENCY_BITS - np.log2(prior.frequencies)
    bits = np.zeros(header.shape[0])

    def choose(channel: int, phase: Phase, mean: Integers, scale: Integers) -> Integers:
        context = contexts(mean, scale)
        integers = reader.read(context)
        symbols, differences = coder.symbols(integers, context)
        beyond = np.abs(differences[symbols == ESCAPE]) - LARGEST - 1
        # LEB128 of twice as much, and the sign: 7 bits in a byte.
        escapes = 8 * np.maximum(np.ceil(np.log2(2 * beyond + 2) / 7), 1)
        bits[channel] += costs[context.table, symbols].sum() + escapes.sum() + context.shift.sum()
        return integers

    coder.traverse(header.shape, prior, choose)
    return bits
