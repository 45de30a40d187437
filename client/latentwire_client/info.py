# SPDX-License-Identifier: Apache-2.0
"""A server's messages about its models, its limits and its work -> plain values."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from latentwire_proto.v1 import latent_codec_pb2 as pb


@dataclass(frozen=True)
class ServerLimits:
    """The limits of a server; see the proto's `Limits`."""

    max_message_bytes: int
    max_image_side: int
    max_image_pixels: int
    max_batch_images: int
    max_queue_images: int
    stream_window: int
    max_refinement: int

    @classmethod
    def from_message(cls, limits: pb.Limits) -> Self:
        """Map the message of the same fields to plain values."""
        return cls(**_plain(cls, limits))


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
    rewrites: bool

    @property
    def file_hash(self) -> str:
        """The first ten digits of the file's SHA-256, as A1111 shows them; empty for a model of several files."""
        return self.file_sha256[:10]

    @property
    def is_vector(self) -> bool:
        """Whether an image of the fixed size becomes one vector, (B,C,1,1); other models give latents (B,C,h,w)."""
        return self.fixed_size is not None

    @classmethod
    def from_message(cls, model: pb.ModelInfo) -> Self:
        """Map the message of a model to plain values."""
        fixed = model.fixed_size
        converted: dict[str, Any] = {
            "scale": tuple(model.scale),
            "shift": tuple(model.shift),
            "fixed_size": (fixed.height, fixed.width) if model.HasField("fixed_size") else None,
            "dtype": pb.DType.Name(model.dtype).removeprefix("DTYPE_").lower(),
            "config": json.loads(model.config_json or "{}"),
        }
        return cls(**_plain(cls, model) | converted)


@dataclass(frozen=True)
class ServerInfo:
    """A server's version, limits and models; the first model is its default, see also `CompressOptions`."""

    version: str
    limits: ServerLimits
    models: tuple[ModelInfo, ...]

    @classmethod
    def from_message(cls, message: pb.GetServerInfoResponse) -> Self:
        """Map the answer to GetServerInfo to plain values."""
        models = tuple(ModelInfo.from_message(model) for model in message.models)
        return cls(message.version, ServerLimits.from_message(message.limits), models)


@dataclass(frozen=True)
class Execution:
    """How a server carried out a call, or an item of a stream.

    Attributes:
        queue_s: seconds of waiting for the device, and before that for weights that were not in memory.
        compute_s: seconds in the model, copies to and from the device included.
        coding_s: seconds of reading and writing image files, resizing, padding, casting.
        batch_size: the largest number of images that shared a batch with an image of the call, 1 or more.
        float32_retry: whether an output was not finite in the served dtype and was computed again in float32.
        model: the name under which the model is served.
        weights_digest: SHA-256 of the model's weights, 64 hex digits.
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

    @classmethod
    def from_message(cls, execution: pb.Execution) -> Self:
        """Map the message, whose times are nanoseconds, to plain values."""
        seconds: dict[str, Any] = {
            f"{stage}_s": getattr(execution, f"{stage}_ns") / 1e9 for stage in ("queue", "compute", "coding")
        }
        return cls(**_plain(cls, execution) | seconds)


OnExecution = Callable[[Execution], None]
"""Called with each execution as its answer arrives, where the caller waits: in its thread, or in its event loop."""


def _plain(kind: type[Any], message: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that its message holds under the same name, as the same value."""
    same = message.DESCRIPTOR.fields_by_name
    return {field.name: getattr(message, field.name) for field in fields(kind) if field.name in same}
