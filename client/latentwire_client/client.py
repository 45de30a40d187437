# SPDX-License-Identifier: Apache-2.0
"""The client: images -> `Latents` or `.lat` payloads -> images, over one gRPC channel, made when it is first needed."""

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, Unpack, cast, overload

import grpc
import numpy.typing as npt
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from latentwire_client import _convert, _outboxes
from latentwire_client._channel import SERVICE, Address
from latentwire_client._images import ImageInput
from latentwire_client._outage import Outage
from latentwire_client._outbox import Outbox, StreamItem, T
from latentwire_client.config import Limits, Retry, Timeout, check_settings
from latentwire_client.errors import Cancelled, LatentwireError, TooLarge, Unavailable, from_rpc_error
from latentwire_client.info import OnExecution, ServerInfo
from latentwire_client.options import CompressOptions, EncodeOptions
from latentwire_core.latents import Latents
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub


class Client:
    """A latentwire server, seen from here. Thread-safe; usable in forked workers; a context manager.

    Args:
        target: HOST:PORT; default `$LATENTWIRE_SERVER`, else localhost:50051.
        model: the model to use where a call names none; empty: the server's default.
        timeout: how long to wait.
        retry: how to try again when the server cannot be reached.
        limits: the size of messages and the items of a stream in flight.
        token: what the server asks for; default `$LATENTWIRE_TOKEN`.
        tls: True, or the path of a PEM file with the root certificates to trust.
        on_execution: called with each `Execution`: the server's times for a call, or for an item of a stream.

    Every call raises `LatentwireError` (see `errors`), OSError for a path that cannot be read, and TypeError or
    ValueError for an argument that cannot be sent.
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
        # A channel doesn't survive a fork: each process makes its own. The parent's is kept beside it, for dropping it
        # would close the parent's connection.
        self._connections: dict[int, _Connection] = {}

    @property
    def target(self) -> str:
        """The server's address."""
        return self._address.target

    def info(self) -> ServerInfo:
        """Ask the server for its version, limits and models."""
        return _convert.from_info(self._call("GetServerInfo", pb.GetServerInfoRequest()))

    def is_healthy(self) -> bool:
        """Ask whether the server is serving; False while it warms up or drains.

        Raises:
            Unavailable: nothing answers at the address.
        """
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        with self._connected() as connection:
            response = connection.health.Check(request, timeout=self._timeout.call_s)
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    @overload
    # A str is a Sequence[str] to the type checker; the first overload takes it.
    def encode(self, image: ImageInput, **options: Unpack[EncodeOptions]) -> Latents: ...  # type: ignore[overload-overlap]
    @overload
    def encode(self, image: Sequence[ImageInput], **options: Unpack[EncodeOptions]) -> list[Latents]: ...

    def encode(
        self, image: ImageInput | Sequence[ImageInput], **options: Unpack[EncodeOptions]
    ) -> Latents | list[Latents]:
        """Map an image, or each of a list of images, to latents.

        Args:
            image: see `ImageInput`; of a list, the first failure is raised (`encode_stream` goes on).
            options: kind, scaled, dtype, seeds, size, model; see `EncodeOptions`.

        Returns:
            latents (B,C,h,w), B = 1 but for an array (B,...).
        """
        if isinstance(image, list | tuple):
            with closing(self.encode_stream(image, **options)) as stream:
                return [item.get() for item in stream.ordered()]
        request = _convert.to_encode_request(cast(ImageInput, image), options, self._model)
        return _convert.from_latents(self._run("Encode", request).latents)

    @overload
    # A str is a Sequence[str] to the type checker; the first overload takes it.
    def compress(self, image: ImageInput, **options: Unpack[CompressOptions]) -> bytes: ...  # type: ignore[overload-overlap]
    @overload
    def compress(self, image: Sequence[ImageInput], **options: Unpack[CompressOptions]) -> list[bytes]: ...

    def compress(
        self, image: ImageInput | Sequence[ImageInput], **options: Unpack[CompressOptions]
    ) -> bytes | list[bytes]:
        """Map an image, or each of a list of images, to a `.lat` payload: a whole file, which `decompress` takes.

        Args:
            image: see `ImageInput`, of one image; of a list, the first failure is raised (`compress_stream` goes on).
            options: quality, refinement, size, model; see `CompressOptions`.
        """
        if isinstance(image, list | tuple):
            with closing(self.compress_stream(image, **options)) as stream:
                return [item.get() for item in stream.ordered()]
        request = _convert.to_compress_request(cast(ImageInput, image), options, self._model)
        return _convert.from_payloads(self._run("Encode", request).lat)

    @overload
    def decompress(self, payload: bytes, *, model: str = "") -> Image.Image: ...
    @overload
    def decompress(self, payload: Sequence[bytes], *, model: str = "") -> list[Image.Image]: ...

    def decompress(self, payload: bytes | Sequence[bytes], *, model: str = "") -> Image.Image | list[Image.Image]:
        """Map a `.lat` payload, or each of a list of them, to PIL images; the other decode methods take them too."""
        return self.decode(payload, model=model)

    @overload
    def decode(self, latents: Latents | bytes, *, model: str = "") -> Image.Image: ...
    @overload
    def decode(self, latents: Sequence[Latents | bytes], *, model: str = "") -> list[Image.Image]: ...

    def decode(
        self, latents: Latents | bytes | Sequence[Latents | bytes], *, model: str = ""
    ) -> Image.Image | list[Image.Image]:
        """Map the latents or `.lat` payload of one image, or each of a list, to PIL images of the original size.

        Raises:
            ValueError: latents of several images; see `Latents.split` and `decode_array`.
        """
        if _convert.is_single(latents):
            return _convert.single(self.decode_array(latents, model=model), latents)
        with closing(self.decode_stream(cast(Sequence[Latents | bytes], latents), model=model)) as stream:
            return [item.get() for item in stream.ordered()]

    def decode_array(self, latents: Latents | bytes, *, dtype: str = "uint8", model: str = "") -> npt.NDArray[Any]:
        """Map latents to raw images: uint8 (B,H,W,3), or for a float dtype (B,3,H,W), about [-1,1], not clamped."""
        request = _convert.to_decode_request(latents, _convert.to_tensor_output(dtype), model or self._model)
        return _convert.from_image_tensor(self._run("Decode", request).image_tensor)

    def decode_files(
        self, latents: Latents | bytes, *, image_format: str = "png", quality: int | None = None, model: str = ""
    ) -> list[bytes]:
        """Map latents to the bytes of B image files: `png`, `jpeg`, `webp` or `avif`, the lossy with quality 1..100."""
        output = _convert.to_file_output(image_format, quality)
        request = _convert.to_decode_request(latents, output, model or self._model)
        return list(self._run("Decode", request).image_files.files)

    def encode_stream(self, images: Iterable[ImageInput], **options: Unpack[EncodeOptions]) -> "Stream[Latents]":
        """Map many images to latents, a bounded number in flight.

        Args:
            images: see `ImageInput`. They are read `Limits.in_flight` ahead: before the first answer is given out,
                that many are awaited.
            options: kind, scaled, dtype, seeds, size, model; see `EncodeOptions`.

        Returns:
            an iterator over `StreamItem`s as they are done; each holds its index and a result or an error, so that
            one bad image never ends a folder. What had no answer when the server went away is sent again.
        """
        return Stream(
            self, "EncodeStream",
            _outboxes.encode_outbox(images, options, self._model, self._timeout, self._limits, self._on_execution),
        )  # fmt: skip

    def compress_stream(self, images: Iterable[ImageInput], **options: Unpack[CompressOptions]) -> "Stream[bytes]":
        """Map many images to `.lat` payloads (see `compress`), as `encode_stream` does."""
        return Stream(
            self, "EncodeStream",
            _outboxes.compress_outbox(images, options, self._model, self._timeout, self._limits, self._on_execution),
        )  # fmt: skip

    def decode_stream(self, latents: Iterable[Latents | bytes], *, model: str = "") -> "Stream[Image.Image]":
        """Map the latents of many single images, or their `.lat` payloads, to PIL images, as `encode_stream` does."""
        return Stream(
            self, "DecodeStream",
            _outboxes.decode_outbox(
                latents, model or self._model, self._timeout, self._limits, self._on_execution
            ),
        )  # fmt: skip

    def close(self) -> None:
        """Close this process's channel; the next call would make another. Calls in flight are `Cancelled`."""
        connection = self._connections.pop(os.getpid(), None)
        if connection is not None:
            connection.channel.close()

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel."""
        self.close()

    def __getstate__(self) -> Mapping[str, Any]:
        """Pickle without the channels: a spawned worker makes its own."""
        return {**self.__dict__, "_connections": {}}

    @contextmanager
    def _connected(self) -> "Iterator[_Connection]":
        """Give this process's connection for one call, and map what gRPC raises to what the client raises."""
        connection = self._connections.get(os.getpid())
        if connection is None:
            made = _Connection(self._address.open(grpc, self._limits, self._retry))
            connection = self._connections.setdefault(os.getpid(), made)
            if connection is not made:  # another thread was faster
                made.channel.close()
        try:
            yield connection
        except grpc.RpcError as error:
            raise self._failure(error, connection) from error
        except ValueError as error:
            # So gRPC answers a call on a channel that another thread has closed.
            if self._connections.get(os.getpid()) is connection:
                raise
            raise self._closed() from error

    def _failure(self, error: grpc.RpcError, connection: "_Connection") -> LatentwireError:
        """Map what gRPC raised during a call to what the client raises."""
        if error.code() is grpc.StatusCode.CANCELLED and self._connections.get(os.getpid()) is not connection:
            return self._closed()
        return from_rpc_error(error, self.target)

    def _closed(self) -> Cancelled:
        return Cancelled(grpc.StatusCode.CANCELLED, f"the channel to {self.target} was closed during the call")

    def _run(self, method: str, request: Any) -> Any:
        response = self._call(method, request)
        _convert.report(response, self._on_execution)
        return response

    def _call(self, method: str, request: Any) -> Any:
        with self._connected() as connection:
            call: Callable[..., Any] = getattr(connection.codec, method)
            return call(request, timeout=self._timeout.call_s, metadata=self._address.metadata)


