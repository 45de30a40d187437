# SPDX-License-Identifier: Apache-2.0
"""Protobuf messages <-> jobs and results; the only module that knows both."""

import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import numpy as np
import torch
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message
from torch import Tensor

from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_core.formats import ImageFormat
from latentwire_core.kinds import LatentKind
from latentwire_core.quality import LOSSLESS
from latentwire_proto import names
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_server.config import ServerConfig
from latentwire_server.engine.admission import most_images
from latentwire_server.engine.jobs import (
    DecodeJob,
    DecodeResult,
    EncodeJob,
    EncodeResult,
    Execution,
    FileOutput,
    PayloadJob,
)
from latentwire_server.errors import InvalidRequest

N = TypeVar("N", bound=int)
T = TypeVar("T")

FLOATS = {number: cast(torch.dtype, getattr(torch, name)) for name, number in names.FLOATS.items()}
DTYPES = {**FLOATS, pb.DTYPE_UINT8: torch.uint8}
TO_DTYPE = {dtype: number for number, dtype in DTYPES.items()}
# numpy has no bfloat16; its bits travel as 16-bit words. All are little-endian on the wire.
WORDS: dict[int, np.dtype[Any]] = {
    pb.DTYPE_FLOAT32: np.dtype("<f4"),
    pb.DTYPE_FLOAT16: np.dtype("<f2"),
    pb.DTYPE_BFLOAT16: np.dtype("<i2"),
    pb.DTYPE_UINT8: np.dtype("u1"),
}
TO_KIND = {LatentKind(name): number for name, number in names.KINDS.items()}
KINDS = {pb.LATENT_KIND_UNSPECIFIED: LatentKind.MODE} | {number: kind for kind, number in TO_KIND.items()}
SCALES = {
    pb.LATENT_SCALE_UNSPECIFIED: False,
    pb.LATENT_SCALE_RAW: False,
    pb.LATENT_SCALE_SCALED: True,
}
FORMATS = {pb.IMAGE_FORMAT_UNSPECIFIED: ImageFormat.PNG} | {
    number: ImageFormat(name) for name, number in names.IMAGE_FORMATS.items()
}
QUALITIES = {pb.LAT_QUALITY_UNSPECIFIED: "cache"} | {number: name for name, number in names.QUALITIES.items()}


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
    lat_quality = _to_quality(request.lat) if request.WhichOneof("output") == "lat" else None
    # Payloads are made of the mode, raw and unrounded.
    output = request.latents if lat_quality is None else pb.LatentOutput(dtype=pb.DTYPE_FLOAT32)
    kind = _known(output.kind, KINDS, "latents.kind", pb.LatentKind)
    scaled = _known(output.scale, SCALES, "latents.scale", pb.LatentScale)
    if kind is LatentKind.MOMENTS and scaled:
        raise InvalidRequest("latents.scale", "moments are always raw; ask for RAW, or for the mode")
    if output.seeds and kind is not LatentKind.SAMPLE:
        raise InvalidRequest("latents.seeds", f"seeds are for a sample, not for {kind.name.lower()}")
    return EncodeJob(
        model=request.model,
        image=image,
        target_size=_to_size(request, "target_size", "target_size"),
        kind=kind,
        scaled=scaled,
        dtype=_known(output.dtype or pb.DTYPE_FLOAT16, FLOATS, "latents.dtype", pb.DType),
        seeds=tuple(output.seeds),
        lat_quality=lat_quality,
        refinement=0 if lat_quality is None else request.lat.refinement,
    )


def to_decode_job(request: pb.DecodeRequest) -> DecodeJob | PayloadJob:
    """Map a message to a job; raises what `to_encode_job` raises."""
    which = request.WhichOneof("input")
    if which is None:
        raise InvalidRequest("input", "there are no latents; set latents or lat")
    if which == "lat":
        if not request.lat.payloads:
            raise InvalidRequest("lat.payloads", "there are no payloads; give one for each image")
        return PayloadJob(request.model, tuple(request.lat.payloads), _to_output(request))
    latents = request.latents
    values = _to_tensor(latents.values, "latents.values")
    if not values.is_floating_point():
        raise InvalidRequest("latents.values.dtype", "dtype is DTYPE_UINT8; latents are a float tensor")
    return DecodeJob(
        model=request.model,
        latents=values,
        scaled=_known(latents.scale, SCALES, "latents.scale", pb.LatentScale),
        image_size=_to_size(latents, "image_size", "latents.image_size"),
        latent_space=latents.latent_space,
        weights_digest=latents.weights_digest,
        output=_to_output(request),
    )


