# SPDX-License-Identifier: Apache-2.0
"""Protobuf messages <-> jobs and results."""

import json
from collections.abc import Mapping
from typing import TypeVar, cast

import torch
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message
from torch import Tensor

from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_core.formats import ImageFormat
from latentwire_core.kinds import LatentKind
from latentwire_proto import names
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_server.config import ServerConfig
from latentwire_server.doors.tensors import to_bytes, to_tensor
from latentwire_server.engine.jobs import DecodeJob, DecodeResult, EncodeJob, EncodeResult, Execution, FileOutput, plain
from latentwire_server.engine.shares import most_images
from latentwire_server.errors import InvalidRequest

N = TypeVar("N", bound=int)
T = TypeVar("T")

FLOATS = {number: cast(torch.dtype, getattr(torch, name)) for name, number in names.FLOATS.items()}
DTYPES = {**FLOATS, pb.DTYPE_UINT8: torch.uint8}
TO_DTYPE = {dtype: number for number, dtype in DTYPES.items()}
TO_KIND = {LatentKind(name): number for name, number in names.KINDS.items()}
KINDS = {pb.LATENT_KIND_UNSPECIFIED: LatentKind.MODE} | {number: kind for kind, number in TO_KIND.items()}
SCALES = {pb.LATENT_SCALE_UNSPECIFIED: False, pb.LATENT_SCALE_RAW: False, pb.LATENT_SCALE_SCALED: True}
FORMATS = {pb.IMAGE_FORMAT_UNSPECIFIED: ImageFormat.PNG} | {
    number: ImageFormat(name) for name, number in names.IMAGE_FORMATS.items()
}
QUALITIES = {pb.LAT_QUALITY_UNSPECIFIED: "cache"} | {number: name for name, number in names.QUALITIES.items()}
# What a spec and a ModelInfo call by the same name.
SPEC_FIELDS = (
    "class_name", "latent_space", "weights_digest", "file_sha256", "latent_channels", "downsample_factor", "scale",
    "shift", "has_logvar", "parameters", "device", "rewrites",
)  # fmt: skip
# Attribute of a job -> the field of a message that sets it; the others have the same name.
ENCODE_FIELDS = {
    "image_tensor.shape": "image_tensor",
    "dtype": "latents.dtype",
    "scaled": "latents.scale",
    "seeds": "latents.seeds",
    "lat_quality": "lat.step",
    "refinement": "lat.refinement",
}
OUTPUT_FIELDS = {"quality": "image_files.quality", "output": "image_tensor.dtype"}
DECODE_FIELDS = OUTPUT_FIELDS | {
    "latents.dtype": "latents.values.dtype",
    "image_size": "latents.image_size",
    "image_size.height": "latents.image_size.height",
    "image_size.width": "latents.image_size.width",
}


def count_images(request: pb.EncodeRequest | pb.DecodeRequest) -> int:
    """Return the number of images that a message announces, at least 1.

    A number that the message's bytes cannot hold counts as 1: the message is refused when it is read.
    """
    if isinstance(request, pb.DecodeRequest) and request.WhichOneof("input") == "lat":
        return max(1, len(request.lat.payloads))
    tensor = request.image_tensor.tensor if isinstance(request, pb.EncodeRequest) else request.latents.values
    images = tensor.shape[0] if len(tensor.shape) == 4 else 1
    # protobuf copies a message's bytes to count them, and `data` to show it.
    return images if images > 1 and images <= tensor.ByteSize() else 1


