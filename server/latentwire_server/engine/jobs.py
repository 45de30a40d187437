# SPDX-License-Identifier: Apache-2.0
"""What a request asks for and what it gets, free of any protocol: jobs -> results.

Each job checks itself, so that every door refuses the same requests in the same words. A refusal is an InvalidRequest
that names an attribute of the job; each door translates that name to the field of its own protocol.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from latentwire_core.errors import TensorError
from latentwire_core.formats import ImageFormat
from latentwire_core.kinds import LatentKind
from latentwire_core.noise import check_seed
from latentwire_core.quality import LOSSLESS, step_multiple
from latentwire_server.errors import DeadlineExceeded, InvalidRequest

QUALITIES = range(1, 101)
"""The qualities of a lossy image file."""
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
"""The dtypes of latents and of float images."""


@dataclass(frozen=True)
class Caller:
    """Who asks, and how long the answer is worth something.

    Attributes:
        client: one key for each connection, over HTTP for each address; clients share the places in the queue.
        deadline: on the clock of `time.monotonic`, seconds; None: the caller waits for as long as it takes.
        patient: whether to wait for a place in the queue (the items of a stream do) or be refused.
    """

    client: str
    deadline: float | None = None
    patient: bool = False

    @classmethod
    def of(cls, context: Any) -> "Caller":
        """Return who makes an RPC; ask while the RPC runs, as gRPC's context is gone afterwards."""
        return cls(client=context.peer()).within(context.time_remaining())

    def within(self, timeout_s: float | None) -> "Caller":
        """Return the caller with the sooner of two deadlines: its own, and `timeout_s` from now where it is given."""
        if timeout_s is None:
            return self
        own = time.monotonic() + timeout_s
        return replace(self, deadline=own if self.deadline is None else min(self.deadline, own))

    @property
    def remaining_s(self) -> float | None:
        """The time to the deadline, seconds; negative where it has passed, None where the caller has no deadline."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    @asynccontextmanager
    async def until_deadline(self, what: str) -> AsyncIterator[None]:
        """Cancel the context at the deadline.

        Args:
            what: the rest of the message that begins with `the deadline passed while`.

        Raises:
            DeadlineExceeded: the deadline passed.
        """
        timeout = asyncio.timeout(self.remaining_s)
        try:
            async with timeout:
                yield
        except TimeoutError as error:
            if not timeout.expired():  # the context's own
                raise
            raise DeadlineExceeded(f"the deadline passed while {what}") from error

    def check_deadline(self) -> None:
        """Raise DeadlineExceeded where the deadline has passed."""
        if self.remaining_s is not None and self.remaining_s <= 0:
            raise DeadlineExceeded("the deadline passed before the request reached the model")


@dataclass(frozen=True)
class EncodeJob:
    """Image files, or a batch of raw images, to be encoded.

    Attributes:
        image: the bytes of one file, or of several files whose images have one size; or uint8 (B,H,W,3); or float
            (B,3,H,W) in [-1,1].
        kind: the view of the posterior that is asked for.
        scaled: whether scaled latents are asked for, instead of raw ones.
        dtype: the dtype of the answer, a float.
        seeds: for SAMPLE one seed for each image, each in 0..2^64-1.
        target_size: (height, width) to scale and crop each file to; None: the file's own size, or the model's fixed
            size.
        lat_quality: the quality of a `.lat` payload for each image, as `compress_latents` takes it; None: the answer
            is a tensor. Payloads hold the raw mode, from float32.
        refinement: iterations of latent optimisation before the latents become a payload; 0: no optimisation.
        scale: the scale of scaled latents; None: the model's own.
        shift: the shift of scaled latents; None: the model's own.

    Raises:
        InvalidRequest: two attributes contradict each other, or a value is out of range.
    """

    image: bytes | tuple[bytes, ...] | Tensor
    kind: LatentKind = LatentKind.MODE
    scaled: bool = False
    dtype: torch.dtype = torch.float16
    seeds: tuple[int, ...] = ()
    target_size: tuple[int, int] | None = None
    lat_quality: str | float | None = None
    refinement: int = 0
    scale: float | None = None
    shift: float | None = None

    def __post_init__(self) -> None:
        """Check every attribute."""
        if isinstance(self.image, Tensor):
            _check_images(self.image)
            if self.target_size is not None:
                raise InvalidRequest("target_size", "raw images are taken as they are; resize an image file")
        elif not self.image and isinstance(self.image, tuple):
            raise InvalidRequest("image_file", "there are no image files; send at least one")
        _check_size(self.target_size, "target_size")
        if self.dtype not in FLOATS:
            raise InvalidRequest("dtype", f"dtype is {plain(self.dtype)}; latents are float32, float16 or bfloat16")
        if self.kind is LatentKind.MOMENTS and self.scaled:
            raise InvalidRequest("scaled", "moments are always raw; ask for raw latents, or for the mode")
        self._check_seeds()
        self._check_payload()

    @property
    def images(self) -> int:
        """The number of images."""
        return 1 if isinstance(self.image, bytes) else len(self.image)

    def _check_seeds(self) -> None:
        if self.kind is not LatentKind.SAMPLE:
            if self.seeds:
                raise InvalidRequest(
                    "seeds",
                    f"seeds are for a sample, not for {self.kind}; the first seed is {self.seeds[0]}: leave seeds out",
                )
            return
        if not self.seeds:
            raise InvalidRequest("seeds", f"there is no seed; a sample of {self.images} images needs one for each")
        if len(self.seeds) != self.images:
            raise InvalidRequest("seeds", f"{len(self.seeds)} seeds for {self.images} images; give one for each")
        try:
            for seed in self.seeds:
                check_seed(seed)
        except TensorError as error:
            raise InvalidRequest("seeds", str(error)) from error

    def _check_payload(self) -> None:
        if self.lat_quality is None:
            if self.refinement:
                raise InvalidRequest(
                    "refinement", f"refinement is {self.refinement}, but it is for `.lat` payloads; leave it out"
                )
            return
        if isinstance(self.lat_quality, float) and not 0 < self.lat_quality < float("inf"):
            raise InvalidRequest("lat_quality", f"step is {self.lat_quality}; it must be a finite number above 0")
        try:
            step_multiple(self.lat_quality)
        except TensorError as error:
            raise InvalidRequest("lat_quality", str(error)) from error
        if (self.kind, self.scaled, self.dtype) != (LatentKind.MODE, False, torch.float32):
            raise InvalidRequest("lat_quality", "`.lat` payloads hold the raw mode; ask for that, in float32")
        if self.refinement and self.lat_quality == LOSSLESS:
            raise InvalidRequest(
                "refinement",
                f"refinement is {self.refinement}, but lossless keeps latents as they are; "
                "leave it out, or take another quality",
            )


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
    """Images as files.

    Attributes:
        image_format: the format of each file.
        quality: the quality of a lossy format, 1..100; None: the format's default.

    Raises:
        InvalidRequest: the quality is out of range, or the format is lossless and has no quality.
    """

    image_format: ImageFormat
    quality: int | None = None

    def __post_init__(self) -> None:
        """Check the quality."""
        if self.quality is None:
            return
        if self.image_format is ImageFormat.PNG:
            raise InvalidRequest(
                "quality", f"quality is {self.quality}, but PNG is lossless; leave it out, or take JPEG, WebP or AVIF"
            )
        if self.quality not in QUALITIES:
            raise InvalidRequest("quality", f"quality is {self.quality}; it must be in 1..100")


@dataclass(frozen=True)
class DecodeJob:
    """A batch of latents to be decoded.

    Attributes:
        latents: float (B,C,h,w).
        output: files; or a tensor of torch.uint8 (B,H,W,3) or of a float dtype (B,3,H,W).
        scaled: whether the latents are scaled; else raw.
        image_size: (height, width) to crop to; None: no cropping.
        latent_space: the space of the latents; empty: unnamed or unknown.
        weights_digest: the digest of the weights that made the latents; empty: unknown.
        scale: the scale of scaled latents; None: the model's own.
        shift: the shift of scaled latents; None: the model's own.

    Raises:
        InvalidRequest: a value is out of range.
    """

    latents: Tensor
    output: FileOutput | torch.dtype = torch.uint8
    scaled: bool = False
    image_size: tuple[int, int] | None = None
    latent_space: str = ""
    weights_digest: str = ""
    scale: float | None = None
    shift: float | None = None

    def __post_init__(self) -> None:
        """Check every attribute."""
        if self.latents.dtype not in FLOATS:
            raise InvalidRequest("latents.dtype", f"dtype is {plain(self.latents.dtype)}; latents are a float tensor")
        _check_size(self.image_size, "image_size")
        if not isinstance(self.output, FileOutput) and self.output not in (torch.uint8, *FLOATS):
            raise InvalidRequest("output", f"dtype is {plain(self.output)}; images are uint8 or floats")

    @property
    def images(self) -> int:
        """The number of images."""
        return len(self.latents)


@dataclass(frozen=True)
class DecodeResult:
    """Images as one file for each latent, or as a tensor in the dtype that was asked for."""

    images: list[bytes] | Tensor
    execution: Execution


def plain(dtype: torch.dtype) -> str:
    """Return the name of a dtype, such as `float16`."""
    return str(dtype).removeprefix("torch.")


def sides(batch: Tensor) -> tuple[int, int]:
    """Return height and width of uint8 (B,H,W,3) or float (B,3,H,W)."""
    height, width = batch.shape[1:3] if batch.dtype == torch.uint8 else batch.shape[2:4]
    return height, width


def _check_images(images: Tensor) -> None:
    shape, wanted = tuple(images.shape), "uint8 is (B,H,W,3), floats are (B,3,H,W)"
    channels = 3 if images.dtype == torch.uint8 else 1
    if images.dtype not in (torch.uint8, *FLOATS) or images.ndim != 4 or shape[channels] != 3:
        raise InvalidRequest("image_tensor.shape", f"image tensor is {plain(images.dtype)} {shape}; {wanted}")


def _check_size(size: tuple[int, int] | None, field: str) -> None:
    if size is not None and min(size) < 1:
        raise InvalidRequest(field, f"{field} is {size[1]}x{size[0]}; each side must be >= 1")