class _Connection:
    """A channel and the stubs of its services.

    They are made together, before another thread can close the channel: gRPC crashes the process where a stub is made
    of a closed one (grpcio 1.81).
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.codec: Any = LatentCodecServiceStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)


class Stream(Iterator[StreamItem[T]]):
    """The answers to a stream of items, as they are done; made by the client's stream methods."""

    def __init__(self, client: Client, method: str, outbox: Outbox[T]) -> None:
        # The generator doesn't know the stream: without a cycle, a stream that is dropped ends at once.
        self._items = _items(client, method, outbox)
        self._outbox = outbox
        self._is_closed = False

    def __next__(self) -> StreamItem[T]:
        """Return the next item that is done.

        Raises:
            LatentwireError: the stream as a whole failed, and trying again did not help.
            RuntimeError: it failed or was interrupted before; there is more that has no answer.
        """
        try:
            return next(self._items)
        except StopIteration:
            if not self._is_closed:
                self._outbox.check_finished()
            raise

    def ordered(self) -> Iterator[StreamItem[T]]:
        """Iterate in the order of the input; what is done early is held until its turn."""
        early: dict[int, StreamItem[T]] = {}
        turn = 0
        for item in self:
            early[item.index] = item
            while turn in early:
                yield early.pop(turn)
                turn += 1

    def close(self) -> None:
        """End the stream early; what is in flight is cancelled."""
        self._is_closed = True
        self._items.close()


