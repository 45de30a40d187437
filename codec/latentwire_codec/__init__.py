# SPDX-License-Identifier: Apache-2.0
"""From pixels to latents and back, in this process; start at `load_autoencoder`.

Names are imported when they are first used, so that the modules without torch stay light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentwire_codec.autoencoder import Autoencoder, AutoencoderSpec, load_autoencoder
    from latentwire_codec.codec import compress, compress_latents, decompress, decompress_latents
    from latentwire_codec.images import ImageFormat, ImageLimits, read_image, write_image
    from latentwire_codec.latent_vae import LatentVAE
    from latentwire_codec.pipeline_vae import AutoencoderLatentVAE, AutoencoderVectorVAE
    from latentwire_codec.posterior import Posterior
    from latentwire_codec.refinement import Refinement
    from latentwire_codec.vector_vae import VectorVAE

__all__ = [
    "Autoencoder",
    "AutoencoderLatentVAE",
    "AutoencoderSpec",
    "AutoencoderVectorVAE",
    "ImageFormat",
    "ImageLimits",
    "LatentVAE",
    "Posterior",
    "Refinement",
    "VectorVAE",
    "compress",
    "compress_latents",
    "decompress",
    "decompress_latents",
    "load_autoencoder",
    "read_image",
    "write_image",
]

_HOMES = {
    "Autoencoder": "autoencoder",
    "AutoencoderLatentVAE": "pipeline_vae",
    "AutoencoderSpec": "autoencoder",
    "AutoencoderVectorVAE": "pipeline_vae",
    "ImageFormat": "images",
    "ImageLimits": "images",
    "LatentVAE": "latent_vae",
    "Posterior": "posterior",
    "Refinement": "refinement",
    "VectorVAE": "vector_vae",
    "compress": "codec",
    "compress_latents": "codec",
    "decompress": "codec",
    "decompress_latents": "codec",
    "load_autoencoder": "autoencoder",
    "read_image": "images",
    "write_image": "images",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
