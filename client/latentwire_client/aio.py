# SPDX-License-Identifier: Apache-2.0
"""The asyncio client: the methods of `Client`, awaited."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from types import TracebackType
from typing import Any, Self, Unpack, cast, overload

import grpc
import grpc.aio
import numpy.typing as npt
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from latentwire_client import _convert, _outboxes
from latentwire_client._channel import SERVICE, Address
from latentwire_client._images import ImageInput
from latentwire_client._outage import Outage
from latentwire_client._outbox import Outbox, StreamItem, T
from latentwire_client.config import Limits, Retry, Timeout, check_settings
from latentwire_client.errors import Cancelled, ServerFault, TooLarge, Unavailable, from_rpc_error
from latentwire_client.info import OnExecution, ServerInfo
from latentwire_client.options import CompressOptions, EncodeOptions
from latentwire_core.latents import Latents
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub

HIDDEN_STATUS = "Internal error from Core"


class AsyncClient:
    """A latentwire server, seen from an event loop. One object serves any number of loops; an async context manager.

    The arguments, results and errors are those of `Client`. A path is read in a thread, so that the loop goes on.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        model: str = "",
        timeout: Timeout = Timeout(),
        retry: Retry = Retry(),
        limits: Limits = Limits(),
        token: str | None = None,
        tls: bool | str | os.PathLike[str] = False,
        on_execution: OnExecution | None = None,
    ) -> None:
        check_settings(timeout, retry, limits)
        self._address = Address.choose(target, token, tls)
        self._model = model
        self._timeout = timeout
        self._retry = retry
        self._limits = limits
        self._on_execution = on_execution
        # A channel belongs to its loop, and doesn't survive a fork.
        self._channels: dict[tuple[int, asyncio.AbstractEventLoop], grpc.aio.Channel] = {}

    @property
    def target(self) -> str:
        """The server's address."""
        return self._address.target

    async def info(self) -> ServerInfo:
        """Ask the server for its version, limits and models."""
        return _convert.from_info(await self._call("GetServerInfo", pb.GetServerInfoRequest()))

    async def is_healthy(self) -> bool:
        """Ask whether the server is serving; False while it warms up or drains; raises Unavailable as `Client` does."""
        stub: Any = health_pb2_grpc.HealthStub(self._channel())
        with _mapped_errors(self.target):
            request = health_pb2.HealthCheckRequest(service=SERVICE)
            response = await stub.Check(request, timeout=self._timeout.call_s)
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
        request = await asyncio.to_thread(_convert.to_encode_request, cast(ImageInput, image), options, self._model)
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
        request = await asyncio.to_thread(_convert.to_compress_request, cast(ImageInput, image), options, self._model)
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
        request = _convert.to_decode_request(latents, _convert.to_tensor_output(dtype), model or self._model)
        return _convert.from_image_tensor((await self._run("Decode", request)).image_tensor)

    async def decode_files(
        self, latents: Latents | bytes, *, image_format: str = "png", quality: int | None = None, model: str = ""
    ) -> list[bytes]:
        """Map latents to the bytes of B image files; see `Client.decode_files`."""
        output = _convert.to_file_output(image_format, quality)
        request = _convert.to_decode_request(latents, output, model or self._model)
        return list((await self._run("Decode", request)).image_files.files)

    def encode_stream(self, images: Iterable[ImageInput], **options: Unpack[EncodeOptions]) -> "AsyncStream[Latents]":
        """Map many images to latents, a bounded number in flight; see `Client.encode_stream`."""
        return AsyncStream(
            self, "EncodeStream",
            _outboxes.encode_outbox(images, options, self._model, self._timeout, self._limits, self._on_execution),
        )  # fmt: skip

    def compress_stream(self, images: Iterable[ImageInput], **options: Unpack[CompressOptions]) -> "AsyncStream[bytes]":
        """Map many images to `.lat` payloads; see `Client.compress_stream`."""
        return AsyncStream(
            self, "EncodeStream",
            _outboxes.compress_outbox(images, options, self._model, self._timeout, self._limits, self._on_execution),
        )  # fmt: skip

    def decode_stream(self, latents: Iterable[Latents | bytes], *, model: str = "") -> "AsyncStream[Image.Image]":
        """Map the latents of many single images, or their payloads, to PIL images; see `Client.decode_stream`."""
        return AsyncStream(
            self, "DecodeStream",
            _outboxes.decode_outbox(
                latents, model or self._model, self._timeout, self._limits, self._on_execution
            ),
        )  # fmt: skip

    async def close(self) -> None:
        """Close this loop's channel; the next call would make another."""
        channel = self._channels.pop((os.getpid(), asyncio.get_running_loop()), None)
        if channel is not None:
            await channel.close()

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel."""
        await self.close()

    def __getstate__(self) -> Mapping[str, Any]:
        """Pickle without the channels."""
        return {**self.__dict__, "_channels": {}}

    def _channel(self) -> grpc.aio.Channel:
        key = (os.getpid(), asyncio.get_running_loop())
        if key not in self._channels:
            for other in list(self._channels):
                if other[1].is_closed():
                    self._channels.pop(other, None)
            self._channels[key] = self._address.open(grpc.aio, self._limits, self._retry)
        return self._channels[key]

    async def _run(self, method: str, request: Any) -> Any:
        response = await self._call(method, request)
        _convert.report(response, self._on_execution)
        return response

    async def _call(self, method: str, request: Any) -> Any:
        call = getattr(LatentCodecServiceStub(self._channel()), method)
        with _mapped_errors(self.target):
            return await call(request, timeout=self._timeout.call_s, metadata=self._address.metadata)

    def _open_stream(self, method: str, requests: AsyncIterator[Any]) -> Any:
        return getattr(LatentCodecServiceStub(self._channel()), method)(requests, metadata=self._address.metadata)


class AsyncStream(AsyncIterator[StreamItem[T]]):
    """The answers to a stream of items, as they are done; `client.Stream`, awaited."""

    def __init__(self, client: AsyncClient, method: str, outbox: Outbox[T]) -> None:
        # The generator doesn't know the stream: without a cycle, a stream that is dropped ends at once.
        self._items = _items(client, method, outbox)
        self._outbox = outbox
        self._is_closed = False

    async def __anext__(self) -> StreamItem[T]:
        """Return the next item that is done.

        Raises:
            LatentwireError: the stream as a whole failed, and trying again did not help.
            RuntimeError: it failed or was interrupted before; there is more that has no answer.
        """
        try:
            return await anext(self._items)
        except StopAsyncIteration:
            if not self._is_closed:
                self._outbox.check_finished()
            raise

    async def ordered(self) -> AsyncGenerator[StreamItem[T], None]:
        """Iterate in the order of the input; what is done early is held until its turn."""
        early: dict[int, StreamItem[T]] = {}
        turn = 0
        async for item in self:
            early[item.index] = item
            while turn in early:
                yield early.pop(turn)
                turn += 1

    async def close(self) -> None:
        """End the stream early; what is in flight is cancelled."""
        self._is_closed = True
        await self._items.aclose()


async def _results(stream: AsyncStream[T]) -> list[T]:
    """Return the results in the order of the input; the first failure is raised, and ends the stream."""
    try:
        async with aclosing(stream.ordered()) as items:
            return [item.get() async for item in items]
    finally:
        await stream.close()


@contextmanager
def _mapped_errors(target: str) -> Iterator[None]:
    """Map what gRPC raises to what the client raises.

    When another task closes the channel, gRPC raises CancelledError as if the waiting task had been cancelled, which
    a task group would take for a silent end.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error, target) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Cancelled(grpc.StatusCode.CANCELLED, f"the channel to {target} was closed during the call") from None