def to_encode_job(request: pb.EncodeRequest) -> EncodeJob:
    """Map a message to a job.

    Raises:
        InvalidRequest: a field is missing, unknown or contradicts another, or a tensor's bytes are not what its dtype
            and shape say.
    """
    which = request.WhichOneof("input")
    if which is None:
        raise InvalidRequest("input", "there is no image; set image_file or image_tensor")
    image = request.image_file if which == "image_file" else _to_images(request.image_tensor, "image_tensor")
    target_size = _to_size(request, "target_size")
    if request.WhichOneof("output") == "lat":
        return EncodeJob(
            image,
            dtype=torch.float32,
            target_size=target_size,
            lat_quality=_to_quality(request.lat),
            refinement=request.lat.refinement,
        )
    output = request.latents
    return EncodeJob(
        image,
        kind=_known(output.kind, KINDS, "latents.kind", pb.LatentKind),
        scaled=_known(output.scale, SCALES, "latents.scale", pb.LatentScale),
        dtype=_known(output.dtype or pb.DTYPE_FLOAT16, FLOATS, "latents.dtype", pb.DType),
        seeds=tuple(output.seeds),
        target_size=target_size,
    )


def to_decode_job(request: pb.DecodeRequest) -> DecodeJob:
    """Map a message with latents to a job; raises what `to_encode_job` raises."""
    if request.WhichOneof("input") is None:
        raise InvalidRequest("input", "there are no latents; set latents or lat")
    latents = request.latents
    return DecodeJob(
        _to_tensor(latents.values, "latents.values"),
        to_output(request),
        scaled=_known(latents.scale, SCALES, "latents.scale", pb.LatentScale),
        image_size=_to_size(latents, "image_size"),
        latent_space=latents.latent_space,
        weights_digest=latents.weights_digest,
    )


def to_output(request: pb.DecodeRequest) -> FileOutput | torch.dtype:
    """Map the form of the images that is asked for to files, or to the dtype of a tensor."""
    if request.WhichOneof("output") == "image_files":
        files = request.image_files
        return FileOutput(_known(files.format, FORMATS, "image_files.format", pb.ImageFormat), files.quality or None)
    tensor = request.image_tensor
    layout = tensor.layout or pb.IMAGE_LAYOUT_UINT8_NHWC
    if layout == pb.IMAGE_LAYOUT_UINT8_NHWC:
        return torch.uint8
    if layout == pb.IMAGE_LAYOUT_FLOAT_NCHW:
        return _known(tensor.dtype or pb.DTYPE_FLOAT32, FLOATS, "image_tensor.dtype", pb.DType)
    raise InvalidRequest("image_tensor.layout", f"layout {layout} is unknown")


def from_encode_result(result: EncodeResult) -> pb.EncodeResponse:
    """Map a result to its message."""
    if result.payloads is not None:
        return pb.EncodeResponse(
            lat=pb.LatPayloads(payloads=result.payloads), execution=_from_execution(result.execution)
        )
    height, width = result.image_size
    return pb.EncodeResponse(
        latents=pb.Latents(
            values=_from_tensor(result.values),
            logvar=None if result.logvar is None else _from_tensor(result.logvar),
            kind=TO_KIND[result.kind],
            scale=pb.LATENT_SCALE_SCALED if result.scaled else pb.LATENT_SCALE_RAW,
            image_size=pb.ImageSize(height=height, width=width),
            model=result.execution.model,
            latent_space=result.latent_space,
            weights_digest=result.execution.weights_digest,
        ),
        execution=_from_execution(result.execution),
    )


def from_decode_result(result: DecodeResult) -> pb.DecodeResponse:
    """Map a result to its message."""
    execution = _from_execution(result.execution)
    if isinstance(result.images, list):
        return pb.DecodeResponse(image_files=pb.ImageFiles(files=result.images), execution=execution)
    uint8 = result.images.dtype == torch.uint8
    layout = pb.IMAGE_LAYOUT_UINT8_NHWC if uint8 else pb.IMAGE_LAYOUT_FLOAT_NCHW
    tensor = pb.ImageTensor(tensor=_from_tensor(result.images), layout=layout)
    return pb.DecodeResponse(image_tensor=tensor, execution=execution)


