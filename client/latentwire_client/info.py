# SPDX-License-Identifier: Apache-2.0
"""What a server says of itself and of its work, as plain values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ServerLimits:
    """What a server accepts; see the proto's `Limits`."""

    max_message_bytes: int
    max_image_side: int
    max_image_pixels: int
    max_batch_images: int
    max_queue_images: int
    stream_window: int
    max_refinement: int


@dataclass(frozen=True)
class ModelInfo:
    """A model that a server holds; see the proto's message of the same name."""

    name: str
    class_name: str
    latent_space: str
    weights_digest: str
    file_sha256: str
    latent_channels: int
    downsample_factor: int
    scale: tuple[float, ...]
    shift: tuple[float, ...]
    has_logvar: bool
    fixed_size: tuple[int, int] | None
    parameters: int
    dtype: str
    device: str
    config: Mapping[str, Any]
    loaded: bool

    @property
    def file_hash(self) -> str:
        """The first ten digits of the file's SHA-256, as A1111 shows them; empty where there is not one file."""
        return self.file_sha256[:10]

    @property
    def is_vector(self) -> bool:
        """Whether its latents are one vector for an image of its one size, (B,C,1,1); else spatial, (B,C,h,w)."""
        return self.fixed_size is not None


@dataclass(frozen=True)
class ServerInfo:
    """What a server is; the first model is its default."""

    version: str
    limits: ServerLimits
    models: tuple[ModelInfo, ...]


@dataclass(frozen=True)
class Execution:
    """How a server carried out a call, or an item of a stream.

    Attributes:
        queue_s: waiting for the device, and before it for the weights where they were not in memory, seconds.
        compute_s: in the model, copies to and from the device included, seconds.
        coding_s: reading and writing image files, resizing, padding, casting, seconds.
        batch_size: the largest number of images that shared a batch with one of these, 1 or more.
        float32_retry: whether an output was not finite in the served dtype and was computed again in float32.
        model: the model that did it, by the name it is served under.
        weights_digest: SHA-256 of its weights, 64 hex digits.
        approximate_tiling: whether an image was too large for the memory of the server, and blended from tiles; classes
            that the server computes in strips give the same result at any size, and never say so.
    """

    queue_s: float
    compute_s: float
    coding_s: float
    batch_size: int
    float32_retry: bool
    model: str
    weights_digest: str
    approximate_tiling: bool


OnExecution = Callable[[Execution], None]
"""Told of each execution as its answer arrives, where the caller waits: in its thread, or in its event loop."""
