# SPDX-License-Identifier: Apache-2.0
"""One face for every image VAE: float images <-> raw latents, and raw <-> scaled latents.

Latents are raw everywhere but in `to_scaled` and `to_raw`; no other module knows a scaling factor.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from latentwire_codec.checkpoint import Checkpoint, load_checkpoint
from latentwire_codec.errors import CheckpointError, LatentSpaceMismatch, TensorError
from latentwire_codec.face import FACES, image_channels
from latentwire_codec.posterior import Posterior
from latentwire_codec.probe import warn_of_mix_up
from latentwire_codec.runtime import DTYPE_NAMES, Placement, Runtime
from latentwire_codec.scaling import Numbers
from latentwire_codec.tiling.footprint import Footprint, Half
from latentwire_codec.tiling.tiled import Tiled, Tiling

TRIAL_SIDE = 64
MIB = 2**20


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
        weights_bytes: what the weights take in memory, with the forms that rewrites need, and with the float32 copy
            beside half precision.
        device: where it runs.
        dtype: what it computes in, `float32`, `bfloat16` or `float16`.
        has_logvar: whether its posterior has a log-variance; without one there is the mode only.
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
    weights_bytes: int
    device: str
    dtype: str
    has_logvar: bool = True

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


def load_autoencoder(
    source: str = "f8c4",
    *,
    device: str = "auto",
    dtype: str = "auto",
    scale: Numbers | None = None,
    shift: Numbers | None = None,
    latent_space: str | None = None,
    allow_pickle: bool = False,
    rewrites: bool = True,
    activation_memory_mib: int | None = None,
) -> "Autoencoder":
    """Map a source to a VAE that is ready to run.

    A VAE whose weights may be SD 1.x's or SDXL's is tried on a few images: see `probe`.

    Args:
        source: see `load_checkpoint`, as for `scale` and what follows.
        device: see `Placement.choose`.
        dtype: see `Placement.choose`.
        scale: 1 or C numbers; None: what the source tells.
        shift: 1 or C numbers; None: what the source tells.
        latent_space: a family's name (`sd1`, `sdxl` ...) or a name of your own; None: what the source shows.
        allow_pickle: whether `.bin` weights are taken.
        rewrites: whether a CPU computes with less arithmetic, equal within rounding; see `tiling`.
        activation_memory_mib: MiB that the activations of one image may take; what needs more is computed in strips,
            with the same result. None: half of the device's memory.

    Raises:
        ModelError: the source, the device or the dtype cannot be used, or nothing tells the scaling.
    """
    checkpoint = load_checkpoint(source, scale=scale, shift=shift, latent_space=latent_space, allow_pickle=allow_pickle)
    budget = None if activation_memory_mib is None else activation_memory_mib * MIB
    autoencoder = Autoencoder(checkpoint, Placement.choose(device, dtype), Tiling(rewrites, budget))
    warn_of_mix_up(source, autoencoder)
    return autoencoder


class Autoencoder:
    """A VAE at work: float images (B,3,H,W) in [-1,1] <-> raw latents (B,C,H/f,W/f).

    Results are float32, finite, and on the CPU; an image's result does not depend on the rest of its batch (bitwise
    on a CPU, within rounding on a GPU).
    """

    def __init__(self, checkpoint: Checkpoint, placement: Placement, tiling: Tiling = Tiling()) -> None:  # noqa: B008 - it is frozen
        module, face = checkpoint.module, FACES[checkpoint.class_name]
        n_in, n_out = image_channels(checkpoint.config)
        if (n_in, n_out) != (3, 3):
            raise CheckpointError(f"the {checkpoint.class_name} takes {n_in} channels and gives {n_out}; images have 3")
        fixed_size = getattr(module, "fixed_size", None)
        # Some networks make a single latent of an image larger than the trial.
        side = max(TRIAL_SIDE, getattr(module, "spatial_compression_ratio", 1))
        images = torch.zeros(1, 3, *(fixed_size or (side, side)))
        footprint = Footprint.of(module, face, images)
        self._runtime = Runtime(module, placement, partial(Tiled, face=face, tiling=tiling, footprint=footprint))
        latents, *logvar = self._run("encode", images)
        channels = latents.shape[1]
        parameters = sum(parameter.numel() for parameter in module.parameters())
        self.spec = AutoencoderSpec(
            class_name=checkpoint.class_name,
            config=checkpoint.config,
            latent_space=checkpoint.latent_space,
            weights_digest=checkpoint.weights_digest,
            file_sha256=checkpoint.file_sha256,
            latent_channels=channels,
            downsample_factor=images.shape[2] // latents.shape[2],
            fixed_size=fixed_size,
            scale=_each(checkpoint.scaling.scale, "scale", channels),
            shift=_each(checkpoint.scaling.shift, "shift", channels),
            latent_units=_units(checkpoint.latent_units, channels),
            parameters=parameters,
            weights_bytes=self._runtime.network.weights_bytes
            + (0 if placement.dtype == torch.float32 else 4 * parameters),
            device=str(placement.device),
            dtype=DTYPE_NAMES[placement.dtype],
            has_logvar=bool(logvar),
        )

    def encode(
        self,
        images: Tensor,
        on_retry: Callable[[list[int]], None] | None = None,
        pause: Callable[[], None] | None = None,
    ) -> Posterior:
        """Map images to the posterior of their latents.

        Args:
            images: float (B,3,H,W) in [-1,1], finite; H and W as `spec.check_images` wants them.
            on_retry: told the indices of the images that were computed again in float32.
            pause: called between the strips of a long execution; what it raises ends the execution.

        Returns:
            mean and logvar, each float32 (B,C,H/f,W/f), raw, on the CPU; logvar is None where the VAE has none.

        Raises:
            TensorError: the shape is wrong.
            NonFiniteError: the output is not finite even in float32.
        """
        self._check_images(images)
        mean, *logvar = self._run("encode", images, on_retry, pause)
        return Posterior(mean.cpu(), logvar[0].cpu() if logvar else None)

    def decode(
        self,
        latents: Tensor,
        finish: Callable[[Tensor], Tensor] = lambda images: images,
        on_retry: Callable[[list[int]], None] | None = None,
        pause: Callable[[], None] | None = None,
    ) -> Tensor:
        """Map raw latents to images.

        Args:
            latents: float (B,C,h,w), raw, finite; of a shape as `spec.check_latents` wants it.
            finish: applied to the images on the device before they are copied to the CPU, such as `pixels.to_uint8`.
            on_retry: told the indices of the latents that were computed again in float32.
            pause: called between the strips of a long execution; what it raises ends the execution.

        Returns:
            float32 (B,3,h*f,w*f), about [-1,1] and not clamped, through `finish`; on the CPU.

        Raises:
            TensorError: the shape is wrong.
            NonFiniteError: the output is not finite even in float32.
        """
        self.spec.check_latents(latents.shape)
        (images,) = self._run("decode", latents, on_retry, pause)
        return finish(images).cpu()

    def decode_with_gradients(self, latents: Tensor) -> Tensor:
        """Map raw latents to images as `decode` does, for gradients to flow back: at once, and nothing is checked.

        Args:
            latents: float32 (B,C,h,w), on the device.

        Returns:
            float32 (B,3,h*f,w*f), about [-1,1] and not clamped, on the device.
        """
        (images,) = self._runtime.run_with_gradients(lambda network, batch: network.run_whole("decode", batch), latents)
        return images

    def to_scaled(self, raw: Tensor, scale: float | None = None, shift: float | None = None) -> Tensor:
        """Map raw latents (B,C,h,w) to what a diffusion model works on: (raw - shift) * scale; None: its own."""
        self.spec.check_latents(raw.shape)
        return (raw - _factors(shift, self.spec.shift)) * _factors(scale, self.spec.scale)

    def to_raw(self, scaled: Tensor, scale: float | None = None, shift: float | None = None) -> Tensor:
        """Map scaled latents (B,C,h,w) to raw ones: scaled / scale + shift; None: the model's own."""
        self.spec.check_latents(scaled.shape)
        return scaled / _factors(scale, self.spec.scale) + _factors(shift, self.spec.shift)

    def check_latent_space(self, latent_space: str, weights_digest: str = "", made_by: str = "") -> None:
        """Refuse latents of another space; those of unknown origin are let through.

        Names decide. Where one has none, the weights stand for the space: they must be the same.

        Args:
            latent_space: the name of the latents' space; empty: unnamed or unknown.
            weights_digest: of the weights that made them, or how it begins; empty: unknown.
            made_by: the name of the model that made them, where a payload says so.

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
            remedy = f", {made_by!r}" if made_by else ", or leave their origin empty if you know that they fit"
            raise LatentSpaceMismatch(
                f"the latents' space is {theirs}; the model's is "
                f"{repr(ours) if ours else f'unnamed, of weights {self.spec.weights_digest[:12]}'}; decode them with "
                f"the model that made them{remedy}"
            )

    def approximates(self, half: Half, shape: Sequence[int]) -> bool:
        """Tell whether one of images (B,3,H,W) or latents (B,C,h,w) is computed by its class's own tiling.

        That is so where its activations need more than their memory, and the class is not known in strips: then tiles
        are blended, and the result differs from the whole image's.
        """
        return bool(self._runtime.network.approximates(half, shape))

    def _run(
        self,
        half: Half,
        batch: Tensor,
        on_retry: Callable[[list[int]], None] | None = None,
        pause: Callable[[], None] | None = None,
    ) -> tuple[Tensor, ...]:
        def call(network: Tiled, placed: Tensor) -> tuple[Tensor, ...]:
            return network.run(half, placed, pause or _no_pause)

        return self._runtime.run(call, batch, on_retry)

    def _check_images(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3:
            raise TensorError(f"images have the shape {tuple(images.shape)}; (B, 3, H, W) is needed")
        self.spec.check_images(*images.shape[2:])


def _no_pause() -> None:
    pass


def _each(numbers: tuple[float, ...], name: str, channels: int) -> tuple[float, ...]:
    if len(numbers) not in {1, channels}:
        raise CheckpointError(f"{name} has {len(numbers)} numbers; 1 or {channels} are needed")
    return numbers


def _units(units: Sequence[float] | None, channels: int) -> tuple[float, ...] | None:
    if units is None:
        return None
    if len(units) != channels or not all(math.isfinite(unit) and unit > 0 for unit in units):
        raise CheckpointError(f"latent_units in config.json are {list(units)}; {channels} positive numbers are needed")
    return tuple(units)


def _factors(given: float | None, own: tuple[float, ...]) -> Tensor:
    return torch.tensor(own if given is None else (given,), dtype=torch.float32).view(1, -1, 1, 1)
