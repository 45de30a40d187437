# SPDX-License-Identifier: Apache-2.0
"""The facts about a VAE as a plain record, and the shapes that it accepts. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latentwire_core.errors import TensorError


@dataclass(frozen=True)
class AutoencoderSpec:
    """The facts about a VAE that its callers need.

    Attributes:
        class_name: the class of its network, such as `AutoencoderKL`.
        config: the configuration of that class.
        latent_space: the identity of its latents (`latentwire-f8c4@3`); empty: unnamed.
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
        weights_bytes: memory of the weights, with the forms that rewrites need, and with the float32 copy beside half
            precision.
        device: the torch device that it runs on.
        dtype: the dtype that it computes in, `float32`, `bfloat16` or `float16`.
        rewrites: whether its arithmetic is another than that of its class, equal within rounding: less of it, or a form
            of its own in bfloat16.
        has_logvar: whether its posterior has a log-variance; without it there is only the mode.
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
    rewrites: bool = False
    has_logvar: bool = True

    def check_images(self, height: int, width: int) -> None:
        """Refuse a size of raw images, in pixels, that the network does not take; raises TensorError."""
        f, fixed = self.downsample_factor, self.fixed_size
        if fixed is None:
            fits = min(height, width) > 0 and not height % f and not width % f
            wanted = f"each side must be a multiple of {f}"
        else:
            fits, wanted = (height, width) == fixed, f"this model takes {fixed[1]}x{fixed[0]} only"
        if not fits:
            raise TensorError(f"image tensor is {width}x{height}; {wanted} (an image file may have any size)")

    def check_latents(self, shape: tuple[int, ...]) -> None:
        """Refuse a shape that is not (B,C,h,w), or not of the fixed size; raises TensorError."""
        fits, sides = len(shape) == 4 and shape[1] == self.latent_channels and min(shape) > 0, "h, w"
        if self.fixed_size is not None:
            height, width = (side // self.downsample_factor for side in self.fixed_size)
            fits, sides = fits and shape[2:] == (height, width), f"{height}, {width}"
        if not fits:
            wanted = f"(B, {self.latent_channels}, {sides}) is needed, each at least 1"
            raise TensorError(f"latents have the shape {tuple(shape)}; {wanted}")
