# SPDX-License-Identifier: Apache-2.0
"""Images, latents or payloads of a stream -> its bookkeeping; shared by the sync and the asyncio client."""

import os
from collections.abc import Callable, Iterable, Sequence, Sized

from PIL import Image

from latentwire_client import _convert
from latentwire_client._images import ImageInput
from latentwire_client._outbox import Outbox, T
from latentwire_client.config import Limits, Timeout
from latentwire_client.info import OnExecution
from latentwire_client.options import CompressOptions, EncodeOptions
from latentwire_core.latents import Latents
from latentwire_proto.v1 import latent_codec_pb2 as pb


def encode_outbox(
    images: Iterable[ImageInput],
    options: EncodeOptions,
    default_model: str,
    timeout: Timeout,
    limits: Limits,
    on_execution: OnExecution | None,
) -> Outbox[Latents]:
    """Map images to the bookkeeping of an EncodeStream; raises what `to_encode_request` raises for options."""
    common = _convert.without_image(options, default_model)
    seeds = tuple(common.latents.seeds)
    common.latents.ClearField("seeds")

    def parse(response: pb.EncodeResponse) -> Latents:
        return _convert.from_latents(response.latents)

    return _encode_outbox(images, common, seeds, parse, timeout, limits, on_execution)


def compress_outbox(
    images: Iterable[ImageInput],
    options: CompressOptions,
    default_model: str,
    timeout: Timeout,
    limits: Limits,
    on_execution: OnExecution | None,
) -> Outbox[bytes]:
    """Map images to the bookkeeping of an EncodeStream of payloads; raises what `to_compress_request` does."""
    common = _convert.compress_without_image(options, default_model)

    def parse(response: pb.EncodeResponse) -> bytes:
        return _convert.from_payloads(response.lat)

    return _encode_outbox(images, common, (), parse, timeout, limits, on_execution)


def decode_outbox(
    latents: Iterable[Latents | bytes], model: str, timeout: Timeout, limits: Limits, on_execution: OnExecution | None
) -> Outbox[Image.Image]:
    """Map the latents of single images, or their payloads, to the bookkeeping of a DecodeStream."""
    _refuse_one(latents, "decode")

    def make(number: int, item: Latents | bytes) -> pb.DecodeStreamRequest:
        request = _convert.to_decode_request(item, _convert.PIXELS, model)
        return pb.DecodeStreamRequest(id=number, request=request, timeout_ns=timeout.stream_item_ns)

    def parse(item: Latents | bytes, response: pb.DecodeResponse) -> Image.Image:
        _convert.report(response, on_execution)
        return _convert.single(_convert.from_image_tensor(response.image_tensor), item)

    return Outbox(latents, make, parse, limits.in_flight)


def _encode_outbox(
    images: Iterable[ImageInput],
    common: pb.EncodeRequest,
    seeds: Sequence[int],
    from_response: Callable[[pb.EncodeResponse], T],
    timeout: Timeout,
    limits: Limits,
    on_execution: OnExecution | None,
) -> Outbox[T]:
    _refuse_one(images, "encode or compress")
    if seeds and isinstance(images, Sized) and len(images) != len(seeds):
        raise ValueError(f"there are {len(seeds)} seeds for {len(images)} images; give one for each")

    def make(number: int, image: ImageInput) -> pb.EncodeStreamRequest:
        request = _convert.with_image(common, image)
        if seeds:
            request.latents.seeds.extend(seeds[number : number + 1])
        return pb.EncodeStreamRequest(id=number, request=request, timeout_ns=timeout.stream_item_ns)

    def parse(_: ImageInput, response: pb.EncodeResponse) -> T:
        _convert.report(response, on_execution)
        return from_response(response)

    return Outbox(images, make, parse, limits.in_flight)


def _refuse_one(items: object, method: str) -> None:
    """Refuse what is one item but can be iterated over, such as the letters of a path."""
    if isinstance(items, str | bytes | bytearray | os.PathLike):
        raise TypeError(f"a stream takes many items, not one {type(items).__name__}; use {method}, or put it in a list")
