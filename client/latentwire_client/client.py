# SPDX-License-Identifier: Apache-2.0
"""The client: images -> `Latents` or `.lat` payloads -> images, over one gRPC channel, made when it is first needed."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any, Self, Unpack, cast, overload

import numpy.typing as npt
from grpc_health.v1 import health_pb2
from PIL import Image

from latentwire_client import _convert, _outbox
from latentwire_client._channels import Configured, Connections
from latentwire_client._images import ImageInput
from latentwire_client._settings import SERVICE
from latentwire_client._waiting import Waiting
from latentwire_client.config import CompressOptions, EncodeOptions
from latentwire_client.errors import Overloaded, Unavailable
from latentwire_client.info import ServerInfo
from latentwire_client.streams import Stream
from latentwire_core.latents import Latents
from latentwire_proto.v1 import latent_codec_pb2 as pb


class Client(Configured[Connections]):
    """A latentwire server, seen from here. Thread-safe; usable in forked workers; a context manager.

        with Client("localhost:50051") as client:
            latents = client.encode("cat.png")
            client.decode(latents).save("cat-again.png")

    Args:
        target: HOST:PORT; default `$LATENTWIRE_SERVER`, else localhost:50051.
        model: the model to use where a call names none; empty: the server's default.
        timeout: how long to wait for answers.
        retry: how to try again when the server cannot be reached.
        limits: the size of messages and the items of a stream in flight.
        token: the server's token; default `$LATENTWIRE_TOKEN`.
        tls: True, or the path of a PEM file with the root certificates to trust.
        on_execution: called with each `Execution`: the server's times for a call, or for an item of a stream.

    Every call raises `LatentwireError` (see `errors`), OSError for a path that cannot be read, and TypeError or
    ValueError for an argument that cannot be sent.
    """

    _connect = Connections

    def info(self) -> ServerInfo:
        """Ask the server for its version, limits and models."""
        return ServerInfo.from_message(self._call("GetServerInfo", pb.GetServerInfoRequest()))

    def is_healthy(self) -> bool:
        """Ask whether the server is serving; False while it warms up or drains.

        Raises:
            Unavailable: nothing answers at the address.
        """
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        connection = self._connections.current()
        with connection.mapped_errors():
            response = connection.health.Check(request, timeout=self._settings.timeout.call_s)
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
            image: see `ImageInput`. The first failure of a list is raised; `encode_stream` goes on.
            options: kind, scaled, dtype, seeds, size, model; see `EncodeOptions`.

        Returns:
            latents (B,C,h,w); B is 1, or that of an array (B,...).
        """
        if isinstance(image, list | tuple):
            with closing(self.encode_stream(image, **options)) as stream:
                return [item.get() for item in stream.ordered()]
        common = _convert.to_encode_request(options, self._settings.model)
        request = _convert.with_image(common, cast(ImageInput, image))
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
            image: one image, see `ImageInput`. The first failure of a list is raised; `compress_stream` goes on.
            options: quality, refinement, size, model; see `CompressOptions`.
        """
        if isinstance(image, list | tuple):
            with closing(self.compress_stream(image, **options)) as stream:
                return [item.get() for item in stream.ordered()]
        common = _convert.to_compress_request(options, self._settings.model)
        request = _convert.with_image(common, cast(ImageInput, image))
        return _convert.from_payloads(self._run("Encode", request).lat)

    @overload
    def decompress(self, payload: bytes, *, model: str = "") -> Image.Image: ...
    @overload
    def decompress(self, payload: Sequence[bytes], *, model: str = "") -> list[Image.Image]: ...

    def decompress(self, payload: bytes | Sequence[bytes], *, model: str = "") -> Image.Image | list[Image.Image]:
        """Map a `.lat` payload, or each of a list, to PIL images; the other decode methods take payloads, too.

        The model is the client's where the call names none, else the one that the payload names.
        """
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
            ValueError: the latents are of several images; see `Latents.split` and `decode_array`.
        """
        if _convert.is_single(latents):
            return _convert.single(self.decode_array(latents, model=model), latents)
        with closing(self.decode_stream(cast(Sequence[Latents | bytes], latents), model=model)) as stream:
            return [item.get() for item in stream.ordered()]

    def decode_array(self, latents: Latents | bytes, *, dtype: str = "uint8", model: str = "") -> npt.NDArray[Any]:
        """Map latents to raw images: uint8 (B,H,W,3), or for a float dtype (B,3,H,W), about [-1,1], not clamped."""
        request = _convert.to_decode_request(latents, _convert.to_tensor_output(dtype), model or self._settings.model)
        return _convert.from_image_tensor(self._run("Decode", request).image_tensor)

    def decode_files(
        self, latents: Latents | bytes, *, image_format: str = "png", quality: int | None = None, model: str = ""
    ) -> list[bytes]:
        """Map latents to the bytes of B image files: `png`, or `jpeg`, `webp` or `avif` of a quality in 1..100."""
        output = _convert.to_file_output(image_format, quality)
        request = _convert.to_decode_request(latents, output, model or self._settings.model)
        return list(self._run("Decode", request).image_files.files)

    def encode_stream(self, images: Iterable[ImageInput], **options: Unpack[EncodeOptions]) -> "Stream[Latents]":
        """Map many images to latents, a bounded number in flight.

        Args:
            images: see `ImageInput`. They are read `Limits.in_flight` ahead of the answers.
            options: kind, scaled, dtype, seeds, size, model; see `EncodeOptions`.

        Returns:
            an iterator over `StreamItem`s as they are done; each holds its index and a result or an error, so that
            one bad image never ends a folder. Items without an answer when the server goes away are sent again.
        """
        return Stream(self._connections, "EncodeStream", _outbox.encode_outbox(images, options, self._settings))

    def compress_stream(self, images: Iterable[ImageInput], **options: Unpack[CompressOptions]) -> "Stream[bytes]":
        """Map many images to `.lat` payloads (see `compress`), as `encode_stream` does."""
        return Stream(self._connections, "EncodeStream", _outbox.compress_outbox(images, options, self._settings))

    def decode_stream(self, latents: Iterable[Latents | bytes], *, model: str = "") -> "Stream[Image.Image]":
        """Map the latents of many single images, or their `.lat` payloads, to PIL images, as `encode_stream` does."""
        return Stream(self._connections, "DecodeStream", _outbox.decode_outbox(latents, model, self._settings))

    def close(self) -> None:
        """Close this process's channel; the next call makes another. Calls in flight are `Cancelled`."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, method: str, request: Any) -> Any:
        response = self._call(method, request)
        self._settings.report(response)
        return response

    def _call(self, method: str, request: Any) -> Any:
        """Make a call, and make it again where waiting may help; see `Retry`."""
        settings, connection = self._settings, self._connections.current()
        waiting = Waiting(settings.retry, settings.timeout.call_s)
        while True:
            try:
                with connection.mapped_errors():
                    call = getattr(connection.codec, method)
                    response = call(request, timeout=waiting.left_s, metadata=settings.address.metadata)
            except (Overloaded, Unavailable) as error:
                pause_s = waiting.pause_s(error, int(settings.retry.calls_reconnect and self._answered))
                if pause_s is None:
                    raise
            else:
                self._answered = True
                return response
            connection.pause(pause_s)