# A generator that is dropped half-way is closed by the loop, some time later; `aclosing` does it in place.


async def _items(client: AsyncClient, method: str, outbox: Outbox[T]) -> AsyncGenerator[StreamItem[T], None]:
    """Run calls until every item has its answer."""
    outage = Outage(client._retry)
    while not outbox.finished:
        try:
            async with aclosing(_connection(client, method, outbox)) as items:
                async for item in items:
                    yield item
        except Unavailable:
            if outbox.finished:  # a draining server ends the call so even when nothing is left to answer
                return
            pause_s = outage.pause_s(outbox.answers)
            if outbox.source_failed or pause_s is None:
                raise
            await asyncio.sleep(pause_s)
        except TooLarge as error:  # gRPC ends the whole call for one message that is over a limit
            if (blamed := outbox.blame(error)) is not None:
                yield blamed


async def _connection(client: AsyncClient, method: str, outbox: Outbox[T]) -> AsyncGenerator[StreamItem[T], None]:
    """Run one call: what has no answer yet goes first; each answer makes room for a further item."""
    requests: asyncio.Queue[Any] = asyncio.Queue()

    async def sending() -> AsyncIterator[Any]:
        while (request := await requests.get()) is not None:
            yield request

    call = client._open_stream(method, sending())
    try:
        outbox.begin()
        async with aclosing(_feed(outbox, requests)) as failed:
            async for item in failed:
                yield item
        while not outbox.finished:
            try:
                with _mapped_errors(client.target):
                    response = await call.read()
            except ServerFault as error:
                # A write that meets the end of the call hides the server's status (grpc/grpc#36066); what had no
                # answer is sent again, and if the status was another than UNAVAILABLE the next call will say so.
                if error.details != HIDDEN_STATUS:
                    raise
                raise Unavailable(grpc.StatusCode.UNAVAILABLE, f"{client.target} ended the stream") from error
            if response is grpc.aio.EOF:
                raise Unavailable(grpc.StatusCode.UNAVAILABLE, f"{client.target} ended the stream early")
            yield outbox.answer(response)
            async with aclosing(_feed(outbox, requests)) as failed:
                async for item in failed:
                    yield item
        requests.put_nowait(None)
        with _mapped_errors(client.target):
            await call.code()
    finally:
        requests.put_nowait(None)
        call.cancel()


async def _feed(outbox: Outbox[T], requests: "asyncio.Queue[Any]") -> AsyncGenerator[StreamItem[T], None]:
    """Send items while there is room; yield those that cannot even be sent."""
    outcomes = outbox.fill()
    while (outcome := await asyncio.to_thread(next, outcomes, None)) is not None:
        if isinstance(outcome, StreamItem):
            yield outcome
        else:
            requests.put_nowait(outcome)
