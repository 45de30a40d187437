# SPDX-License-Identifier: Apache-2.0
"""Images and latents <-> protobuf messages; shared by the sync and the asyncio client."""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from operator import index
from typing import SupportsIndex, TypeGuard, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from latentwire_client._images import ImageInput, to_file
from latentwire_client.config import CompressOptions, EncodeOptions
from latentwire_core.kinds import LatentKind
from latentwire_core.latents import Array, Latents
from latentwire_core.noise import check_seed
from latentwire_core.quality import step_multiple
from latentwire_proto import names
from latentwire_proto.v1 import latent_codec_pb2 as pb

FROM_KIND = {pb.LATENT_KIND_UNSPECIFIED: LatentKind.MODE} | {
    number: LatentKind(name) for name, number in names.KINDS.items()
}
MAX_UINT32 = 2**32 - 1
PIXELS = pb.ImageTensorOutput(layout=pb.IMAGE_LAYOUT_UINT8_NHWC)


def to_encode_request(options: EncodeOptions, default_model: str) -> pb.EncodeRequest:
    """Map options to a request that lacks its image; raise TypeError or ValueError where one cannot be sent."""
    _refuse_unknown(options, EncodeOptions.__optional_keys__)
    dtype = options.get("dtype", "float16")
    if dtype not in names.FLOATS:
        raise ValueError(f"dtype is {dtype!r}; it must be one of {', '.join(names.FLOATS)}")
    seeds = [check_seed(seed) for seed in options.get("seeds", ())]
    request = pb.EncodeRequest(
        model=options.get("model") or default_model,
        latents=pb.LatentOutput(
            kind=names.KINDS[LatentKind(options.get("kind", LatentKind.MODE))],
            scale=pb.LATENT_SCALE_SCALED if options.get("scaled") else pb.LATENT_SCALE_RAW,
            dtype=names.FLOATS[dtype],
            seeds=seeds,
        ),
    )
    return _with_size(request, options.get("size"))


def to_compress_request(options: CompressOptions, default_model: str) -> pb.EncodeRequest:
    """Map options to a request for a `.lat` payload that lacks its image; raise as `to_encode_request`."""
    _refuse_unknown(options, CompressOptions.__optional_keys__)
    request = pb.EncodeRequest(
        model=options.get("model") or default_model,
        lat=_to_lat_output(options.get("quality", "cache"), options.get("refinement", 0)),
    )
    return _with_size(request, options.get("size"))


def _refuse_unknown(options: Mapping[str, object], known: Collection[str]) -> None:
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise TypeError(f"there is no option {unknown[0]!r}; the options are {', '.join(sorted(known))}")


def _to_lat_output(quality: str | float, refinement: int) -> pb.LatOutput:
    """Map a quality (a name, or the quantizer's step) and iterations to the form of payloads; else raise ValueError."""
    iterations = _integer(refinement)
    if iterations is None or not 0 <= iterations <= MAX_UINT32:
        raise ValueError(f"refinement is {refinement!r}; it must be a number of iterations in 0..2^32-1")
    step_multiple(quality)
    if isinstance(quality, str):
        return pb.LatOutput(quality=names.QUALITIES[quality], refinement=iterations)
    return pb.LatOutput(step=quality, refinement=iterations)


def _integer(value: object) -> int | None:
    """Map an integer of any library to an int; None for anything else."""
    try:
        return index(cast(SupportsIndex, value))
    except TypeError:
        return None


def _with_size(request: pb.EncodeRequest, size: tuple[int, int] | None) -> pb.EncodeRequest:
    if size is not None:
        request.target_size.CopyFrom(_to_size(size))
    return request


def with_image(common: pb.EncodeRequest, image: ImageInput) -> pb.EncodeRequest:
    """Copy a request that lacks its image, and give the copy one.

    Raises:
        OSError: the path cannot be read.
        TypeError, ValueError: the image cannot be sent.
    """
    request = pb.EncodeRequest()
    request.CopyFrom(common)
    if isinstance(image, np.ndarray):
        request.image_tensor.CopyFrom(to_image_tensor(image))
    else:
        request.image_file = to_file(image)
    return request


def is_single(latents: object) -> TypeGuard[Latents | bytes]:
    """Tell one item to decode from many. A path, which could be iterated over, counts as one and is refused later."""
    return isinstance(latents, Latents | bytes | str | os.PathLike)


