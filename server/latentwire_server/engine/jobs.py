# SPDX-License-Identifier: Apache-2.0
"""What a request asks for and what it gets, free of any protocol: jobs -> results.

`convert.py` makes them from protobuf; a gateway of another protocol makes the same ones.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from latentwire_core.formats import ImageFormat
from latentwire_core.kinds import LatentKind
from latentwire_server.errors import DeadlineExceeded


@dataclass(frozen=True)
class Caller:
    """Who asks, and how long the answer is worth something.

    Attributes:
        client: one key for each connection, over HTTP for each address; places in the queue are shared out by it.
        deadline: on the clock of `time.monotonic`, seconds; None: none.
        patient: whether to wait for a place in the queue (the items of a stream do) or be refused.
    """

    client: str
    deadline: float | None = None
    patient: bool = False

    @classmethod
    def of(cls, context: Any) -> "Caller":
        """Return who makes an RPC; to be asked while it runs, as gRPC's context is gone afterwards."""
        return cls(client=context.peer()).within(context.time_remaining())

    def within(self, timeout_s: float | None) -> "Caller":
        """Return the caller with the sooner of its deadline and one so many seconds from now; None: its own."""
        if timeout_s is None:
            return self
        own = time.monotonic() + timeout_s
        return replace(self, deadline=own if self.deadline is None else min(self.deadline, own))

    @property
    def remaining_s(self) -> float | None:
        """The time to the deadline, seconds; negative where it has passed, None where there is none."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def check_deadline(self) -> None:
        """Raise DeadlineExceeded where the deadline has passed."""
        if self.remaining_s is not None and self.remaining_s <= 0:
            raise DeadlineExceeded("the deadline passed before the request reached the model")


@dataclass(frozen=True)
class EncodeJob:
    """Image files, or a batch of raw images, to be encoded.

    Attributes:
        model: a served name; empty: the default.
        image: a file's bytes, or several whose images are of one size; or uint8 (B,H,W,3); or float (B,3,H,W) in
            [-1,1].
        target_size: (height, width) to scale and crop a file to; None: its own, or the model's only one.
        kind: which view of the posterior.
        scaled: scaled latents instead of raw ones.
        dtype: of the answer; a float.
        seeds: for SAMPLE, one for each image.
        lat_quality: of a `.lat` payload for each image, as `compress_latents` takes it; None: the answer is a tensor.
        refinement: iterations by which the latents of a payload are fitted to their image; 0: none.
        scale: of scaled latents; None: the model's own.
        shift: of scaled latents; None: the model's own.
    """

    model: str
    image: bytes | tuple[bytes, ...] | Tensor
    target_size: tuple[int, int] | None
    kind: LatentKind
    scaled: bool
    dtype: torch.dtype
    seeds: tuple[int, ...]
    lat_quality: str | float | None = None
    refinement: int = 0
    scale: float | None = None
    shift: float | None = None


@dataclass(frozen=True)
class Execution:
    """How a job was carried out; times in nanoseconds, see the proto's message of the same name."""

    queue_ns: int
    compute_ns: int
    coding_ns: int
    batch_size: int
    float32_retry: bool
    model: str
    weights_digest: str
    approximate_tiling: bool


@dataclass(frozen=True)
class EncodeResult:
    """Latents (B,C,h,w) in the job's dtype, and the images' size (height, width) after framing, before padding.

    Where the job asks for them, `payloads` holds the latents of each image as a `.lat` payload.
    """

    values: Tensor
    logvar: Tensor | None
    kind: LatentKind
    scaled: bool
    image_size: tuple[int, int]
    latent_space: str
    execution: Execution
    payloads: list[bytes] | None = None


@dataclass(frozen=True)
class FileOutput:
    """Images as files: the format, and the quality of a lossy one (None: its default)."""

    image_format: ImageFormat
    quality: int | None


@dataclass(frozen=True)
class DecodeJob:
    """A batch of latents to be decoded.

    Attributes:
        model: a served name; empty: the default.
        latents: float (B,C,h,w).
        scaled: whether they are scaled; else raw.
        image_size: (height, width) to crop to; None: no cropping.
        latent_space: the space they are in; empty: unnamed or unknown.
        weights_digest: of the weights that made them; empty: unknown.
        output: files; or a tensor of torch.uint8 (B,H,W,3) or of a float dtype (B,3,H,W).
        scale: of scaled latents; None: the model's own.
        shift: of scaled latents; None: the model's own.
    """

    model: str
    latents: Tensor
    scaled: bool
    image_size: tuple[int, int] | None
    latent_space: str
    weights_digest: str
    output: FileOutput | torch.dtype
    scale: float | None = None
    shift: float | None = None


@dataclass(frozen=True)
class PayloadJob:
    """`.lat` payloads to be decoded: they say themselves what a `DecodeJob` says of its latents.

    Attributes:
        model: a served name; empty: the default.
        payloads: at least one; all of one latent shape and one image size.
        output: as that of a `DecodeJob`.
    """

    model: str
    payloads: tuple[bytes, ...]
    output: FileOutput | torch.dtype


@dataclass(frozen=True)
class DecodeResult:
    """Images as one file for each latent, or as a tensor in the dtype that was asked for."""

    images: list[bytes] | Tensor
    execution: Execution
