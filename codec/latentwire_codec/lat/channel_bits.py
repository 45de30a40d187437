# SPDX-License-Identifier: Apache-2.0
"""A `.lat` payload -> the bits that each of its channels takes."""

import numpy as np
import numpy.typing as npt

from latentwire_codec.lat import coder
from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.context import ESCAPE, FREQUENCY_BITS, LARGEST, contexts
from latentwire_codec.lat.payload import decompress_latents
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.tables import common_tables
from latentwire_codec.lat.traversal import Phase, symbols, traverse
from latentwire_core.container import unpack


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
    reader = coder.Reader(coder.Coded(sections.symbols, sections.escapes, sections.low_bits), model)
    costs = FREQUENCY_BITS - np.log2(model.frequencies)
    bits = np.zeros(header.shape[0])

    def choose(channel: int, phase: Phase, mean: Integers, scale: Integers) -> Integers:
        context = contexts(mean, scale)
        integers = reader.read(context)
        found, differences = symbols(integers, context)
        beyond = np.abs(differences[found == ESCAPE]) - LARGEST - 1
        # An escape is LEB128, 7 bits in a byte: twice the distance beyond the last symbol, and the sign.
        escapes = 8 * np.maximum(np.ceil(np.log2(2 * beyond + 2) / 7), 1)
        bits[channel] += costs[context.table, found].sum() + escapes.sum() + context.shift.sum()
        return integers

    traverse(header.shape, model, choose)
    return bits