def _items(client: Client, method: str, outbox: Outbox[T]) -> Generator[StreamItem[T], None, None]:
    """Run calls until every item has its answer."""
    outage = Outage(client._retry)
    while not outbox.finished:
        try:
            yield from _connection(client, method, outbox)
        except Unavailable:
            if outbox.finished:  # a draining server ends the call so even when nothing is left to answer
                return
            pause_s = outage.pause_s(outbox.answers)
            if outbox.source_failed or pause_s is None:
                raise
            time.sleep(pause_s)
        except TooLarge as error:  # gRPC ends the whole call for one message that is over a limit
            if (blamed := outbox.blame(error)) is not None:
                yield blamed


def _connection(client: Client, method: str, outbox: Outbox[T]) -> Iterator[StreamItem[T]]:
    """Run one call: what has no answer yet goes first; each answer makes room for a further item."""
    requests: SimpleQueue[Any] = SimpleQueue()
    with client._connected() as connection:
        call = getattr(connection.codec, method)(iter(requests.get, None), metadata=client._address.metadata)
    try:
        outbox.begin()
        yield from _feed(outbox, requests)
        while not outbox.finished:
            try:
                response = next(call, None)
            except grpc.RpcError as error:
                # The error is the call itself: with a traceback it would refer, in a circle, to this frame.
                raise client._failure(error, connection) from error.with_traceback(None)
            if response is None:
                # The server ended the call in good order with items unanswered: as good as gone.
                raise Unavailable(grpc.StatusCode.UNAVAILABLE, f"{client.target} ended the stream early")
            yield outbox.answer(response)
            yield from _feed(outbox, requests)
        requests.put(None)
        call.code()  # waits until the server has ended the call, which it would count as cancelled otherwise
    finally:
        requests.put(None)  # lets go of the thread that sends
        call.cancel()


def _feed(outbox: Outbox[T], requests: "SimpleQueue[Any]") -> Iterator[StreamItem[T]]:
    """Send items while there is room; yield those that cannot even be sent."""
    for outcome in outbox.fill():
        if isinstance(outcome, StreamItem):
            yield outcome
        else:
            requests.put(outcome)
