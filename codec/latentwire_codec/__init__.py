# SPDX-License-Identifier: Apache-2.0
"""Pixels <-> latents <-> bytes, in this process; start at `load_autoencoder`, or at `compress`.

    from latentwire_codec import compress, decompress, load_autoencoder, read_image

    model = load_autoencoder("f8c4")
    payload = compress(read_image(Path("photo.jpg").read_bytes()), model=model)
    image = decompress(payload, model=model)

Every error is a `CodecError`. Names that may load torch are imported at their first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latentwire_core.errors import (
    BitstreamError,
    CheckpointError,
    ChecksumMismatch,
    CodecError,
    ImageError,
    ImageTooLarge,
    LatentSpaceMismatch,
    Malformed,
    ModelError,
    NonFiniteError,
    TensorError,
    TensorTooLarge,
    TrailingBytes,
    Truncated,
    UnknownModel,
    UnsupportedVersion,
)
from latentwire_core.formats import ImageFormat

if TYPE_CHECKING:
    from latentwire_codec.images.files import ImageLimits, read_image
    from latentwire_codec.images.writing import write_image
    from latentwire_codec.lat.images import compress, decompress, optimise_latents
    from latentwire_codec.lat.optimise import LatentOptimisation
    from latentwire_codec.lat.payload import Provenance, compress_latents, decompress_latents
    from latentwire_codec.load import load_autoencoder
    from latentwire_codec.networks.latent_vae import LatentVAE
    from latentwire_codec.networks.pipeline_vae import AutoencoderLatentVAE, AutoencoderVectorVAE
    from latentwire_codec.networks.vector_vae import VectorVAE
    from latentwire_codec.runtime.autoencoder import Autoencoder
    from latentwire_codec.runtime.posterior import Posterior
    from latentwire_codec.runtime.spec import AutoencoderSpec

_NAMES = {
    "latentwire_codec.images.files": ("ImageLimits", "read_image", "write_image"),
    "latentwire_codec.lat.images": ("compress", "decompress", "optimise_latents"),
    "latentwire_codec.lat.optimise": ("LatentOptimisation",),
    "latentwire_codec.lat.payload": ("Provenance", "compress_latents", "decompress_latents"),
    "latentwire_codec.load": ("load_autoencoder",),
    "latentwire_codec.networks.latent_vae": ("LatentVAE",),
    "latentwire_codec.networks.pipeline_vae": ("AutoencoderLatentVAE", "AutoencoderVectorVAE"),
    "latentwire_codec.networks.vector_vae": ("VectorVAE",),
    "latentwire_codec.runtime.autoencoder": ("Autoencoder",),
    "latentwire_codec.runtime.posterior": ("Posterior",),
    "latentwire_codec.runtime.spec": ("AutoencoderSpec",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

# fmt: off
__all__ = [
    "Autoencoder", "AutoencoderLatentVAE", "AutoencoderSpec", "AutoencoderVectorVAE", "BitstreamError",
    "CheckpointError", "ChecksumMismatch", "CodecError", "ImageError", "ImageFormat", "ImageLimits", "ImageTooLarge",
    "LatentOptimisation", "LatentSpaceMismatch", "LatentVAE", "Malformed", "ModelError", "NonFiniteError", "Posterior",
    "Provenance", "TensorError", "TensorTooLarge", "TrailingBytes", "Truncated", "UnknownModel", "UnsupportedVersion",
    "VectorVAE", "compress", "compress_latents", "decompress", "decompress_latents", "load_autoencoder",
    "optimise_latents", "read_image", "write_image",
]
# fmt: on


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
