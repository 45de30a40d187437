# SPDX-License-Identifier: Apache-2.0
"""One face for every image VAE: float images <-> raw latents, and raw <-> scaled latents.

Latents are raw everywhere but in `to_scaled` and `to_raw`; no other module knows a scaling factor.
"""

import math
from collections.abc import Callable, Mapping, Sequence
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
        latent_space: the identity of its latents (`latentwire-f8c4@3`); empty where it has none.
        weights_digest: SHA-256 over its tensors, 64 hex digits.
        file_sha256: SHA-256 of its weights file where it is a single one, else empty.
        latent_channels: C, derived from the network.
        downsample_factor: f, derived from the network; the side of the image where the latents are one vector.
        fixed_size: the only image size (height, width) that the network takes; None: any multiple of f.
        scale: 1 or C numbers; scaled = (raw - shift) * scale.
        shift: 1 or C numbers.
        latent_units: C numbers: the rounding steps at which an error in any channel costs as much in the decoded image,
            about its standard deviation; None: not measured.
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
    fixed_size: tuple[int, int] | None
    scale: tuple[float, ...]
    shift: tuple[float, ...]
    latent_units: tuple[float, ...] | None
    parameters: int
    device: str
    dtype: str

    def check_images(self, height: int, width: int) -> None:
        """Refuse a size of raw images, in pixels, that the network does not take.

        Raises:
            TensorError: it is not the fixed size, or a side is no multiple of f.
        """
        f, fixed = self.downsample_factor, self.fixed_size
        if fixed is None:
            fits = min(height, width) > 0 and not height % f and not width % f
            wanted = f"each side must be a multiple of {f}"
        else:
            fits, wanted = (height, width) == fixed, f"this model takes {fixed[1]}x{fixed[0]} only"
        if not fits:
            raise TensorError(f"image tensor is {width}x{height}; {wanted} (an image file may have any size)")

    def check_latents(self, shape: tuple[int, ...]) -> None:
        """Refuse a shape of latents that the network does not take.

        Raises:
            TensorError: it is not (B,C,h,w), or h and w are not those of the fixed size.
        """
        fits, sides = len(shape) == 4 and shape[1] == self.latent_channels and min(shape) > 0, "h, w"
        if self.fixed_size is not None:
            height, width = (side // self.downsample_factor for side in self.fixed_size)
            fits, sides = fits and shape[2:] == (height, width), f"{height}, {width}"
        if not fits:
            wanted = f"(B, {self.latent_channels}, {sides}) is needed, each at least 1"
            raise TensorError(f"latents have the shape {tuple(shape)}; {wanted}")


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
        fixed_size = getattr(checkpoint.module, "fixed_size", None)
        probe = torch.zeros(1, 3, *(fixed_size or (PROBE_SIDE, PROBE_SIDE)))
        latents = self._runtime.run(_mode, probe)[0]
        scale, shift = _scaling(checkpoint.config, latents.shape[1])
        self.spec = AutoencoderSpec(
            class_name=checkpoint.class_name,
            config=checkpoint.config,
            latent_space=checkpoint.latent_space,
            weights_digest=checkpoint.weights_digest,
            file_sha256=checkpoint.file_sha256,
            latent_channels=latents.shape[1],
            downsample_factor=probe.shape[2] // latents.shape[2],
            fixed_size=fixed_size,
            scale=scale,
            shift=shift,
            latent_units=_units(checkpoint.latent_units, latents.shape[1]),
            parameters=sum(parameter.numel() for parameter in checkpoint.module.parameters()),
            device=str(placement.device),
            dtype=DTYPE_NAMES[placement.dtype],
        )

    def encode(self, images: Tensor, on_retry: Callable[[list[int]], None] | None = None) -> Posterior:
        """Map images to the posterior of their latents.

        Args:
            images: float (B,3,H,W) in [-1,1], finite; H and W as `spec.check_images` wants them.
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
            latents: float (B,C,h,w), raw, finite; of a shape as `spec.check_latents` wants it.
            finish: applied to the images on the device before they are copied to the CPU, such as `pixels.to_uint8`.
            on_retry: told the indices of the latents that were computed again in float32.

        Returns:
            float32 (B,3,h*f,w*f), about [-1,1] and not clamped, through `finish`; on the CPU.

        Raises:
            TensorError: the shape is wrong.
            NonFiniteError: the output is not finite even in float32.
        """
        self.spec.check_latents(latents.shape)
        (images,) = self._runtime.run(_decode, latents, on_retry)
        return finish(images).cpu()

    def to_scaled(self, raw: Tensor) -> Tensor:
        """Map raw latents (B,C,h,w) to what a diffusion model works on: (raw - shift) * scale."""
        self.spec.check_latents(raw.shape)
        return (raw - _per_channel(self.spec.shift)) * _per_channel(self.spec.scale)

    def to_raw(self, scaled: Tensor) -> Tensor:
        """Map scaled latents (B,C,h,w) to raw ones: scaled / scale + shift."""
        self.spec.check_latents(scaled.shape)
        return scaled / _per_channel(self.spec.scale) + _per_channel(self.spec.shift)

    def check_latent_space(self, latent_space: str, weights_digest: str = "") -> None:
        """Refuse latents of another space; those of unknown origin are let through.

        Names decide. Where one has none, the weights stand for the space: they must be the same.

        Args:
            latent_space: the name of the latents' space; empty: unnamed or unknown.
            weights_digest: of the weights that made them, or how it begins; empty: unknown.

        Raises:
            LatentSpaceMismatch: the latents come from elsewhere, by name or by weights.
        """
        ours = self.spec.latent_space
        if latent_space and ours:
            fits = latent_space == ours
        elif weights_digest:
            fits = self.spec.weights_digest.startswith(weights_digest)
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
        if images.ndim != 4 or images.shape[1] != 3:
            raise TensorError(f"images have the shape {tuple(images.shape)}; (B, 3, H, W) is needed")
        self.spec.check_images(*images.shape[2:])


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


def _units(units: Sequence[float] | None, channels: int) -> tuple[float, ...] | None:
    if units is None:
        return None
    if len(units) != channels or not all(math.isfinite(unit) and unit > 0 for unit in units):
        raise CheckpointError(f"latent_units in config.json are {list(units)}; {channels} positive numbers are needed")
    return tuple(units)


def _per_channel(numbers: tuple[float, ...]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32).view(1, -1, 1, 1)
