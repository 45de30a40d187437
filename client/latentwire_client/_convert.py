# SPDX-License-Identifier: Apache-2.0
"""Images and latents <-> protobuf messages; shared by the sync and the asyncio client."""

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from latentwire_client._images import ImageInput, to_file
from latentwire_client._outbox import Outbox
from latentwire_client.config import Limits, Timeout
from latentwire_client.info import Execution, ModelInfo, OnExecution, ServerInfo, ServerLimits
from latentwire_client.latents import MAX_SEED, Array, LatentKind, Latents
from latentwire_client.options import EncodeOptions
from latentwire_proto.v1 import latent_codec_pb2 as pb

KINDS = {
    LatentKind.MODE: pb.LATENT_KIND_MODE,
    LatentKind.SAMPLE: pb.LATENT_KIND_SAMPLE,
    LatentKind.MOMENTS: pb.LATENT_KIND_MOMENTS,
}
FROM_KIND = {pb.LATENT_KIND_UNSPECIFIED: LatentKind.MODE} | {number: kind for kind, number in KINDS.items()}
DTYPES = {"float32": pb.DTYPE_FLOAT32, "float16": pb.DTYPE_FLOAT16, "bfloat16": pb.DTYPE_BFLOAT16}
FORMATS = {
    "png": pb.IMAGE_FORMAT_PNG,
    "jpeg": pb.IMAGE_FORMAT_JPEG,
    "webp": pb.IMAGE_FORMAT_WEBP,
    "avif": pb.IMAGE_FORMAT_AVIF,
}
PIXELS = pb.ImageTensorOutput(layout=pb.IMAGE_LAYOUT_UINT8_NHWC)


def to_encode_request(image: ImageInput, options: EncodeOptions, default_model: str) -> pb.EncodeRequest:
    """Map an image and options to a request.

    Raises:
        OSError: the path cannot be read.
        TypeError, ValueError: the image or an option is nothing that can be sent.
    """
    return _with_image(_without_image(options, default_model), image)


def _without_image(options: EncodeOptions, default_model: str) -> pb.EncodeRequest:
    unknown = sorted(options.keys() - EncodeOptions.__optional_keys__)
    if unknown:
        known = ", ".join(sorted(EncodeOptions.__optional_keys__))
        raise TypeError(f"there is no option {unknown[0]!r}; the options are {known}")
    dtype = options.get("dtype", "float16")
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    seeds = tuple(options.get("seeds", ()))
    for seed in seeds:
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed is {seed}; it must be in 0..2^64-1")
    request = pb.EncodeRequest(
        model=options.get("model") or default_model,
        latents=pb.LatentOutput(
            kind=KINDS[LatentKind(options.get("kind", LatentKind.MODE))],
            scale=pb.LATENT_SCALE_SCALED if options.get("scaled") else pb.LATENT_SCALE_RAW,
            dtype=DTYPES[dtype],
            seeds=seeds,
        ),
    )
    size = options.get("size")
    if size is not None:
        request.target_size.CopyFrom(_to_size(size))
    return request


def _with_image(options: pb.EncodeRequest, image: ImageInput) -> pb.EncodeRequest:
    request = pb.EncodeRequest()
    request.CopyFrom(options)
    if isinstance(image, np.ndarray):
        request.image_tensor.CopyFrom(to_image_tensor(image))
    else:
        request.image_file = to_file(image)
    return request


def to_decode_request(
    latents: Latents, output: pb.ImageTensorOutput | pb.ImageFileOutput, model: str
) -> pb.DecodeRequest:
    """Map latents and the wanted form of the images to a request."""
    message = to_latents(replace(latents, logvar=None))  # decoding has no use for it
    if isinstance(output, pb.ImageFileOutput):
        return pb.DecodeRequest(model=model, latents=message, image_files=output)
    return pb.DecodeRequest(model=model, latents=message, image_tensor=output)


def to_latents(latents: Latents) -> pb.Latents:
    """Map latents to their message."""
    message = pb.Latents(
        values=_to_tensor(latents.values),
        logvar=None if latents.logvar is None else _to_tensor(latents.logvar),
        kind=KINDS[latents.kind],
        scale=pb.LATENT_SCALE_SCALED if latents.scaled else pb.LATENT_SCALE_RAW,
        model=latents.model,
        latent_space=latents.latent_space,
        weights_digest=latents.weights_digest,
    )
    if latents.image_size is not None:
        message.image_size.CopyFrom(_to_size(latents.image_size))
    return message


