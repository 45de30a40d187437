# SPDX-License-Identifier: Apache-2.0
"""From pixels to latents and back, in this process; start at `load_autoencoder`.

Names are imported when they are first used, so that the modules without torch stay light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentwire_codec.images.files import ImageLimits, read_image, write_image
    from latentwire_codec.lat.images import compress, decompress
    from latentwire_codec.lat.optimise import LatentOptimisation
    from latentwire_codec.lat.payload import compress_latents, decompress_latents
    from latentwire_codec.load import load_autoencoder
    from latentwire_codec.networks.latent_vae import LatentVAE
    from latentwire_codec.networks.pipeline_vae import AutoencoderLatentVAE, AutoencoderVectorVAE
    from latentwire_codec.networks.vector_vae import VectorVAE
    from latentwire_codec.runtime.autoencoder import Autoencoder
    from latentwire_codec.runtime.posterior import Posterior
    from latentwire_codec.runtime.spec import AutoencoderSpec
    from latentwire_core.formats import ImageFormat

__all__ = [
    "Autoencoder",
    "AutoencoderLatentVAE",
    "AutoencoderSpec",
    "AutoencoderVectorVAE",
    "ImageFormat",
    "ImageLimits",
    "LatentOptimisation",
    "LatentVAE",
    "Posterior",
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
    "Autoencoder": "latentwire_codec.runtime.autoencoder",
    "AutoencoderLatentVAE": "latentwire_codec.networks.pipeline_vae",
    "AutoencoderSpec": "latentwire_codec.runtime.spec",
    "AutoencoderVectorVAE": "latentwire_codec.networks.pipeline_vae",
    "ImageFormat": "latentwire_core.formats",
    "ImageLimits": "latentwire_codec.images.files",
    "LatentVAE": "latentwire_codec.networks.latent_vae",
    "Posterior": "latentwire_codec.runtime.posterior",
    "LatentOptimisation": "latentwire_codec.lat.optimise",
    "VectorVAE": "latentwire_codec.networks.vector_vae",
    "compress": "latentwire_codec.lat.images",
    "compress_latents": "latentwire_codec.lat.payload",
    "decompress": "latentwire_codec.lat.images",
    "decompress_latents": "latentwire_codec.lat.payload",
    "load_autoencoder": "latentwire_codec.load",
    "read_image": "latentwire_codec.images.files",
    "write_image": "latentwire_codec.images.files",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