def from_limits(config: ServerConfig) -> pb.Limits:
    """Map the configuration to the limits that the server advertises."""
    return pb.Limits(
        max_message_bytes=config.max_message_bytes,
        max_image_side=config.image_limits.max_side,
        max_image_pixels=config.image_limits.max_pixels,
        max_batch_images=most_images(config),
        max_queue_images=config.max_queue,
        stream_window=config.stream_window,
        max_refinement=config.max_refinement,
    )


def from_spec(name: str, spec: AutoencoderSpec, loaded: bool) -> pb.ModelInfo:
    """Map a served model, whose weights are in memory or not, to its message."""
    fixed = spec.fixed_size
    return pb.ModelInfo(
        name=name,
        fixed_size=None if fixed is None else pb.ImageSize(height=fixed[0], width=fixed[1]),
        dtype=f"DTYPE_{spec.dtype.upper()}",
        config_json=json.dumps(dict(spec.config), sort_keys=True),
        loaded=loaded,
        **{field: getattr(spec, field) for field in SPEC_FIELDS},
    )


def _to_quality(output: pb.LatOutput) -> str | float:
    """Map the fineness that is asked for to a quality as `compress_latents` takes it."""
    if output.WhichOneof("fineness") == "step":
        return output.step
    return _known(output.quality, QUALITIES, "lat.quality", pb.LatQuality)


def _to_images(message: pb.ImageTensor, field: str) -> Tensor:
    tensor = _to_tensor(message.tensor, f"{field}.tensor")
    if message.layout == pb.IMAGE_LAYOUT_UINT8_NHWC:
        fits, wanted = tensor.dtype == torch.uint8 and tensor.shape[3:] == (3,), "uint8 (B,H,W,3)"
    elif message.layout == pb.IMAGE_LAYOUT_FLOAT_NCHW:
        fits = tensor.is_floating_point() and tensor.ndim == 4 and tensor.shape[1] == 3
        wanted = "a float (B,3,H,W)"
    else:
        raise InvalidRequest(f"{field}.layout", f"layout is {message.layout}; set UINT8_NHWC or FLOAT_NCHW")
    if not fits:
        layout = pb.ImageLayout.Name(message.layout).removeprefix("IMAGE_LAYOUT_")
        raise InvalidRequest(
            field, f"image tensor is {plain(tensor.dtype)} {tuple(tensor.shape)}; {layout} means {wanted}"
        )
    return tensor


def _to_tensor(message: pb.Tensor, field: str) -> Tensor:
    """Map a message to a tensor with memory of its own, a copy of the message's bytes."""
    dtype = _known(message.dtype, DTYPES, f"{field}.dtype", pb.DType)
    if len(message.shape) != 4:
        raise InvalidRequest(f"{field}.shape", f"tensor has {len(message.shape)} axes; it needs 4, such as (B,C,h,w)")
    shape = tuple(message.shape)
    if min(shape) < 1:
        raise InvalidRequest(f"{field}.shape", f"tensor has the shape {shape}; it needs sides of at least 1")
    return to_tensor(message.data, dtype, shape, field=f"{field}.data", owner="tensor")


def _from_tensor(tensor: Tensor) -> pb.Tensor:
    return pb.Tensor(dtype=TO_DTYPE[tensor.dtype], shape=tuple(tensor.shape), data=to_bytes(tensor))


def _from_execution(execution: Execution) -> pb.Execution:
    return pb.Execution(**vars(execution))  # the message has the same fields


def _to_size(message: Message, name: str) -> tuple[int, int] | None:
    """Map an optional ImageSize to (height, width)."""
    if not message.HasField(name):
        return None
    size: pb.ImageSize = getattr(message, name)
    return size.height, size.width


def _known(value: int, table: Mapping[N, T], field: str, names: EnumTypeWrapper) -> T:
    """Look an enum's number up in a table, or refuse it with the names that are accepted."""
    if value not in table:
        accepted = ", ".join(names.Name(number) for number in table)
        name = names.Name(value) if value in names.values() else value
        raise InvalidRequest(field, f"{field} is {name}; accepted here: {accepted}")
    return table[cast(N, value)]
