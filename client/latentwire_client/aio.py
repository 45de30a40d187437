# SPDX-License-Identifier: Apache-2.0
"""The asyncio client: the methods of `Client`, awaited."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from typing import Any, Self, Unpack, cast, overload

import numpy.typing as npt
from grpc_health.v1 import health_pb2
from PIL import Image

from latentwire_client import _convert, _outbox
from latentwire_client._channels import AsyncConnections, Configured
from latentwire_client._images import ImageInput
from latentwire_client._outbox import T
from latentwire_client._settings import SERVICE
from latentwire_client._waiting import Waiting
from latentwire_client.config import CompressOptions, EncodeOptions
from latentwire_client.errors import Overloaded, Unavailable
from latentwire_client.info import ServerInfo
from latentwire_client.streams import AsyncStream
from latentwire_core.latents import Latents
from latentwire_proto.v1 import latent_codec_pb2 as pb


class AsyncClient(Configured[AsyncConnections]):
    """A latentwire server, seen from an event loop. One object serves any number of loops; an async context manager.

        async with AsyncClient("localhost:50051") as client:
            latents = await client.encode("cat.png")

    The arguments, results and errors are those of `Client`. A path is read in a thread, so that the loop goes on.
    """

    _connect = AsyncConnections

    async def info(self) -> ServerInfo:
        """Ask the server for its version, limits and models."""
        return ServerInfo.from_message(await self._call("GetServerInfo", pb.GetServerInfoRequest()))

    async def is_healthy(self) -> bool:
        """Ask whether the server is serving; False while it warms up or drains; raises Unavailable as `Client` does."""
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        connection = self._connections.current()
        with connection.mapped_errors():
            response = await connection.health.Check(request, timeout=self._settings.timeout.call_s)
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    @overload
    # A str is a Sequence[str] to the type checker; the first overload takes it.
    async def encode(self, image: ImageInput, **options: Unpack[EncodeOptions]) -> Latents: ...  # type: ignore[overload-overlap]
    @overload
    async def encode(self, image: Sequence[ImageInput], **options: Unpack[EncodeOptions]) -> list[Latents]: ...

    async def encode(
        self, image: ImageInput | Sequence[ImageInput], **options: Unpack[EncodeOptions]
    ) -> Latents | list[Latents]:
        """Map an image, or each of a list of images, to latents; see `Client.encode`."""
        if isinstance(image, list | tuple):
            return await _results(self.encode_stream(image, **options))
        common = _convert.to_encode_request(options, self._settings.model)
        request = await asyncio.to_thread(_convert.with_image, common, cast(ImageInput, image))
        return _convert.from_latents((await self._run("Encode", request)).latents)

    @overload
    # A str is a Sequence[str] to the type checker; the first overload takes it.
    async def compress(self, image: ImageInput, **options: Unpack[CompressOptions]) -> bytes: ...  # type: ignore[overload-overlap]
    @overload
    async def compress(self, image: Sequence[ImageInput], **options: Unpack[CompressOptions]) -> list[bytes]: ...

    async def compress(
        self, image: ImageInput | Sequence[ImageInput], **options: Unpack[CompressOptions]
    ) -> bytes | list[bytes]:
        """Map an image, or each of a list of images, to a `.lat` payload; see `Client.compress`."""
        if isinstance(image, list | tuple):
            return await _results(self.compress_stream(image, **options))
        common = _convert.to_compress_request(options, self._settings.model)
        request = await asyncio.to_thread(_convert.with_image, common, cast(ImageInput, image))
        return _convert.from_payloads((await self._run("Encode", request)).lat)

    @overload
    async def decompress(self, payload: bytes, *, model: str = "") -> Image.Image: ...
    @overload
    async def decompress(self, payload: Sequence[bytes], *, model: str = "") -> list[Image.Image]: ...

    async def decompress(self, payload: bytes | Sequence[bytes], *, model: str = "") -> Image.Image | list[Image.Image]:
        """Map a `.lat` payload, or each of a list of them, to PIL images; see `Client.decompress`."""
        return await self.decode(payload, model=model)

    @overload
    async def decode(self, latents: Latents | bytes, *, model: str = "") -> Image.Image: ...
    @overload
    async def decode(self, latents: Sequence[Latents | bytes], *, model: str = "") -> list[Image.Image]: ...

    async def decode(
        self, latents: Latents | bytes | Sequence[Latents | bytes], *, model: str = ""
    ) -> Image.Image | list[Image.Image]:
        """Map the latents or payload of one image, or each of a list, to PIL images; see `Client.decode`."""
        if _convert.is_single(latents):
            return _convert.single(await self.decode_array(latents, model=model), latents)
        return await _results(self.decode_stream(cast(Sequence[Latents | bytes], latents), model=model))

    async def decode_array(
        self, latents: Latents | bytes, *, dtype: str = "uint8", model: str = ""
    ) -> npt.NDArray[Any]:
        """Map latents to raw images; see `Client.decode_array`."""
        request = _convert.to_decode_request(latents, _convert.to_tensor_output(dtype), model or self._settings.model)
        return _convert.from_image_tensor((await self._run("Decode", request)).image_tensor)

    async def decode_files(
        self, latents: Latents | bytes, *, image_format: str = "png", quality: int | None = None, model: str = ""
    ) -> list[bytes]:
        """Map latents to the bytes of B image files; see `Client.decode_files`."""
        output = _convert.to_file_output(image_format, quality)
        request = _convert.to_decode_request(latents, output, model or self._settings.model)
        return list((await self._run("Decode", request)).image_files.files)

    def encode_stream(self, images: Iterable[ImageInput], **options: Unpack[EncodeOptions]) -> "AsyncStream[Latents]":
        """Map many images to latents, a bounded number in flight; see `Client.encode_stream`."""
        return AsyncStream(self._connections, "EncodeStream", _outbox.encode_outbox(images, options, self._settings))

    def compress_stream(self, images: Iterable[ImageInput], **options: Unpack[CompressOptions]) -> "AsyncStream[bytes]":
        """Map many images to `.lat` payloads; see `Client.compress_stream`."""
        return AsyncStream(self._connections, "EncodeStream", _outbox.compress_outbox(images, options, self._settings))

    def decode_stream(self, latents: Iterable[Latents | bytes], *, model: str = "") -> "AsyncStream[Image.Image]":
        """Map the latents of many single images, or their payloads, to PIL images; see `Client.decode_stream`."""
        return AsyncStream(self._connections, "DecodeStream", _outbox.decode_outbox(latents, model, self._settings))

    async def close(self) -> None:
        """Close this loop's channel; the next call makes another. Calls in flight are `Cancelled`."""
        await self._connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, method: str, request: Any) -> Any:
        response = await self._call(method, request)
        self._settings.report(response)
        return response

    async def _call(self, method: str, request: Any) -> Any:
        """Make a call, and make it again where waiting may help; see `Retry`."""
        settings, connection = self._settings, self._connections.current()
        waiting = Waiting(settings.retry, settings.timeout.call_s)
        while True:
            try:
                with connection.mapped_errors():
                    call = getattr(connection.codec, method)
                    response = await call(request, timeout=waiting.left_s, metadata=settings.address.metadata)
            except (Overloaded, Unavailable) as error:
                pause_s = waiting.pause_s(error, int(settings.retry.calls_reconnect and self._answered))
                if pause_s is None:
                    raise
            else:
                self._answered = True
                return response
            await connection.pause(pause_s)


async def _results(stream: AsyncStream[T]) -> list[T]:
    """Return the results in the order of the input; the first failure is raised, and ends the stream."""
    try:
        async with aclosing(stream.ordered()) as items:
            return [item.get() async for item in items]
    finally:
        await stream.close()