def to_tensor_output(dtype: str) -> pb.ImageTensorOutput:
    """Map `uint8`, or a float dtype, to the wanted form of raw images; raises ValueError for another."""
    if dtype == "uint8":
        return PIXELS
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; it must be one of uint8, {', '.join(DTYPES)}")
    return pb.ImageTensorOutput(layout=pb.IMAGE_LAYOUT_FLOAT_NCHW, dtype=DTYPES[dtype])


def to_file_output(image_format: str, quality: int | None) -> pb.ImageFileOutput:
    """Map a format's name and a quality to the wanted form of image files; raises ValueError where unknown."""
    if image_format not in FORMATS:
        raise ValueError(f"format is {image_format!r}; it must be one of {', '.join(FORMATS)}")
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}; it must be in 1..100")
    return pb.ImageFileOutput(format=FORMATS[image_format], quality=quality or 0)


def from_latents(message: pb.Latents) -> Latents:
    """Map a message to latents; bfloat16 becomes float32.

    Raises:
        ValueError: the message is of a kind or dtype that is not known here, or contradicts itself.
    """
    size = message.image_size
    return Latents(
        values=cast(Array, _from_tensor(message.values)),
        logvar=cast(Array, _from_tensor(message.logvar)) if message.HasField("logvar") else None,
        kind=FROM_KIND.get(message.kind) or LatentKind(str(message.kind)),
        scaled=message.scale == pb.LATENT_SCALE_SCALED,
        image_size=(size.height, size.width) if message.HasField("image_size") else None,
        model=message.model,
        latent_space=message.latent_space,
        weights_digest=message.weights_digest,
    )


def from_image_tensor(message: pb.ImageTensor) -> npt.NDArray[np.generic]:
    """Map raw images to an array: uint8 (B,H,W,3) or float (B,3,H,W)."""
    return _from_tensor(message.tensor)


def report(response: pb.EncodeResponse | pb.DecodeResponse, on_execution: OnExecution | None) -> None:
    """Tell `on_execution`, where there is one, how the server carried out what it answers."""
    if on_execution is None:
        return
    execution = response.execution
    on_execution(
        Execution(
            queue_s=execution.queue_ns / 1e9,
            compute_s=execution.compute_ns / 1e9,
            coding_s=execution.coding_ns / 1e9,
            batch_size=execution.batch_size,
            float32_retry=execution.float32_retry,
            model=execution.model,
            weights_digest=execution.weights_digest,
        )
    )


def from_info(message: pb.GetServerInfoResponse) -> ServerInfo:
    """Map what a server says of itself to plain values."""
    limits = message.limits
    return ServerInfo(
        version=message.version,
        limits=ServerLimits(
            max_message_bytes=limits.max_message_bytes,
            max_image_side=limits.max_image_side,
            max_image_pixels=limits.max_image_pixels,
            max_batch_images=limits.max_batch_images,
            max_queue_images=limits.max_queue_images,
            stream_window=limits.stream_window,
        ),
        models=tuple(_from_model(model) for model in message.models),
    )


def encode_outbox(
    images: Iterable[ImageInput],
    options: EncodeOptions,
    default_model: str,
    timeout: Timeout,
    limits: Limits,
    on_execution: OnExecution | None,
) -> Outbox[Latents]:
    """Map images to the bookkeeping of an EncodeStream; raises what `to_encode_request` raises for options."""
    _refuse_one(images)
    common = _without_image(options, default_model)
    seeds = tuple(options.get("seeds", ()))

    def make(number: int, image: ImageInput) -> pb.EncodeStreamRequest:
        request = _with_image(common, image)
        request.latents.ClearField("seeds")
        request.latents.seeds.extend(seeds[number : number + 1])
        return pb.EncodeStreamRequest(id=number, request=request, timeout_ns=timeout.stream_item_ns)

    def parse(_: ImageInput, response: pb.EncodeResponse) -> Latents:
        report(response, on_execution)
        return from_latents(response.latents)

    return Outbox(images, make, parse, limits.in_flight)


def _refuse_one(images: object) -> None:
    """Refuse what is one image but can be iterated over, such as the letters of a path."""
    if isinstance(images, str | bytes | bytearray | os.PathLike):
        raise TypeError(f"a stream takes many images, not one {type(images).__name__}; use encode, or put it in a list")


