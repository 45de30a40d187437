# SPDX-License-Identifier: Apache-2.0
"""The source of a VAE -> a model that frames, encodes and decodes images as the codec does."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from latentwire_codec.images import pixels
from latentwire_codec.images.geometry import Pixels, crop, pad_to_multiple, resize_to_cover
from latentwire_codec.lat.images import optimise_latents
from latentwire_codec.lat.optimise import LatentOptimisation
from latentwire_codec.lat.payload import Provenance, compress_latents
from latentwire_codec.load import load_autoencoder
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_core.formats import model_name

Latents = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """Where a VAE comes from, and how it runs."""

    source: str  # what `load_autoencoder` takes
    device: str = "auto"  # likewise
    dtype: str = "auto"  # likewise

    @property
    def name(self) -> str:
        """Return the model's name in payloads and reports."""
        return model_name(self.source)

    def load(self) -> "Model":
        """Load the model; raises ModelError."""
        return Model(self.name, load_autoencoder(self.source, device=self.device, dtype=self.dtype))


@dataclass(frozen=True)
class Model:
    """A loaded VAE and its name."""

    name: str
    autoencoder: Autoencoder

    @cached_property
    def description(self) -> dict[str, Any]:
        """What a report tells about the model: all that the bytes of its payloads depend on, and more."""
        spec = self.autoencoder.spec
        return {
            "name": self.name,
            "class": spec.class_name,
            "latent_space": spec.latent_space,
            "weights_digest": spec.weights_digest,
            "config": dict(spec.config),
            "latent_units": spec.latent_units,
            "channels": spec.latent_channels,
            "factor": spec.downsample_factor,
            "parameters": spec.parameters,
            "device": spec.device,
            "dtype": spec.dtype,
        }

    def frame(self, image: Pixels) -> Pixels:
        """Map an image to the one size that the model takes; return it as it is where the model takes all sizes."""
        if self.autoencoder.spec.fixed_size is None:
            return image
        height, width = self.autoencoder.spec.fixed_size
        return resize_to_cover(image, width, height)

    def origin(self, image: Pixels) -> Provenance:
        """Return what `compress` writes into a payload of a framed image."""
        spec = self.autoencoder.spec
        return Provenance(self.name, spec.latent_space, spec.weights_digest, (image.shape[0], image.shape[1]))

    def encode(self, image: Pixels) -> Latents:
        """Map a framed image to its raw latents, float32 (C,h,w): the mode of the posterior."""
        padded = pad_to_multiple(image, self.autoencoder.spec.downsample_factor)
        batch = pixels.to_float(torch.from_numpy(padded).unsqueeze(0))
        latents: Latents = self.autoencoder.encode(batch).mode()[0].numpy()
        return latents

    def compress(
        self,
        image: Pixels,
        latents: npt.NDArray[np.floating],
        quality: str | float,
        refinement: LatentOptimisation | None = None,
    ) -> bytes:
        """Map a framed image and its latents to the `.lat` payload that `latentwire_codec.compress` makes of it."""
        units = self.autoencoder.spec.latent_units
        if refinement is not None:
            encoded = torch.from_numpy(latents).unsqueeze(0)
            original = pixels.to_float(torch.tensor(image).unsqueeze(0))
            latents, units = optimise_latents(encoded, original, quality, refinement, model=self.autoencoder)
        return compress_latents(latents, quality, units=units, provenance=self.origin(image))

    def decode(self, latents: npt.NDArray[np.floating], image: Pixels) -> Pixels:
        """Map latents (C,h,w) to an image of the size of `image`."""
        batch = torch.from_numpy(latents.astype(np.float32)).unsqueeze(0)
        return crop(self.autoencoder.decode(batch, pixels.to_uint8)[0].numpy(), *image.shape[:2])
