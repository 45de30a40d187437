# SPDX-License-Identifier: Apache-2.0
"""Latents of any VAE <-> `.lat` payloads; needs no model and no torch.

payload = compress_latents(latents, quality="high")
latents, header = decompress_latents(payload)
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from latentwire_codec.lat import coder, exact
from latentwire_codec.lat.quantizer import Steps, dequantize, quantize, round_to
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.tables import Tables, common_tables
from latentwire_codec.lat.traversal import shape_of
from latentwire_core import container
from latentwire_core.container import MAX_VALUES, Header, PayloadKind, Sections
from latentwire_core.errors import Malformed, NonFiniteError, TensorError, UnsupportedVersion
from latentwire_core.quality import LOSSLESS, step_multiple

Latents = npt.NDArray[np.floating[Any]]

SMALLEST_UNIT = 2.0**-20
"""The unit of a channel where all latents are close to 0."""
FEW_PLACES, MANY_PLACES = 4, 1 << 10
"""A channel with few places loses more by 9 bytes of weights than it saves; with many it surely does not."""


@dataclass(frozen=True)
class Provenance:
    """What a payload says of where its latents come from; see `container.Header`."""

    model: str = ""
    latent_space: str = ""
    weights_digest: str = ""
    image_size: tuple[int, int] = (0, 0)


def compress_latents(
    latents: Latents,
    quality: str | float = "cache",
    *,
    units: tuple[float, ...] | None = None,
    provenance: Provenance = Provenance(),
    tables: Tables | None = None,
) -> bytes:
    """Map one image's latents to a `.lat` payload.

    Args:
        latents: float (C,h,w), raw, finite; float16 for `lossless`.
        quality: a name in `quality.NAMES`, or a step in units: smaller is better.
        units: of each channel, the step of quality 1.0, such as `AutoencoderSpec.latent_units`; None: the standard
            deviation of each channel of these latents, or of them all where a channel has one place.
        provenance: where the latents come from; the payload says so.
        tables: the statistics that the entropy coder uses, to measure others; None: the ones of this package. Only a
            reader with the same tables can decode the payload.

    Raises:
        TensorError: shape, dtype, values, units or quality cannot be coded.
        NonFiniteError: a latent is NaN or infinite.
    """
    if latents.ndim != 3 or 0 in latents.shape:
        raise TensorError(f"latents have the shape {latents.shape}; (C, h, w) of one image is needed")
    if not np.isfinite(latents).all():
        raise NonFiniteError("a latent is NaN or infinite; only finite latents can be coded")
    tables = tables or common_tables()
    multiple = step_multiple(quality)
    remainders = b""
    if multiple is None:
        nearest, steps, remainders = exact.split(latents.astype(latents.dtype.newbyteorder("=")))
    else:
        steps = Steps.nearest(np.array(units_for(latents, units)) * multiple)
        nearest = round_to(latents, steps)
    header = Header(
        **asdict(provenance),
        kind=PayloadKind.FLOAT16 if multiple is None else PayloadKind.QUANTIZED,
        shape=shape_of(latents),
        table_id=tables.table_id,
        exponent=steps.exponent,
        numerators=steps.numerators,
        reconstruction_offset=0,
    )
    payloads = []
    for shared in _sharing(len(nearest), nearest[0].size):
        side_information = SideInformation.fit(nearest, shared=shared)
        model = tables.context_model(side_information)
        if multiple is None:
            coded, offset = coder.encode(nearest, model), 0
        else:
            chosen, offset = quantize(latents, steps, model)
            coded = chosen.coded
        sections = Sections(side_information.to_bytes(), coded.symbols, coded.escapes, coded.low_bits, remainders)
        payloads.append(container.pack(replace(header, reconstruction_offset=offset), sections))
    return min(payloads, key=len)


def decompress_latents(
    payload: bytes, max_values: int = MAX_VALUES, *, tables: Tables | None = None
) -> tuple[Latents, Header]:
    """Map a `.lat` payload to the latents of one image and its header.

    Args:
        payload: a whole `.lat` file.
        max_values: latents that are allowed; decoding takes at most about 155 bytes of memory for each, and 10 MiB.
        tables: the ones that the payload was coded with; None: the ones of this package.

    Returns:
        (C,h,w): float32, the same on every machine; float16, bit for bit, where it is lossless.

    Raises:
        BitstreamError: it is no `.lat` payload as it was written, or was coded with other tables.
    """
    header, sections = container.unpack(payload, max_values)
    tables = tables or common_tables()
    if header.table_id != tables.table_id:
        raise UnsupportedVersion(
            f"the payload was coded with tables {header.table_id:08x}; this release has {tables.table_id:08x}"
        )
    steps = Steps(header.numerators, header.exponent)
    side_information = SideInformation.from_bytes(sections.weights, header.shape[0])
    coded = coder.Coded(sections.symbols, sections.escapes, sections.low_bits)
    integers, means = coder.decode(coded, header.shape, tables.context_model(side_information))
    if header.kind is PayloadKind.FLOAT16:
        return exact.join(integers, steps, sections.remainders), header
    if sections.remainders:
        raise Malformed("quantized latents have remainders")
    return dequantize(integers, means, steps, header.reconstruction_offset), header


def warm_up() -> None:
    """Compile what the first payloads of a process would wait for: seconds, unless an earlier process kept it."""
    for quality in ("cache", LOSSLESS):
        decompress_latents(compress_latents(np.zeros((1, 1, 1), np.float16), quality))


def units_for(latents: Latents, units: tuple[float, ...] | None) -> tuple[float, ...]:
    """Return the unit of each channel: the given ones, or for None the standard deviations of latents (C,h,w).

    Raises:
        TensorError: there is not one positive number for each channel.
    """
    if units is None:
        values = latents.astype(np.float64)
        # A single place has no spread; a vector's unit is the spread of all its numbers.
        spread = values.std(axis=(1, 2)) if values[0].size > 1 else np.full(len(values), values.std())
        # A channel that is constant, or nearly so, has few enough steps to be coded.
        least = np.maximum(float(spread.max()), np.abs(values).max(axis=(1, 2)) / 4) * 2.0**-10
        return tuple(np.maximum(np.maximum(spread, least), SMALLEST_UNIT).tolist())
    if len(units) != len(latents) or not all(0 < unit < float("inf") for unit in units):
        raise TensorError(f"the units are {units}; {len(latents)} positive numbers are needed, one for each channel")
    return units


def _sharing(channels: int, places: int) -> tuple[bool, ...]:
    """Return whether the channels share their weights; both answers where either may take fewer bytes."""
    if channels == 1 or places > MANY_PLACES:
        return (False,)
    return (True,) if places <= FEW_PLACES else (False, True)