def _to_quality(output: pb.LatOutput) -> str | float:
    """Map how finely latents shall be kept to a quality as `compress_latents` takes it."""
    if output.WhichOneof("fineness") != "step":
        quality = _known(output.quality, QUALITIES, "lat.quality", pb.LatQuality)
        if output.refinement and quality == LOSSLESS:
            raise InvalidRequest(
                "lat.refinement",
                f"refinement is {output.refinement}, but lossless keeps latents as they are; "
                "leave it out, or take another quality",
            )
        return quality
    if not 0 < output.step < math.inf:
        raise InvalidRequest("lat.step", f"step is {output.step}; it must be a finite number above 0")
    return output.step


def _to_output(request: pb.DecodeRequest) -> FileOutput | torch.dtype:
    """Map the wanted form of the images to files, or to the dtype of a tensor."""
    if request.WhichOneof("output") == "image_files":
        files = request.image_files
        if files.quality > 100:
            raise InvalidRequest("image_files.quality", f"quality is {files.quality}; it must be in 1..100")
        image_format = _known(files.format, FORMATS, "image_files.format", pb.ImageFormat)
        if files.quality and image_format is ImageFormat.PNG:
            raise InvalidRequest(
                "image_files.quality",
                f"quality is {files.quality}, but PNG is lossless; leave it out, or take JPEG, WebP or AVIF",
            )
        return FileOutput(image_format, files.quality or None)
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
    """Map the configuration to what the server advertises."""
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
        class_name=spec.class_name,
        latent_space=spec.latent_space,
        weights_digest=spec.weights_digest,
        file_sha256=spec.file_sha256,
        latent_channels=spec.latent_channels,
        downsample_factor=spec.downsample_factor,
        scale=spec.scale,
        shift=spec.shift,
        has_logvar=spec.has_logvar,
        fixed_size=None if fixed is None else pb.ImageSize(height=fixed[0], width=fixed[1]),
        parameters=spec.parameters,
        dtype=f"DTYPE_{spec.dtype.upper()}",
        device=spec.device,
        config_json=json.dumps(dict(spec.config), sort_keys=True),
        loaded=loaded,
    )


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
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise InvalidRequest(field, f"image tensor is {dtype} {tuple(tensor.shape)}; {layout} means {wanted}")
    return tensor


def _to_tensor(message: pb.Tensor, field: str) -> Tensor:
    """Map a message to a tensor of its own memory: one copy out of the message's bytes."""
    dtype = _known(message.dtype, DTYPES, f"{field}.dtype", pb.DType)
    words = WORDS[message.dtype]
    if len(message.shape) != 4:
        raise InvalidRequest(f"{field}.shape", f"tensor has {len(message.shape)} axes; it needs 4, such as (B,C,h,w)")
    shape = tuple(message.shape)
    if min(shape) < 1:
        raise InvalidRequest(f"{field}.shape", f"tensor has the shape {shape}; it needs sides of at least 1")
    wanted = math.prod(shape) * words.itemsize
    if len(message.data) != wanted:
        name = pb.DType.Name(message.dtype).removeprefix("DTYPE_").lower()
        raise InvalidRequest(
            f"{field}.data", f"tensor has {len(message.data)} bytes; {name} of the shape {shape} takes {wanted}"
        )
    array = np.frombuffer(message.data, words).reshape(shape).copy()
    return torch.from_numpy(array).view(dtype)


def _from_tensor(tensor: Tensor) -> pb.Tensor:
    words = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    return pb.Tensor(dtype=TO_DTYPE[tensor.dtype], shape=tuple(tensor.shape), data=words.numpy().tobytes())


def _from_execution(execution: Execution) -> pb.Execution:
    return pb.Execution(
        queue_ns=execution.queue_ns,
        compute_ns=execution.compute_ns,
        coding_ns=execution.coding_ns,
        batch_size=execution.batch_size,
        float32_retry=execution.float32_retry,
        model=execution.model,
        weights_digest=execution.weights_digest,
        approximate_tiling=execution.approximate_tiling,
    )


def _to_size(message: Message, name: str, field: str) -> tuple[int, int] | None:
    """Map an optional ImageSize to (height, width)."""
    if not message.HasField(name):
        return None
    size: pb.ImageSize = getattr(message, name)
    if not size.height or not size.width:
        raise InvalidRequest(field, f"{field} is {size.width}x{size.height}; each side must be >= 1")
    return size.height, size.width


def _known(value: int, table: Mapping[N, T], field: str, names: EnumTypeWrapper) -> T:
    """Look an enum's number up, or refuse it with the names that would do."""
    if value not in table:
        accepted = ", ".join(names.Name(number) for number in table)
        name = names.Name(value) if value in names.values() else value
        raise InvalidRequest(field, f"{field} is {name}; accepted here: {accepted}")
    return table[cast(N, value)]
