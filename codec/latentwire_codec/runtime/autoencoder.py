# SPDX-License-Identifier: Apache-2.0
"""Any image VAE: float images <-> raw latents, and raw <-> scaled latents.

Latents are raw everywhere except in `to_scaled` and `to_raw`; no other module applies a scaling factor.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from latentwire_codec.checkpoints.checkpoint import Checkpoint
from latentwire_codec.networks.calling import CALLINGS, image_channels
from latentwire_codec.runtime.placement import DTYPE_NAMES, Placement
from latentwire_codec.runtime.posterior import Posterior
from latentwire_codec.runtime.precision import Runtime
from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_codec.runtime.tiling.footprint import Footprint, Half
from latentwire_codec.runtime.tiling.tiled import Tiled, Tiling
from latentwire_codec.runtime.whole.known import whole_network
from latentwire_core.errors import CheckpointError, LatentSpaceMismatch, TensorError
from latentwire_core.identity import Origin, same_space, space_in_words

TRIAL_SIDE = 64


class Autoencoder:
    """A VAE at work: float images (B,3,H,W) in [-1,1] <-> raw latents (B,C,H/f,W/f).

    Results are float32, finite, and on the CPU; an image's result does not depend on the rest of its batch (bitwise
    on a CPU, within rounding on a GPU).
    """

    def __init__(self, checkpoint: Checkpoint, placement: Placement, tiling: Tiling = Tiling()) -> None:  # noqa: B008 - it is frozen
        module, calling = checkpoint.module, CALLINGS[checkpoint.class_name]
        n_in, n_out = image_channels(checkpoint.config)
        if (n_in, n_out) != (3, 3):
            raise CheckpointError(f"the {checkpoint.class_name} takes {n_in} channels and gives {n_out}; images have 3")
        fixed_size = getattr(module, "fixed_size", None)
        # Some networks make a single latent of an image larger than the trial.
        side = max(TRIAL_SIDE, getattr(module, "spatial_compression_ratio", 1))
        images = torch.zeros(1, 3, *(fixed_size or (side, side)))
        footprint = Footprint.of(module, calling, images)

        def prepare(placed: nn.Module, master: nn.Module) -> Tiled:
            whole = whole_network(placed, master) if tiling.rewrites else None
            return Tiled(placed, whole, calling, tiling, footprint)

        self._runtime = Runtime(module, placement, prepare)
        latents, *logvar = self._runtime.run("encode", images)
        channels = latents.shape[1]
        parameters = sum(parameter.numel() for parameter in module.parameters())
        spare_bytes = 0 if placement.dtype == torch.float32 else 4 * parameters
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
            weights_bytes=self._runtime.network.weights_bytes + spare_bytes,
            device=str(placement.device),
            dtype=DTYPE_NAMES[placement.dtype],
            rewrites=self._runtime.network.rewrites,
            has_logvar=bool(logvar),
        )

    def encode(
        self,
        images: Tensor,
        on_retry: Callable[[list[int]], None] = lambda indices: None,
        pause: Callable[[], None] = lambda: None,
    ) -> Posterior:
        """Map images to the posterior of their latents.

        Args:
            images: float (B,3,H,W) in [-1,1], finite; of a size that `spec.check_images` accepts.
            on_retry: called with the indices of the images that are computed again in float32.
            pause: called between the strips of a long execution; an exception from it ends the execution.

        Returns:
            mean and logvar, each float32 (B,C,H/f,W/f), raw, on the CPU; logvar is None where the VAE has none.

        Raises:
            TensorError: the shape is wrong.
            NonFiniteError: the output is not finite even in float32.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise TensorError(f"images have the shape {tuple(images.shape)}; (B, 3, H, W) is needed")
        self.spec.check_images(*images.shape[2:])
        mean, *logvar = self._runtime.run("encode", images, on_retry, pause)
        return Posterior(mean.cpu(), logvar[0].cpu() if logvar else None)

    def decode(
        self,
        latents: Tensor,
        finish: Callable[[Tensor], Tensor] = lambda images: images,
        on_retry: Callable[[list[int]], None] = lambda indices: None,
        pause: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """Map raw latents to images.

        Args:
            latents: float (B,C,h,w), raw, finite; of a shape that `spec.check_latents` accepts.
            finish: applied to the images on the device before they are copied to the CPU, such as `pixels.to_uint8`.
            on_retry: called with the indices of the latents that are computed again in float32.
            pause: called between the strips of a long execution; an exception from it ends the execution.

        Returns:
            float32 (B,3,h*f,w*f), about [-1,1] and not clamped, through `finish`; on the CPU. Raises as `encode`.
        """
        self.spec.check_latents(latents.shape)
        (images,) = self._runtime.run("decode", latents, on_retry, pause)
        return finish(images).cpu()

    def decode_with_gradients(self, latents: Tensor) -> Tensor:
        """Map raw latents, float32 (B,C,h,w) on the device, to images (B,3,h*f,w*f) on the device, as `decode` does.

        Gradients flow back. The images are computed at once, and without the checks of `decode`.
        """
        (images,) = self._runtime.run_with_gradients("decode", latents)
        return images

    def to_scaled(self, raw: Tensor, scale: float | None = None, shift: float | None = None) -> Tensor:
        """Map raw latents (B,C,h,w) to scaled ones: (raw - shift) * scale; None: the model's own factors."""
        self.spec.check_latents(raw.shape)
        return (raw - _factors(shift, self.spec.shift)) * _factors(scale, self.spec.scale)

    def to_raw(self, scaled: Tensor, scale: float | None = None, shift: float | None = None) -> Tensor:
        """Map scaled latents (B,C,h,w) to raw ones: scaled / scale + shift; None: the model's own factors."""
        self.spec.check_latents(scaled.shape)
        return scaled / _factors(scale, self.spec.scale) + _factors(shift, self.spec.shift)

    def check_latent_space(self, origin: Origin, made_by: str = "") -> None:
        """Refuse latents of another space by the rule of `same_space`: latents of unknown origin pass.

        Raises:
            LatentSpaceMismatch: the latents are another model's, by name or by weights; `made_by` names it, if known.
        """
        if not same_space(origin, self.spec):
            remedy = f", {made_by!r}" if made_by else ", or leave their origin empty if you know that they fit"
            raise LatentSpaceMismatch(
                f"the latents' space is {space_in_words(origin)}; the model's is {space_in_words(self.spec)}; decode "
                f"them with the model that made them{remedy}"
            )

    def approximates(self, half: Half, shape: Sequence[int]) -> bool:
        """Tell whether images (B,3,H,W) or latents (B,C,h,w) are computed by the tiling of their class.

        The class tiles where the activations of one image need more memory than they may take, and the class cannot be
        computed in strips. Its tiles are blended, so that the result differs from the result of the whole image.
        """
        return self._runtime.network.approximates(half, shape)


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
