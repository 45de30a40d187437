# SPDX-License-Identifier: Apache-2.0
"""A stream whose client goes away while an answer is written ends with its RPC, and leaves nothing for later."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from latentwire_server.doors.grpc.interceptors import SERVICE, RequestInterceptor
from latentwire_server.process.lifecycle import Lifecycle
from latentwire_server.telemetry.metrics import Metrics


class Details(grpc.HandlerCallDetails):
    method = f"/{SERVICE}/EncodeStream"
    invocation_metadata = ()


class Context:
    """The context of an RPC, which nobody may touch when the RPC has ended."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.writing = asyncio.Event()
        self.ended = False
        self.touched_late: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name in ("invocation_metadata", "set_trailing_metadata", "peer", "abort", "write") and self.ended:
            self.touched_late.append(name)
        return super().__getattribute__(name)

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def set_trailing_metadata(self, metadata: object) -> None:
        pass

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def abort(self, *status: object) -> None:
        raise AssertionError(f"nobody is there to be told {status}")

    async def write(self, response: object) -> None:
        self.writing.set()
        if self.failure is not None:
            raise self.failure
        await asyncio.Event().wait()


class Stream:
    """One RPC that writes answers without end, as gRPC runs it."""

    def __init__(self) -> None:
        self.lifecycle, self.metrics = Lifecycle(), Metrics()
        self.lifecycle.warm()
        self.closed = False

    async def answers(self, requests: object, context: object) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b""
        finally:
            self.closed = True

    async def run(self, context: Context) -> None:
        handler: Any = grpc.stream_stream_rpc_method_handler(self.answers)

        async def continuation(details: object) -> Any:
            return handler

        wrapped = await RequestInterceptor(self.lifecycle, self.metrics, None).intercept_service(
            continuation, Details()
        )
        behaviour: Callable[..., Any] = wrapped.stream_stream
        assert asyncio.iscoroutinefunction(behaviour)  # gRPC leaves a cancelled generator to the garbage collector
        try:
            await behaviour(None, context)
        finally:
            context.ended = True

    async def assert_ended(self, context: Context) -> None:
        assert self.closed
        assert await self.lifecycle.idle(0)
        labels = {"method": "EncodeStream", "code": "CANCELLED"}
        assert self.metrics.registry.get_sample_value("latentwire_requests_total", labels) == 1
        for _ in range(10):
            await asyncio.sleep(0)
        assert context.touched_late == []


async def test_a_stream_cancelled_while_it_writes_ends_within_the_rpc() -> None:
    stream, context = Stream(), Context()
    rpc = asyncio.create_task(stream.run(context))
    await context.writing.wait()
    rpc.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rpc
    await stream.assert_ended(context)


async def test_a_stream_that_cannot_be_written_to_counts_as_cancelled_and_is_told_nothing() -> None:
    stream, context = Stream(), Context(grpc.aio.InternalError("Failed execute_batch"))
    with pytest.raises(grpc.aio.InternalError):
        await stream.run(context)
    await stream.assert_ended(context)
