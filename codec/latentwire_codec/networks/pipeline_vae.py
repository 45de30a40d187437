# SPDX-License-Identifier: Apache-2.0
"""Our VAEs with the interface of a diffusers VAE: images -> AutoencoderKLOutput, latents -> DecoderOutput.

They load and save in diffusers' format. The networks are `latent_vae.LatentVAE` and `vector_vae.VectorVAE`; the tensors
have the same names in both classes of a pair, so that either loads the other's weights.
"""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import AutoencoderMixin, DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from latentwire_codec.networks import latent_vae, vector_vae


class PipelineVAE(ModelMixin, AutoencoderMixin, ConfigMixin):  # type: ignore[misc]
    """Images (B,3,H,W) in [-1,1] <-> raw latents (B,C,h,w), called as diffusers calls its VAEs.

    A subclass has an `encoder`, which maps images to moments (B,2C,h,w), and a `decoder`, which maps latents to images.
    The configuration of each subclass has these keys beside its own:

        latents_mean: the raw latents' mean, C numbers or None.
        latents_std: the raw latents' standard deviation, C numbers or None.
        scaling_factor: scaled = (raw - latents_mean) / latents_std * scaling_factor.
        shift_factor: None; here because pipelines read it.
        force_upcast: False: half precision is safe.
        latent_space: the identity of its latents, such as `latentwire-f8c4@3`; empty: unnamed.
    """

    _supports_gradient_checkpointing = False

    @apply_forward_hook  # type: ignore[untyped-decorator]
    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[object]:
        """Map images (B,3,H,W) in [-1,1] to the posterior of their latents."""
        posterior = DiagonalGaussianDistribution(self.encoder(x))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    @apply_forward_hook  # type: ignore[untyped-decorator]
    def decode(
        self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[Tensor]:
        """Map raw latents (B,C,h,w) to images (B,3,H,W); `generator` is ignored, diffusers passes it."""
        sample = self.decoder(z)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(
        self,
        sample: Tensor,
        sample_posterior: bool = False,
        return_dict: bool = True,
        generator: torch.Generator | None = None,
    ) -> DecoderOutput | tuple[Tensor]:
        """Reconstruct images (B,3,H,W) through a sample of the posterior or through its mode."""
        posterior = self.encode(sample).latent_dist
        z = posterior.sample(generator=generator) if sample_posterior else posterior.mode()
        return self.decode(z, return_dict=return_dict)


class AutoencoderLatentVAE(PipelineVAE):
    """Images (B,3,H,W), H and W multiples of 8 <-> raw latents (B,C,H/8,W/8); it stands in for a pipeline's `vae`.

    `LatentVAE` explains `latent_channels`, `widths` and the depths; `AutoencoderSpec` explains `latent_units`. The VAE
    was measured on images with sides of `sample_size`, and accepts sides of any multiple of 8. `block_out_channels` is
    derived from `widths`: pipelines compute the downsampling factor from the number of blocks, 2 ** (4 - 1) = 8.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        latent_channels: int = 4,
        widths: Sequence[int] = (48, 96, 192),
        encoder_depths: Sequence[int] = (2, 4),
        decoder_depths: Sequence[int] = (1, 3, 5),
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
        scaling_factor: float = 1.0,
        shift_factor: float | None = None,
        force_upcast: bool = False,
        sample_size: int = 512,
        latent_space: str = "",
        latent_units: Sequence[float] | None = None,
        block_out_channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = latent_vae.Encoder(latent_channels, widths, encoder_depths)
        self.decoder = latent_vae.Decoder(latent_channels, widths, decoder_depths)
        self.register_to_config(block_out_channels=(widths[0], *widths))


class AutoencoderVectorVAE(PipelineVAE):
    """Images (B,3,S,S) of one size S <-> one raw latent vector each, (B,d,1,1).

    `VectorVAE` explains `image_size` (S), `latent_dim` (d = C) and `width`; `sample_size` is derived: S.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        image_size: int = 64,
        latent_dim: int = 64,
        width: int = 32,
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
        scaling_factor: float = 1.0,
        shift_factor: float | None = None,
        force_upcast: bool = False,
        sample_size: int | None = None,
        latent_space: str = "",
    ) -> None:
        super().__init__()
        self.encoder = vector_vae.Encoder(image_size, latent_dim, width)
        self.decoder = vector_vae.Decoder(image_size, latent_dim, width)
        self.register_to_config(sample_size=image_size)

    @property
    def fixed_size(self) -> tuple[int, int]:
        """The only image size that the network takes: (height, width)."""
        return (self.config.image_size, self.config.image_size)
