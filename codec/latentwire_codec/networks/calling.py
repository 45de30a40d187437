# SPDX-License-Identifier: Apache-2.0
"""The classes of VAEs that run here, and how each is called: images -> mean and logvar, latents -> images.

In diffusers an encoder returns `latent_dist`, `latents` or `latent`, and video VAEs want a time axis.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Call = Callable[[Any, Tensor], tuple[Tensor, ...]]
"""Maps a network and an input batch to output batches; the network is Any: each VAE class has its own methods."""


@dataclass(frozen=True)
class Calling:
    """How one class is called.

    Attributes:
        encode: maps images (B,3,H,W) to mean and logvar, or to the latents alone where there is no logvar; (B,C,h,w)
            each.
        decode: maps raw latents (B,C,h,w) to images (B,3,H,W).
    """

    encode: Call
    decode: Call


def _encode_gaussian(module: Any, images: Tensor) -> tuple[Tensor, ...]:
    posterior = module.encode(images).latent_dist
    return posterior.mean, posterior.logvar


def _encode_frame(module: Any, images: Tensor) -> tuple[Tensor, ...]:
    return tuple(moment.squeeze(2) for moment in _encode_gaussian(module, images.unsqueeze(2)))


def _decode(module: Any, latents: Tensor) -> tuple[Tensor, ...]:
    return (module.decode(latents).sample,)


def _decode_frame(module: Any, latents: Tensor) -> tuple[Tensor, ...]:
    return (module.decode(latents.unsqueeze(2)).sample.squeeze(2),)


GAUSSIAN = Calling(_encode_gaussian, _decode)
FRAME = Calling(_encode_frame, _decode_frame)
CALLINGS: Mapping[str, Calling] = {
    "AutoencoderLatentVAE": GAUSSIAN,
    "AutoencoderVectorVAE": GAUSSIAN,
    "AutoencoderKL": GAUSSIAN,
    "AsymmetricAutoencoderKL": GAUSSIAN,
    "AutoencoderKLFlux2": GAUSSIAN,
    "AutoencoderTiny": Calling(lambda module, images: (module.encode(images).latents,), _decode),
    "AutoencoderDC": Calling(lambda module, images: (module.encode(images).latent,), _decode),
    "AutoencoderKLQwenImage": FRAME,
    "AutoencoderKLWan": FRAME,
}
"""How each class is called, by its name; any other class is refused."""


def image_channels(config: Mapping[str, Any]) -> tuple[int, int]:
    """Map the configuration of a class to the channels of its input images and of its output images."""
    n_in = config.get("in_channels", config.get("input_channels", 3))
    n_out = config.get("out_channels", n_in)
    # Wan 2.2 counts the channels after it has folded patches of this side into them. FLUX.2's pair is about latents.
    patch = config.get("patch_size")
    area = patch * patch if isinstance(patch, int) else 1
    return n_in // area, n_out // area
