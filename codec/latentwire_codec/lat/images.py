# SPDX-License-Identifier: Apache-2.0
"""Images <-> `.lat` payloads, by a VAE and its latents."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from latentwire_codec.checkpoints.folder import bundled_in, bundled_names
from latentwire_codec.images import pixels
from latentwire_codec.images.geometry import Pixels, check_pixels, crop, pad_to_multiple
from latentwire_codec.lat.optimise import LatentOptimisation, optimise
from latentwire_codec.lat.payload import Latents, Provenance, compress_latents, decompress_latents, units_for
from latentwire_codec.lat.quantizer import Steps
from latentwire_codec.load import load_autoencoder
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_core.container import Header
from latentwire_core.errors import LatentSpaceMismatch, Malformed, TensorError
from latentwire_core.formats import PAYLOAD_MODEL, model_name
from latentwire_core.identity import space_in_words
from latentwire_core.quality import LOSSLESS, step_multiple


def compress(
    image: Pixels,
    *,
    model: Autoencoder | str = PAYLOAD_MODEL,
    quality: str | float = "cache",
    optimisation: LatentOptimisation | None = None,
    name: str = "",
) -> bytes:
    """Map an image to a `.lat` payload.

    Args:
        image: uint8 (H,W,3), RGB, of any size; for a model with a fixed size, of that size.
        model: a source for `load_autoencoder`, or a loaded model; `f8c4` makes payloads of Stable Diffusion's shape.
        quality: see `compress_latents`.
        optimisation: how far the latents are fitted to the image, which takes its time; None: they are as encoded.
        name: the model's name in the payload; empty: `model_name` of the source, if the model is loaded here.

    Raises:
        TensorError: the image has another shape or dtype, or there is no such quality.
        NonFiniteError: a latent is NaN or infinite, or above the largest float16 where the payload is lossless.
        ModelError: the model cannot be loaded.
    """
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


def decompress(payload: bytes, *, model: Autoencoder | str = "") -> Pixels:
    """Map a `.lat` payload to the image, uint8 (H,W,3).

    The model is the one that made the payload: a source for `load_autoencoder`, or a loaded model; empty: the bundled
    model with the payload's latent space.

    Raises:
        BitstreamError: it is no `.lat` payload as it was written.
        LatentSpaceMismatch: its latent space is not the model's, or no bundled model's where no model is given.
        TensorError: its latents do not have the model's shape.
        ModelError: the model cannot be loaded.
    """
    latents, header = decompress_latents(payload)
    autoencoder = _loaded(model or _bundled(header))
    autoencoder.check_latent_space(header, header.model)
    decoded = autoencoder.decode(torch.from_numpy(latents.astype(np.float32)).unsqueeze(0), pixels.to_uint8)[0].numpy()
    if header.image_size == (0, 0):
        return decoded
    if any(wanted > there for wanted, there in zip(header.image_size, decoded.shape[:2], strict=True)):
        raise Malformed(f"the image is {header.image_size}, larger than what its latents decode to")
    return crop(decoded, *header.image_size)


def optimise_latents(
    latents: Tensor,
    image: Tensor,
    quality: str | float,
    optimisation: LatentOptimisation,
    *,
    model: Autoencoder,
    pause: Callable[[], None] = lambda: None,
) -> tuple[Latents, tuple[float, ...]]:
    """Fit latents to their image, so that `compress_latents` at a quality makes a payload that decodes closer to it.

    Args:
        latents: float32 (1,C,h,w), raw, as the model encoded them.
        image: float (1,3,H,W) in [-1,1], before padding.
        quality: see `compress_latents`.
        optimisation: how far they are fitted.
        model: the one that decodes them.
        pause: called again and again, as in `optimise`; an exception from it ends the descent.

    Returns:
        float32 (C,h,w), and the units for `compress_latents`.

    Raises:
        TensorError: there is no such quality, or it is lossless, which keeps latents as they are.
        NonFiniteError: the latents decode to values that are not finite.
    """
    multiple = step_multiple(quality)
    if multiple is None:
        raise TensorError("lossless keeps latents as they are; take another quality, or no latent optimisation")
    units = units_for(latents[0].numpy(), model.spec.latent_units)
    steps = Steps.nearest(np.array(units) * multiple)
    return optimise(model, image, latents, steps, optimisation, pause), units


def _bundled(header: Header) -> str:
    name = bundled_in(header.latent_space)
    if not name:
        raise LatentSpaceMismatch(
            f"the latents' space is {space_in_words(header)}, which no bundled model has "
            f"({', '.join(bundled_names())}); give the model that made them: decompress(payload, model=...)"
        )
    return name


def _loaded(model: Autoencoder | str) -> Autoencoder:
    return load_autoencoder(model) if isinstance(model, str) else model