def to_decode_request(
    latents: Latents | bytes, output: pb.ImageTensorOutput | pb.ImageFileOutput, model: str
) -> pb.DecodeRequest:
    """Map latents or a `.lat` payload, and the wanted form of the images, to a request; else raise TypeError."""
    request = pb.DecodeRequest(model=model)
    if isinstance(latents, Latents):
        request.latents.CopyFrom(to_latents(replace(latents, logvar=None)))  # decoding has no use for it
    elif isinstance(latents, bytes):
        request.lat.payloads.append(latents)
    else:
        raise TypeError(
            f"latents are a {type(latents).__name__}; Latents (`Latents.load(path)`), the bytes of a .lat payload "
            "(`path.read_bytes()`), or a list of them can be decoded"
        )
    if isinstance(output, pb.ImageFileOutput):
        request.image_files.CopyFrom(output)
    else:
        request.image_tensor.CopyFrom(output)
    return request


def to_latents(latents: Latents) -> pb.Latents:
    """Map latents to their message."""
    message = pb.Latents(
        values=_to_tensor(latents.values),
        logvar=None if latents.logvar is None else _to_tensor(latents.logvar),
        kind=names.KINDS[latents.kind],
        scale=pb.LATENT_SCALE_SCALED if latents.scaled else pb.LATENT_SCALE_RAW,
        model=latents.model,
        latent_space=latents.latent_space,
        weights_digest=latents.weights_digest,
    )
    if latents.image_size is not None:
        message.image_size.CopyFrom(_to_size(latents.image_size))
    return message


def to_tensor_output(dtype: str) -> pb.ImageTensorOutput:
    """Map `uint8`, or a float dtype, to the wanted form of raw images; raise ValueError for another dtype."""
    if dtype == "uint8":
        return PIXELS
    if dtype not in names.FLOATS:
        raise ValueError(f"dtype is {dtype!r}; it must be one of uint8, {', '.join(names.FLOATS)}")
    return pb.ImageTensorOutput(layout=pb.IMAGE_LAYOUT_FLOAT_NCHW, dtype=names.FLOATS[dtype])


def to_file_output(image_format: str, quality: int | None) -> pb.ImageFileOutput:
    """Map a format's name and a quality to the wanted form of image files; raise ValueError where one is unknown."""
    if image_format not in names.IMAGE_FORMATS:
        raise ValueError(f"format is {image_format!r}; it must be one of {', '.join(names.IMAGE_FORMATS)}")
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}; it must be in 1..100")
    return pb.ImageFileOutput(format=names.IMAGE_FORMATS[image_format], quality=quality or 0)


def from_payloads(message: pb.LatPayloads) -> bytes:
    """Return the only payload of an answer; raise ValueError where it holds no payload, or several."""
    if len(message.payloads) != 1:
        raise ValueError(
            f"the answer holds {len(message.payloads)} payloads; compress one image at a time, or a list of images"
        )
    return message.payloads[0]


def from_latents(message: pb.Latents) -> Latents:
    """Map a message to latents; bfloat16 becomes float32.

    Raises:
        ValueError: the kind or the dtype is unknown to this version, or the message contradicts itself.
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


def single(pixels: npt.NDArray[np.generic], latents: Latents | bytes) -> Image.Image:
    """Map uint8 (1,H,W,3), decoded from `latents`, to a PIL image; raise ValueError for latents of several images."""
    if isinstance(latents, Latents) and len(latents) != 1:
        raise ValueError(f"these are the latents of {len(latents)} images; decode latents.split(), or use decode_array")
    return Image.fromarray(pixels[0])


def to_image_tensor(array: npt.NDArray[np.generic]) -> pb.ImageTensor:
    """Map an array as `ImageInput` describes it to raw images; raise ValueError for any other array."""
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
    sides = [_integer(side) or 0 for side in size] if isinstance(size, Iterable) else []
    if len(sides) != 2 or not all(1 <= side <= MAX_UINT32 for side in sides):
        raise ValueError(f"size is {size!r}; it must be (height, width), each in 1..2^32-1")
    return pb.ImageSize(height=sides[0], width=sides[1])


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
    """Map a message to an array of its own memory, or raise ValueError; bfloat16 is the upper half of a float32."""
    shape = tuple(message.shape)
    if message.dtype == pb.DTYPE_BFLOAT16:
        halves = np.frombuffer(message.data, "<u2").astype(np.uint32)
        return (halves << np.uint32(16)).view(np.float32).reshape(shape)
    if message.dtype not in FROM_WORDS:
        raise ValueError(f"a tensor of {shape} has the dtype number {message.dtype}, which this version does not know")
    array = np.frombuffer(message.data, FROM_WORDS[message.dtype]).reshape(shape)
    return array.astype(array.dtype.newbyteorder("="))