def decode_outbox(
    latents: Iterable[Latents], model: str, timeout: Timeout, limits: Limits, on_execution: OnExecution | None
) -> Outbox[Image.Image]:
    """Map the latents of single images to the bookkeeping of a DecodeStream."""

    def make(number: int, item: Latents) -> pb.DecodeStreamRequest:
        request = to_decode_request(item, PIXELS, model)
        return pb.DecodeStreamRequest(id=number, request=request, timeout_ns=timeout.stream_item_ns)

    def parse(item: Latents, response: pb.DecodeResponse) -> Image.Image:
        report(response, on_execution)
        return single(from_image_tensor(response.image_tensor), item)

    return Outbox(latents, make, parse, limits.in_flight)


def single(pixels: npt.NDArray[np.generic], latents: Latents) -> Image.Image:
    """Map uint8 (1,H,W,3) to a PIL image.

    Raises:
        ValueError: the latents are of several images.
    """
    if len(latents) != 1:
        raise ValueError(f"these are the latents of {len(latents)} images; decode latents.split(), or use decode_array")
    return Image.fromarray(pixels[0])


def _from_model(model: pb.ModelInfo) -> ModelInfo:
    fixed = model.fixed_size
    return ModelInfo(
        name=model.name,
        class_name=model.class_name,
        latent_space=model.latent_space,
        weights_digest=model.weights_digest,
        file_sha256=model.file_sha256,
        latent_channels=model.latent_channels,
        downsample_factor=model.downsample_factor,
        scale=tuple(model.scale),
        shift=tuple(model.shift),
        has_logvar=model.has_logvar,
        fixed_size=(fixed.height, fixed.width) if model.HasField("fixed_size") else None,
        parameters=model.parameters,
        dtype=pb.DType.Name(model.dtype).removeprefix("DTYPE_").lower(),
        device=model.device,
        config=json.loads(model.config_json or "{}"),
        loaded=model.loaded,
    )


def to_image_tensor(array: npt.NDArray[np.generic]) -> pb.ImageTensor:
    """Map an array as `ImageInput` describes it to raw images; raises ValueError for another."""
    batch = array[np.newaxis] if array.ndim == 3 else array
    if batch.ndim == 4 and batch.dtype == np.uint8 and batch.shape[3] == 3:
        return pb.ImageTensor(tensor=_to_tensor(batch), layout=pb.IMAGE_LAYOUT_UINT8_NHWC)
    if batch.ndim == 4 and batch.dtype.newbyteorder("=") in (np.float32, np.float16) and batch.shape[1] == 3:
        return pb.ImageTensor(tensor=_to_tensor(batch), layout=pb.IMAGE_LAYOUT_FLOAT_NCHW)
    raise ValueError(
        f"image array is {array.dtype} {array.shape}; uint8 (H,W,3) or (B,H,W,3) in 0..255, "
        "or float32 or float16 (3,H,W) or (B,3,H,W) in [-1,1] is needed"
    )


def _to_size(size: tuple[int, int]) -> pb.ImageSize:
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size is (height, width) = {size}; each must be at least 1")
    return pb.ImageSize(height=height, width=width)


WORDS = {
    np.dtype(np.float32): (pb.DTYPE_FLOAT32, "<f4"),
    np.dtype(np.float16): (pb.DTYPE_FLOAT16, "<f2"),
    np.dtype(np.uint8): (pb.DTYPE_UINT8, "u1"),
}
FROM_WORDS = dict(WORDS.values())


def _to_tensor(array: npt.NDArray[np.generic]) -> pb.Tensor:
    dtype, words = WORDS[array.dtype.newbyteorder("=")]
    return pb.Tensor(dtype=dtype, shape=array.shape, data=array.astype(words, copy=False).tobytes())


def _from_tensor(message: pb.Tensor) -> npt.NDArray[np.generic]:
    """Map a message to an array of its own memory; bfloat16 is the upper half of a float32.

    Raises:
        ValueError: there is no tensor, its dtype is not known here, or its bytes don't fit its shape.
    """
    shape = tuple(message.shape)
    if message.dtype == pb.DTYPE_BFLOAT16:
        halves = np.frombuffer(message.data, "<u2").astype(np.uint32)
        return (halves << np.uint32(16)).view(np.float32).reshape(shape)
    if message.dtype not in FROM_WORDS:
        raise ValueError(f"a tensor of {shape} has the dtype number {message.dtype}, which this version does not know")
    array = np.frombuffer(message.data, FROM_WORDS[message.dtype]).reshape(shape)
    return array.astype(array.dtype.newbyteorder("="))
