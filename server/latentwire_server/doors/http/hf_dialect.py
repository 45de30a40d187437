# SPDX-License-Identifier: Apache-2.0
"""Requests of diffusers' remote VAE functions -> jobs; results -> bodies and headers.

The dialect of `diffusers.utils.remote_utils` 0.42. A tensor is its raw bytes, little-endian and in C order; `shape` and
`dtype` stand in the query of a request and in the headers of an answer. Parameters that are not named here are ignored.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from latentwire_codec.images import pixels
from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_core.formats import ImageFormat
from latentwire_core.kinds import LatentKind
from latentwire_server.doors.http.query import Query
from latentwire_server.doors.tensors import to_bytes, to_tensor
from latentwire_server.engine.jobs import DecodeJob, DecodeResult, EncodeJob, EncodeResult, FileOutput, plain
from latentwire_server.engine.preparing import MAX_MAGNITUDE
from latentwire_server.errors import InvalidRequest

BINARY = "tensor/binary"
BASE64 = "tensor/base64"
FLOATS = {"float16": torch.float16, "float32": torch.float32, "bfloat16": torch.bfloat16}
IMAGE_DTYPES = {**FLOATS, "uint8": torch.uint8}
# Scaled latents have a standard deviation near 1, and the noise that a diffusion begins with one below 20. Neither has
# numbers of this magnitude.
MAX_SCALED_MAGNITUDE = 256.0
FREED = "memory that diffusers' client freed before sending it (pass a tensor made by .cpu().contiguous())"


class Reply(Enum):
    """How decoded images travel; a file holds one image."""

    JPEG = "image/jpeg"
    PNG = "image/png"
    PIXELS = "uint8 (B,H,W,3)"
    FLOATS = "float (B,3,H,W), about [-1,1], not clamped"
    FRAMES = "float (B,3,H,W) in [0,1]"


IMAGE_FORMATS = {"jpg": Reply.JPEG, "png": Reply.PNG}
FILES = {Reply.JPEG: ImageFormat.JPEG, Reply.PNG: ImageFormat.PNG}


@dataclass(frozen=True)
class Answer:
    """The body of an answer, its media type and its headers."""

    body: bytes
    media_type: str
    headers: Mapping[str, str]


def to_operation(content_type: str) -> str:
    """Map the type of a body to an operation: tensors are decoded, all else is encoded.

    In this dialect neither an image file nor an image's tensor has a type.
    """
    return "decode" if _media_types(content_type)[0] in (BINARY, BASE64) else "encode"


def check_content_type(content_type: str) -> None:
    """Refuse the form that clients no longer send.

    Raises:
        InvalidRequest: the body is Base64.
    """
    if _media_types(content_type)[0] == BASE64:
        raise InvalidRequest("content-type", f"{BASE64} is not served here; send the raw bytes as {BINARY}")


# Attribute of a job -> the parameter, or the part of the request, that sets it.
FIELDS = {
    "seeds": "seed",
    "scaled": "scaling_factor",
    "image_file": "body",
    "image_tensor": "body",
    "image_tensor.shape": "shape",
    "latents.dtype": "dtype",
}


def count_images(query: Query, body: bytearray, spec: AutoencoderSpec) -> int:
    """Return the number of images, or of latents, that a request announces by its `shape`, at least 1.

    A number that the body's bytes cannot hold counts as 1: the request is refused when its body is read.
    """
    shape = query.wholes("shape")
    images = shape[0] if len(shape) == 4 or _is_packed(shape, query, spec) else 1
    return images if 1 <= images <= len(body) else 1


def to_decode_job(query: Query, accept: str, body: bytearray, spec: AutoencoderSpec) -> DecodeJob:
    """Map a request to a job.

    Latents are divided by `scaling_factor`, then `shift_factor` is added, where the request has them. With `do_scaling`
    and no `scaling_factor` the model's own factors stand for those that are missing. Float images have the dtype of the
    latents.

    Args:
        query: the parameters of the request.
        accept: the header `Accept`; empty where the request has none.
        body: the latents; their memory becomes the job's.
        spec: what the model is.

    Raises:
        InvalidRequest: a parameter is missing or has an unknown value, or the bytes are not such latents.
        TensorError: the model does not take latents of this shape.
    """
    reply = to_reply(query, accept)
    values = _to_tensor(query, body, FLOATS)
    latents = _to_four_axes(values, query, spec)
    spec.check_latents(tuple(latents.shape))
    if reply in FILES and len(latents) != 1:
        raise InvalidRequest(
            "shape",
            f"there are {len(latents)} latents and an answer holds one image; send them one by one, or ask for "
            "output_type=pt with partial_postprocess=True",
        )
    scaled, scale, shift = _given_scaling(query)
    if "scaling_factor" not in query and query.flag("do_scaling"):
        scaled, scale, shift = True, None, query.number("shift_factor")
    smallest = min(map(abs, spec.scale))
    used = smallest if scale is None else abs(scale)
    _check_magnitude(
        latents,
        MAX_SCALED_MAGNITUDE * used / smallest,
        "latents",
        f"likely a wrong scaling_factor, shift_factor or do_scaling, an overflow in float16, or {FREED}",
    )
    floats = values.dtype if reply in (Reply.FLOATS, Reply.FRAMES) else torch.uint8
    return DecodeJob(
        latents, FileOutput(FILES[reply]) if reply in FILES else floats, scaled=scaled, scale=scale, shift=shift
    )


def to_reply(query: Query, accept: str) -> Reply:
    """Map a request to the form of its images: an image type in `Accept` decides, then `output_type`.

    Raises:
        InvalidRequest: a video is asked for, or a value is unknown.
    """
    output_type = query.known("output_type", {"pil": "pil", "pt": "pt", "mp4": "mp4"}, "pil")
    file = query.known("image_format", IMAGE_FORMATS, "jpg")
    if output_type == "mp4":
        raise InvalidRequest("output_type", "output_type is mp4, but the models here make images; ask for pil or pt")
    accepted = _media_types(accept)
    for reply in FILES:
        if reply.value in accepted:
            return reply
    if output_type == "pil":
        # A client with a processor of its own asks for frames, as video models give them, and not for files.
        return Reply.FRAMES if BINARY in accepted else file
    return Reply.PIXELS if query.flag("partial_postprocess") else Reply.FLOATS


def from_decode_result(result: DecodeResult, reply: Reply) -> Answer:
    """Map a result to its answer."""
    if isinstance(result.images, list):
        return Answer(result.images[0], reply.value, {})
    return _from_tensor(pixels.to_unit(result.images) if reply is Reply.FRAMES else result.images)


def to_encode_job(query: Query, body: bytearray) -> EncodeJob:
    """Map a request to a job.

    With `shape` the body is a tensor: float (B,3,H,W) in [-1,1] or uint8 (B,3,H,W) in 0..255, one image also without
    its B; else it is an image file. The answer is the posterior's mode or, with `sample=true` and a `seed` for each
    image, a sample; raw, or `(raw - shift_factor) * scaling_factor` where the request has one of them; in the dtype of
    a float image, else float16.

    Args:
        query: the parameters of the request.
        body: the image; a tensor's memory becomes the job's.

    Raises:
        InvalidRequest: a parameter is missing or has an unknown value, or the bytes are not such an image.
    """
    scaled, scale, shift = _given_scaling(query)
    kind = LatentKind.SAMPLE if query.flag("sample") else LatentKind.MODE
    if "seed" in query and kind is LatentKind.MODE:
        raise InvalidRequest("seed", "a seed is for sample=true; without that the answer is the mode, which needs none")
    image = _to_images(_to_tensor(query, body, IMAGE_DTYPES)) if "shape" in query else bytes(body)
    floats = isinstance(image, Tensor) and image.is_floating_point()
    return EncodeJob(
        image,
        kind=kind,
        scaled=scaled,
        dtype=image.dtype if isinstance(image, Tensor) and floats else torch.float16,
        seeds=tuple(query.wholes("seed")),
        scale=scale,
        shift=shift,
    )


def from_encode_result(result: EncodeResult) -> Answer:
    """Map a result to its answer."""
    return _from_tensor(result.values)


def _given_scaling(query: Query) -> tuple[bool, float | None, float | None]:
    """Return whether the query has a factor, and both factors; a missing scale is 1, a missing shift 0."""
    scale, shift = query.number("scaling_factor"), query.number("shift_factor")
    if scale == 0.0:
        raise InvalidRequest("scaling_factor", "scaling_factor is 0; nothing can be divided by it")
    return scale is not None or shift is not None, 1.0 if scale is None else scale, shift or 0.0


def _to_four_axes(values: Tensor, query: Query, spec: AutoencoderSpec) -> Tensor:
    """Map latents to (B,C,h,w): as they are, one image's (C,h,w), or FLUX's packed ones (B, h/2*w/2, 4C).

    Packed latents need `height` and `width` of the image in the query, in pixels.
    """
    if values.ndim != 3:
        return values  # (B,C,h,w), or a shape that the model refuses
    channels, side = spec.latent_channels, 2 * spec.downsample_factor
    height, width, rows, columns = _tokens(query, spec)
    if _is_packed(values.shape, query, spec):
        # A token is a 2x2 patch: its channels, then its rows, then its columns.
        patches = values.view(-1, rows, columns, channels, 2, 2)
        return patches.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, 2 * rows, 2 * columns)
    if len(values) == channels:
        return values.unsqueeze(0)
    raise InvalidRequest(
        "shape",
        f"latents have the shape {tuple(values.shape)}, with height {height} and width {width} in the query; three "
        f"axes are ({channels}, h, w) or packed, (B, (height // {side}) * (width // {side}), {4 * channels})",
    )


def _is_packed(shape: Sequence[int], query: Query, spec: AutoencoderSpec) -> bool:
    _, _, rows, columns = _tokens(query, spec)
    return len(shape) == 3 and tuple(shape[1:]) == (rows * columns, 4 * spec.latent_channels)


def _tokens(query: Query, spec: AutoencoderSpec) -> tuple[int, int, int, int]:
    """Return the height and width of the query, in pixels, and the rows and columns of packed latents."""
    height, width = query.whole("height") or 0, query.whole("width") or 0
    side = 2 * spec.downsample_factor
    return height, width, height // side, width // side


def _to_images(values: Tensor) -> Tensor:
    """Map float or uint8 images (B,3,H,W) or (3,H,W) to the layout of a job."""
    images = values.unsqueeze(0) if values.ndim == 3 else values
    if images.ndim != 4 or images.shape[1] != 3:
        raise InvalidRequest(
            "shape",
            f"image tensor has the shape {tuple(values.shape)}; (B, 3, H, W) is needed. If these are latents, send "
            f"them as Content-Type {BINARY} or to /decode",
        )
    if images.dtype == torch.uint8:
        return images.permute(0, 2, 3, 1).contiguous()
    _check_magnitude(images, MAX_MAGNITUDE, "image", f"floats are in [-1, 1]; it may also be {FREED}")
    return images


def _to_tensor(query: Query, body: bytearray, dtypes: Mapping[str, torch.dtype]) -> Tensor:
    """Map a body to a tensor that shares its memory."""
    dtype, shape = query.known("dtype", dtypes), query.wholes("shape")
    if not shape or min(shape) < 1:
        raise InvalidRequest("shape", f"shape is {shape}; send the tensor's, each side at least 1")
    return to_tensor(body, dtype, shape, field="body", owner="the body")


def _from_tensor(tensor: Tensor) -> Answer:
    headers = {"shape": json.dumps(list(tensor.shape)), "dtype": plain(tensor.dtype)}
    return Answer(to_bytes(tensor), BINARY, headers)


def _check_magnitude(values: Tensor, limit: float, what: str, causes: str) -> None:
    largest = values.abs().max().item()
    if not largest <= limit:  # NaN is not
        raise InvalidRequest(
            "body", f"the largest magnitude of the {what} is {largest:.4g}, the limit is {limit:.4g}; {causes}"
        )


def _media_types(header: str) -> list[str]:
    return [part.partition(";")[0].strip().lower() for part in header.split(",")]
