# SPDX-License-Identifier: Apache-2.0
"""One face for every image VAE: float images <-> raw latents, and raw <-> scaled latents.

Latents are raw everywhere but in `to_scaled` and `to_raw`; no other module knows a scaling factor.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentwire_codec.checkpoint import Checkpoint, load_checkpoint
from latentwire_codec.errors import CheckpointError, LatentSpaceMismatch, TensorError
from latentwire_codec.posterior import Posterior
from latentwire_codec.runtime import DTYPE_NAMES, Placement, Runtime

PROBE_SIDE = 64


@dataclass(frozen=True)
class AutoencoderSpec:
    """What a VAE is, as far as its callers need to know.

    Attributes:
        class_name: the class of its network, such as `AutoencoderKL`.
        config: the configuration of that class.
        latent_space: the identity of its latents (`latentwire-f8c4@1`); empty where it has none.
        weights_digest: SHA-256 over its tensors, 64 hex digits.
        file_sha256: SHA-256 of its weights file where it is a single one, else empty.
        latent_channels: C, derived from the network.
        downsample_factor: f, derived from the network.
        scale: 1 or C numbers; scaled = (raw - shift) * scale.
        shift: 1 or C numbers.
        parameters: number of parameters.
        device: where it runs.
        dtype: what it computes in, `float32`, `bfloat16` or `float16`.
    """

    class_name: str
    config: Mapping[str, Any]
    latent_space: str
    weights_digest: str
    file_sha256: str
    latent_channels: int
    downsample_factor: int
    scale: tuple[float, ...]
    shift: tuple[float, ...]
    parameters: int
    device: str
    dtype: str


def load_autoencoder(source: str = "f8c4", *, device: str = "auto", dtype: str = "auto") -> "Autoencoder":
    """Map a source (see `load_checkpoint`) to a VAE that is ready to run.

    Args:
        source: a bundled name, a diffusers folder, or a hub id in the local cache.
        device: see `Placement.choose`.
        dtype: see `Placement.choose`.

    Raises:
        ModelError: the source, the device or the dtype cannot be used.
    """
    return Autoencoder(load_checkpoint(source), Placement.choose(device, dtype))


class Autoencoder:
    """A VAE at work: float images (B,3,H,W) in [-1,1] <-> raw latents (B,C,H/f,W/f).

    Results are float32, finite, and on the CPU; an image's result does not depend on the rest of its batch (bitwise
    on a CPU, within rounding on a GPU).
    """

    def __init__(self, checkpoint: Checkpoint, placement: Placement) -> None:
        self._runtime = Runtime(checkpoint.module, placement)
        n_in, n_out = (checkpoint.config.get(key, 3) for key in ("in_channels", "out_channels"))
        if (n_in, n_out) != (3, 3):
            raise CheckpointError(f"the {checkpoint.class_name} takes {n_in} channels and gives {n_out}; images have 3")
        probe = torch.zeros(1, 3, PROBE_SIDE, PROBE_SIDE)
        latents = self._runtime.run(_mode, probe)[0]
        scale, shift = _scaling(checkpoint.config, latents.shape[1])
        self.spec = AutoencoderSpec(
            class_name=checkpoint.class_name,
            config=checkpoint.config,
            latent_space=checkpoint.latent_space,
            weights_digest=checkpoint.weights_digest,
            file_sha256=checkpoint.file_sha256,
            latent_channels=latents.shape[1],
            downsample_factor=PROBE_SIDE // latents.shape[2],
            scale=scale,
            shift=shift,
            parameters=sum(parameter.numel() for parameter in checkpoint.module.parameters()),
            device=str(placement.device),
            dtype=DTYPE_NAMES[placement.dtype],
        )

    def encode(self, images: Tensor, on_retry: Callable[[list[int]], None] | None = None) -> Posterior:
        """Map images to the posterior of their latents.

        Args:
            images: float (B,3,H,W) in [-1,1], finite; H and W multiples of `spec.downsample_factor`.
            on_retry: told the indices of the images that were computed again in float32.

        Returns:
            mean and logvar, each float32 (B,C,H/f,W/f), raw, on the CPU.

        Raises:
            TensorError: the shape is wrong.
            NonFiniteError: the output is not finite even in float32.
        """
        self._check_images(images)
        mean, logvar = self._runtime.run(_moments, images, on_retry)
        return Posterior(mean.cpu(), logvar.cpu())

    def decode(
        self,
        latents: Tensor,
        finish: Callable[[Tensor], Tensor] = lambda images: images,
        on_retry: Callable[[list[int]], None] | None = None,
    ) -> Tensor:
        """Map raw latents to images.

        Args:
            latents: float (B,C,h,w), raw, finite.
            finish: applied to the images on the device before they are copied to the CPU, such as `pixels.to_uint8`.
            on_retry: told the indices of the latents that were computed again in float32.

        Returns:
            float32 (B,3,h*f,w*f), about [-1,1] and not clamped, through `finish`; on the CPU.

        Raises:
            TensorError: the shape is wrong.
            NonFiniteError: the output is not finite even in float32.
        """
        self._check_latents(latents)
        (images,) = self._runtime.run(_decode, latents, on_retry)
        return finish(images).cpu()

    def to_scaled(self, raw: Tensor) -> Tensor:
        """Map raw latents (B,C,h,w) to what a diffusion model works on: (raw - shift) * scale."""
        self._check_latents(raw)
        return (raw - _per_channel(self.spec.shift)) * _per_channel(self.spec.scale)

    def to_raw(self, scaled: Tensor) -> Tensor:
        """Map scaled latents (B,C,h,w) to raw ones: scaled / scale + shift."""
        self._check_latents(scaled)
        return scaled / _per_channel(self.spec.scale) + _per_channel(self.spec.shift)

    def check_latent_space(self, latent_space: str, weights_digest: str = "") -> None:
        """Refuse latents of another space; those of unknown origin are let through.

        Names decide. Where one has none, the weights stand for the space: they must be the same.

        Args:
            latent_space: the name of the latents' space; empty: unnamed or unknown.
            weights_digest: of the weights that made them; empty: unknown.

        Raises:
            LatentSpaceMismatch: the latents come from elsewhere, by name or by weights.
        """
        ours = self.spec.latent_space
        if latent_space and ours:
            fits = latent_space == ours
        elif weights_digest:
            fits = weights_digest == self.spec.weights_digest
        else:
            fits = not latent_space
        if not fits:
            theirs = repr(latent_space) if latent_space else f"unnamed, of weights {weights_digest[:12]}"
            raise LatentSpaceMismatch(
                f"the latents' space is {theirs}; the model's is "
                f"{repr(ours) if ours else f'unnamed, of weights {self.spec.weights_digest[:12]}'}; decode them with "
                "the model that made them, or leave their origin empty if you know that they fit"
            )

    def _check_images(self, images: Tensor) -> None:
        f = self.spec.downsample_factor
        if images.ndim != 4 or images.shape[1] != 3:
            raise TensorError(f"images have the shape {tuple(images.shape)}; (B, 3, H, W) is needed")
        height, width = images.shape[2:]
        if not height or not width or height % f or width % f:
            raise TensorError(
                f"image tensor is {width}x{height}; each side must be a multiple of {f} "
                "(an image file may have any size)"
            )

    def _check_latents(self, latents: Tensor) -> None:
        if latents.ndim != 4 or latents.shape[1] != self.spec.latent_channels or not latents.numel():
            raise TensorError(
                f"latents have the shape {tuple(latents.shape)}; "
                f"(B, {self.spec.latent_channels}, h, w) is needed, each at least 1"
            )


def _moments(module: Any, images: Tensor) -> tuple[Tensor, ...]:
    posterior = module.encode(images).latent_dist
    return posterior.mean, posterior.logvar


def _mode(module: Any, images: Tensor) -> tuple[Tensor, ...]:
    return (module.encode(images).latent_dist.mode(),)


def _decode(module: Any, latents: Tensor) -> tuple[Tensor, ...]:
    return (module.decode(latents).sample,)


def _scaling(config: Mapping[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Map a diffusers configuration to scale and shift, each 1 or C numbers.

    Either scaled = (raw - shift_factor) * scaling_factor, or, where per-channel statistics are given,
    scaled = (raw - latents_mean) / latents_std * scaling_factor; as the diffusers pipelines compute it.
    """
    mean, std = config.get("latents_mean"), config.get("latents_std")
    try:
        factor = float(config["scaling_factor"])
        scale: tuple[float, ...] = (factor,)
        shift: tuple[float, ...] = (float(config.get("shift_factor") or 0.0),)
        if mean is not None and std is not None:
            scale, shift = tuple(factor / float(s) for s in std), tuple(map(float, mean))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"the scaling in config.json is not of finite numbers: {error!r}") from error
    if not all(map(math.isfinite, (*scale, *shift))) or 0.0 in scale:
        raise CheckpointError(f"scaling by {scale} after a shift by {shift} cannot be undone")
    if not {len(scale), len(shift)} <= {1, channels}:
        raise CheckpointError(
            f"latents_mean and latents_std have {len(shift)} and {len(scale)} numbers; {channels} are needed"
        )
    return scale, shift


def _per_channel(numbers: tuple[float, ...]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32).view(1, -1, 1, 1)
