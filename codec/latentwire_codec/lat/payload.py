# SPDX-License-Identifier: Apache-2.0
"""Images, or latents of any VAE <-> `.lat` payloads.

    from latentwire_codec import compress, decompress, read_image

    payload = compress(read_image(Path("photo.jpg").read_bytes()), quality="high")
    image = decompress(payload)

`compress_latents` and `decompress_latents` need no model and no torch. `optimise_latents` fits latents to their image.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latentwire_codec.checkpoints.model_name import model_name
from latentwire_codec.lat import coder, exact
from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.quantizer import dequantize, quantize, round_to
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.steps import Steps
from latentwire_codec.lat.tables import common_tables
from latentwire_core import container
from latentwire_core.container import MAX_VALUES, Header, PayloadKind, Sections
from latentwire_core.errors import Malformed, NonFiniteError, TensorError, UnsupportedVersion
from latentwire_core.quality import LOSSLESS, step_multiple

if TYPE_CHECKING:
    from torch import Tensor

    from latentwire_codec.lat.optimise import LatentOptimisation
    from latentwire_codec.runtime.autoencoder import Autoencoder

Latents = npt.NDArray[np.floating[Any]]
Pixels = npt.NDArray[np.uint8]

SMALLEST_UNIT = 2.0**-20
"""Where all latents are close to 0."""
FEW_PLACES, MANY_PLACES = 4, 1 << 10
"""Of a channel with few, 9 bytes of weights are more than they save; with many they surely are not."""


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
) -> bytes:
    """Map one image's latents to a `.lat` payload.

    Args:
        latents: float (C,h,w), raw, finite; float16 for `lossless`.
        quality: a name in `QUALITIES`, `lossless`, or a step in units: smaller is better.
        units: of each channel, the step of quality 1.0, such as `AutoencoderSpec.latent_units`; None: the standard
            deviation of each channel of these latents, or of them all where a channel has one place.
        provenance: what the payload shall say of where they come from.

    Raises:
        TensorError: shape, dtype, values, units or quality are not what is needed.
        NonFiniteError: a latent is NaN or infinite.
    """
    if latents.ndim != 3 or 0 in latents.shape:
        raise TensorError(f"latents have the shape {latents.shape}; (C, h, w) of one image is needed")
    if not np.isfinite(latents).all():
        raise NonFiniteError("a latent is NaN or infinite; only finite ones can be coded")
    multiple = step_multiple(quality)
    remainders = b""
    if multiple is None:
        nearest, steps, remainders = exact.split(latents.astype(latents.dtype.newbyteorder("=")))
    else:
        steps = Steps.nearest(np.array(_units(latents, units)) * multiple)
        nearest = round_to(latents, steps)
    header = Header(
        kind=PayloadKind.FLOAT16 if multiple is None else PayloadKind.QUANTIZED,
        model=provenance.model,
        latent_space=provenance.latent_space,
        weights_digest=provenance.weights_digest,
        image_size=provenance.image_size,
        shape=coder.shape_of(latents),
        table_id=common_tables().table_id,
        exponent=steps.exponent,
        numerators=steps.numerators,
        reconstruction_offset=0,
    )
    choices = [SideInformation.fit(nearest, shared=shared) for shared in _sharing(len(nearest), nearest[0].size)]
    return min((_payload(latents, nearest, header, each, remainders) for each in choices), key=len)


def _payload(
    latents: Latents, nearest: Integers, header: Header, side_information: SideInformation, remainders: bytes
) -> bytes:
    prior = common_tables().context_model(side_information)
    if header.kind is PayloadKind.QUANTIZED:
        traversed, offset = quantize(latents, Steps(header.numerators, header.exponent), prior)
        coded = coder.write(traversed, prior)
    else:
        coded, offset = coder.encode(nearest, prior), 0
    sections = Sections(side_information.to_bytes(), coded.symbols, coded.escapes, coded.low_bits, remainders)
    return container.pack(replace(header, reconstruction_offset=offset), sections)


def decompress_latents(payload: bytes, max_values: int = MAX_VALUES) -> tuple[Latents, Header]:
    """Map a `.lat` payload to the latents of one image and what it says of them.

    Args:
        payload: a whole `.lat` file.
        max_values: latents that are allowed; decoding takes at most about 155 bytes of memory for each, and 10 MiB.

    Returns:
        (C,h,w): float32, the same on every machine; float16, bit for bit, where it is lossless.

    Raises:
        BitstreamError: it is no `.lat` payload as it was written, or needs tables that are not here.
    """
    header, sections = container.unpack(payload, max_values)
    prior = common_tables()
    if header.table_id != prior.table_id:
        raise UnsupportedVersion(
            f"the payload was coded with tables {header.table_id:08x}; this release has {prior.table_id:08x}"
        )
    steps = Steps(header.numerators, header.exponent)
    side_information = SideInformation.from_bytes(sections.weights, header.shape[0])
    coded = coder.Coded(sections.symbols, sections.escapes, sections.low_bits)
    integers, means = coder.decode(coded, header.shape, prior.context_model(side_information))
    if header.kind is PayloadKind.FLOAT16:
        return exact.join(integers, steps, sections.remainders), header
    if sections.remainders:
        raise Malformed("quantized latents have remainders")
    return dequantize(integers, means, steps, header.reconstruction_offset), header


def optimise_latents(
    latents: "Tensor",
    image: "Tensor",
    quality: str | float,
    optimisation: "LatentOptimisation",
    *,
    model: "Autoencoder",
    pause: Callable[[], None] = lambda: None,
) -> tuple[Latents, tuple[float, ...]]:
    """Map latents and their image to those that `compress_latents` turns, at a quality, into a closer image.

    Args:
        latents: float32 (1,C,h,w), raw, as the model encoded them.
        image: float (1,3,H,W) in [-1,1], before padding.
        quality: see `compress_latents`.
        optimisation: how far they are fitted.
        model: that decodes them.
        pause: called again and again, as in `optimise`; what it raises ends it.

    Returns:
        float32 (C,h,w), and the units that `compress_latents` is to take with them.

    Raises:
        TensorError: the quality is none, or lossless: latents that are kept as they are cannot be fitted.
        NonFiniteError: what the latents decode to is not finite.
    """
    from latentwire_codec.lat.optimise import optimise

    multiple = step_multiple(quality)
    if multiple is None:
        raise TensorError("lossless keeps latents as they are; take another quality, or no latent optimisation")
    units = _units(latents[0].numpy(), model.spec.latent_units)
    steps = Steps.nearest(np.array(units) * multiple)
    return optimise(model, image, latents, steps, optimisation, pause), units


def compress(
    image: Pixels,
    *,
    model: "Autoencoder | str" = "f8c4",
    quality: str | float = "cache",
    optimisation: "LatentOptimisation | None" = None,
    name: str = "",
) -> bytes:
    """Map an image to a `.lat` payload.

    Args:
        image: uint8 (H,W,3), RGB, of any size (of a model with a fixed size, that one).
        model: as `load_autoencoder` takes it, or one that is loaded already.
        quality: see `compress_latents`.
        optimisation: how far the latents are fitted to the image, which takes its time; None: they are as encoded.
        name: the model's name in the payload; empty: `model_name` of what it is loaded from, if it is loaded here.

    Raises:
        TensorError: the image is not of the shape or dtype that is needed, or the quality is none.
        NonFiniteError: a latent is NaN or infinite, or above what float16 holds where it is to be lossless.
        ModelError: the model cannot be loaded.
    """
    import torch

    from latentwire_codec.images import pixels
    from latentwire_codec.images.geometry import check_pixels, pad_to_multiple

    check_pixels(image)
    # Torch takes no negative strides, and warns of arrays that cannot be written.
    image = np.require(image, requirements=("C", "W"))
    autoencoder = _loaded(model)
    spec = autoencoder.spec
    padded = pad_to_multiple(image, spec.downsample_factor)
    mode = autoencoder.encode(pixels.to_float(torch.from_numpy(padded).unsqueeze(0))).mode()
    latents, units = mode[0].numpy(), spec.latent_units
    if optimisation is not None:
        original = pixels.to_float(torch.tensor(image).unsqueeze(0))
        latents, units = optimise_latents(mode, original, quality, optimisation, model=autoencoder)
    provenance = Provenance(
        model=name or (model_name(model) if isinstance(model, str) else ""),
        latent_space=spec.latent_space,
        weights_digest=spec.weights_digest,
        image_size=(image.shape[0], image.shape[1]),
    )
    if quality == LOSSLESS:
        with np.errstate(over="ignore"):
            latents = latents.astype(np.float16)
    return compress_latents(latents, quality, units=units, provenance=provenance)


def decompress(payload: bytes, *, model: "Autoencoder | str" = "f8c4") -> Pixels:
    """Map a `.lat` payload to the image, uint8 (H,W,3).

    Args:
        payload: a whole `.lat` file.
        model: the one that made it, as `load_autoencoder` takes it, or loaded already.

    Raises:
        BitstreamError: it is no `.lat` payload as it was written.
        LatentSpaceMismatch: it is of another latent space than the model's.
        TensorError: its latents are not of the model's shape.
        ModelError: the model cannot be loaded.
    """
    import torch

    from latentwire_codec.images import pixels
    from latentwire_codec.images.geometry import crop

    latents, header = decompress_latents(payload)
    autoencoder = _loaded(model)
    autoencoder.check_latent_space(header, header.model)
    decoded = autoencoder.decode(torch.from_numpy(latents.astype(np.float32)).unsqueeze(0), pixels.to_uint8)[0].numpy()
    if header.image_size == (0, 0):
        return decoded
    if any(wanted > there for wanted, there in zip(header.image_size, decoded.shape[:2], strict=True)):
        raise Malformed(f"the image is {header.image_size}, larger than what its latents decode to")
    return crop(decoded, *header.image_size)


def _sharing(channels: int, places: int) -> tuple[bool, ...]:
    """Return whether the channels share their weights: both ways where either may take fewer bytes."""
    if channels == 1 or places > MANY_PLACES:
        return (False,)
    return (True,) if places <= FEW_PLACES else (False, True)


def _units(latents: Latents, units: tuple[float, ...] | None) -> tuple[float, ...]:
    if units is None:
        values = latents.astype(np.float64)
        # A single place has no spread: that of a vector is that of all its numbers.
        spread = values.std(axis=(1, 2)) if values[0].size > 1 else np.full(len(values), values.std())
        # A channel that is constant, or nearly so, has few enough steps to be coded.
        least = np.maximum(float(spread.max()), np.abs(values).max(axis=(1, 2)) / 4) * 2.0**-10
        return tuple(np.maximum(np.maximum(spread, least), SMALLEST_UNIT).tolist())
    if len(units) != len(latents) or not all(0 < unit < float("inf") for unit in units):
        raise TensorError(f"the units are {units}; {len(latents)} positive numbers are needed, one for each channel")
    return units


def _loaded(model: "Autoencoder | str") -> "Autoencoder":
    from latentwire_codec.load import load_autoencoder

    return load_autoencoder(model) if isinstance(model, str) else model
