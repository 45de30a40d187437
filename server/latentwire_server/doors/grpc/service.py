# SPDX-License-Identifier: Apache-2.0
"""The RPCs of `latentwire.v1.LatentCodecService` -> passages through the corridor."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import grpc

from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_proto import __version__
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceServicer
from latentwire_server.config import ServerConfig
from latentwire_server.doors.corridor import Corridor
from latentwire_server.doors.grpc import convert, payloads
from latentwire_server.doors.grpc.streams import serve_stream
from latentwire_server.engine.engine import Engine
from latentwire_server.engine.jobs import Caller, DecodeJob
from latentwire_server.engine.work import Passage
from latentwire_server.errors import forget_frames, status_code, to_status
from latentwire_server.process.lifecycle import Lifecycle
from latentwire_server.telemetry.metrics import Metrics, request_id

NS = 1_000_000_000

R = TypeVar("R", pb.EncodeStreamResponse, pb.DecodeStreamResponse)


class LatentCodecService(LatentCodecServiceServicer):
    """Carries out `latentwire.v1.LatentCodecService`; errors leave as exceptions and are mapped by the interceptor."""

    def __init__(self, engine: Engine, config: ServerConfig, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self._engine = engine
        self._config = config
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._corridor = Corridor(engine, metrics)

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Any) -> pb.GetServerInfoResponse:
        """Return the server's version, limits and models."""
        return pb.GetServerInfoResponse(
            version=__version__,
            limits=convert.from_limits(self._config),
            models=[convert.from_spec(name, m.spec, m.loaded) for name, m in self._engine.models.items()],
        )

    async def Encode(self, request: pb.EncodeRequest, context: Any) -> pb.EncodeResponse:
        """Map images to latents."""
        return await self._encode(request, Caller.of(context))

    async def Decode(self, request: pb.DecodeRequest, context: Any) -> pb.DecodeResponse:
        """Map latents to images."""
        return await self._decode(request, Caller.of(context))

    def EncodeStream(
        self, request_iterator: AsyncIterator[pb.EncodeStreamRequest], context: Any
    ) -> AsyncIterator[pb.EncodeStreamResponse]:
        """Map many images to latents."""
        return self._stream("EncodeStream", request_iterator, context, self._encode, pb.EncodeStreamResponse)

    def DecodeStream(
        self, request_iterator: AsyncIterator[pb.DecodeStreamRequest], context: Any
    ) -> AsyncIterator[pb.DecodeStreamResponse]:
        """Map many latents to images."""
        return self._stream("DecodeStream", request_iterator, context, self._decode, pb.DecodeStreamResponse)

    def _stream(
        self,
        method: str,
        requests: AsyncIterator[Any],
        context: Any,
        work: Callable[[Any, Caller], Awaitable[Any]],
        response_type: type[R],
    ) -> AsyncIterator[R]:
        """Answer each item with the result of `work` or, where it raises, with the status that a call would have."""
        # Asked once: a task that ends after the RPC must not touch the context.
        caller = replace(Caller.of(context), patient=True)

        async def answer(item: Any) -> R:
            code = grpc.StatusCode.OK
            try:
                timeout_s = item.timeout_ns / NS if item.timeout_ns else None
                result = await work(item.request, caller.within(timeout_s))
                response = response_type(id=item.id, result=result)
            except Exception as error:
                code = status_code(error)
                response = response_type(id=item.id, error=to_status(error, request_id.get()))
                forget_frames(error)
            self._metrics.ended(f"{method}/item", code.name)
            return response

        return serve_stream(requests, answer, self._config.stream_window, self._lifecycle.draining)

    async def _encode(self, request: pb.EncodeRequest, caller: Caller) -> pb.EncodeResponse:
        makes_payloads = request.WhichOneof("output") == "lat"
        passage = Passage(
            model=request.model or (payloads.maker(self._engine.models) if makes_payloads else ""),
            images=partial(convert.count_images, request),
            to_job=lambda model: convert.to_encode_job(request),
            to_answer=convert.from_encode_result,
            fields=convert.ENCODE_FIELDS,
        )
        return await self._corridor.encode(passage, caller)

    async def _decode(self, request: pb.DecodeRequest, caller: Caller) -> pb.DecodeResponse:
        has_payloads = request.WhichOneof("input") == "lat"

        def to_job(model: Autoencoder) -> DecodeJob:
            if has_payloads:
                return payloads.to_decode_job(request, model, self._config)
            return convert.to_decode_job(request)

        passage = Passage(
            model=request.model or payloads.reader(request.lat.payloads, self._engine.models),
            images=partial(convert.count_images, request),
            to_job=to_job,
            to_answer=convert.from_decode_result,
            fields=payloads.FIELDS if has_payloads else convert.DECODE_FIELDS,
        )
        return await self._corridor.decode(passage, caller)
