# SPDX-License-Identifier: Apache-2.0
"""Around every RPC: the request id, the token, the state of the server, errors -> statuses, metrics and the log."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_server.config import ServerConfig
from latentwire_server.doors.access import REQUEST_ID, check_token, choose_request_id
from latentwire_server.doors.grpc.inbox import Inbox
from latentwire_server.errors import InvalidRequest, NotServing, QueueFull, forget_frames, status_code, to_status
from latentwire_server.process.lifecycle import Lifecycle
from latentwire_server.telemetry.metrics import Metrics, request_id

log = logging.getLogger("latentwire")

SERVICE = pb.DESCRIPTOR.services_by_name["LatentCodecService"].full_name
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"


class RequestInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the RPCs of the services, and asks for the token at reflection; health stays open to probes.

    Args:
        lifecycle: decides which requests are let in.
        metrics: counts how each RPC ended.
        token: what clients must send; None: clients need no token.
        services: the full names of the services whose RPCs are requests.
        probes: the paths of those RPCs that probes ask; as with grpc.health, they need no token and are answered while
            models load.
        receive_timeout_s: how long the message of a unary RPC may take.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        metrics: Metrics,
        token: str | None,
        services: Collection[str] = (SERVICE,),
        probes: Collection[str] = (),
        *,
        receive_timeout_s: float = ServerConfig.receive_timeout_s,
    ) -> None:
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._token = token
        self._guarded = {REFLECTION, *services}
        self._probes = frozenset(probes)
        self._inbox = Inbox(receive_timeout_s)
        self._lasting: dict[asyncio.Task[Any], asyncio.Timeout] = {}
        self._closed = False

    async def close(self, timeout_s: float) -> None:
        """End the RPCs that go on until somebody ends them, Watch and reflection: the transport waits for them.

        Each tells its client why it ends. The transport would cancel an RPC that is late with a text of its own.
        """
        self._closed = True
        for lasting in self._lasting.values():
            lasting.reschedule(asyncio.get_running_loop().time())
        if self._lasting:
            await asyncio.wait([*self._lasting], timeout=timeout_s)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the RPC's handler, wrapped."""
        handler: Any = await continuation(handler_call_details)
        service, _, method = handler_call_details.method.removeprefix("/").partition("/")
        is_open = service not in self._guarded or handler_call_details.method in self._probes
        if handler is None:
            return None
        # Each handler takes a stream of requests, also of the RPCs that have one: gRPC would read the one request
        # before the token is checked.
        read = partial(_read, handler.request_deserializer)
        if handler.unary_stream:  # only grpc.health's Watch

            async def watch(_: Any, context: Any) -> None:
                async with _refusing(context), self._until_closed():
                    await handler.unary_stream(read(await self._inbox.receive_openly(context)), context)

            return grpc.stream_stream_rpc_method_handler(watch, None, handler.response_serializer)
        if handler.stream_stream:
            # This is no generator. gRPC drops a generator that it cancels while it writes. The rest of the generator
            # would run after the RPC, when touching the context crashes the process (at least grpcio 1.81.0 to 1.85.1).
            async def stream(requests: Any, context: Any) -> None:
                async with (
                    self._around(method, context),
                    self._until_closed() if service == REFLECTION else self._counted(),
                ):
                    with self._inbox.stream(context):
                        async with aclosing(handler.stream_stream(requests, context)) as responses:
                            async for response in responses:
                                await context.write(response)

            return grpc.stream_stream_rpc_method_handler(stream, read, handler.response_serializer)

        async def probe(_: Any, context: Any) -> Any:
            async with _refusing(context):
                return await handler.unary_unary(read(await self._inbox.receive_openly(context)), context)

        async def unary(_: Any, context: Any) -> Any:
            async with self._around(method, context):
                self._lifecycle.check_serving()
                request = read(await self._lifecycle.unless_draining(self._inbox.receive(context)))
                with self._lifecycle.request():
                    return await handler.unary_unary(request, context)

        # gRPC hands over the bytes, which it keeps anyway: a message that gRPC failed to read would never come here.
        return grpc.stream_unary_rpc_method_handler(probe if is_open else unary, None, handler.response_serializer)

    @asynccontextmanager
    async def _around(self, method: str, context: Any) -> AsyncIterator[None]:
        metadata = dict(context.invocation_metadata() or ())
        identity = choose_request_id(str(metadata.get(REQUEST_ID, "")))
        request_id.set(identity)
        context.set_trailing_metadata(((REQUEST_ID, identity),))
        peer = context.peer()
        started = time.monotonic()
        code = grpc.StatusCode.CANCELLED  # until another end is known
        try:
            check_token(self._token, str(metadata.get("authorization", "")))
            yield
            code = grpc.StatusCode.OK
        except grpc.aio.BaseError:
            raise  # a response could not be written: the client is gone
        except Exception as error:
            code = status_code(error)
            await _abort(context, error, identity)
        finally:
            self._metrics.ended(method, code.name)
            milliseconds = (time.monotonic() - started) * 1000
            log.info("%s %s in %.1f ms from %s", method, code.name, milliseconds, peer)

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        with self._lifecycle.request():
            yield

    @asynccontextmanager
    async def _until_closed(self) -> AsyncIterator[None]:
        """Let a lasting RPC go on.

        Raises:
            NotServing: the interceptor was closed.
        """
        lasting, task = asyncio.timeout(0 if self._closed else None), _task()
        try:
            async with lasting:
                self._lasting[task] = lasting
                try:
                    yield
                finally:
                    del self._lasting[task]
        except TimeoutError as error:
            raise NotServing("the server is shutting down; ask another, or again later") from error


def _read(deserialize: Callable[[bytes], Any], message: bytes) -> Any:
    """Map bytes to a message.

    Raises:
        InvalidRequest: the bytes are not a message of that kind.
    """
    try:
        return deserialize(message)
    except DecodeError as error:
        raise InvalidRequest(
            "", f"the {len(message)} bytes that were sent are no request ({error}); make them by this server's .proto"
        ) from error


@asynccontextmanager
async def _refusing(context: Any) -> AsyncIterator[None]:
    """End an RPC that is neither counted nor logged with the status of the error that it raises."""
    try:
        yield
    except grpc.aio.BaseError:
        raise  # the RPC ended itself, or the client is gone
    except Exception as error:
        await _abort(context, error, choose_request_id(""))


async def _abort(context: Any, error: Exception, identity: str) -> None:
    """End an RPC with the status of an error."""
    status = rpc_status.to_status(to_status(error, identity))
    trailing = [*status.trailing_metadata, (REQUEST_ID, identity)]
    if status.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # gRPC's own retries obey this: a request that is over a limit is not sent again.
        pushback = error.retry_after_s * 1000 if isinstance(error, QueueFull) else -1
        trailing.append(("grpc-retry-pushback-ms", str(round(pushback))))
    task = _task()
    try:
        await context.abort(status.code, status.details, tuple(trailing))
    except BaseException as end:
        # gRPC keeps the exception with the call, and the frames that it still has to pass refer to the call.
        task.add_done_callback(partial(_forget, end))
        raise


def _task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None  # gRPC runs an RPC as a task
    return task


def _forget(error: BaseException, _: object) -> None:
    forget_frames(error)
