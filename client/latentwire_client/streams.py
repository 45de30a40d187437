# SPDX-License-Identifier: Apache-2.0
"""Outbox -> the items of a stream as they are done, over as many calls as it takes; sync and asyncio, side by side."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing
from queue import SimpleQueue
from typing import Any

import grpc
import grpc.aio

from latentwire_client._channels import AsyncConnection, AsyncConnections, Connection, Connections
from latentwire_client._outbox import Outbox, StreamItem, T
from latentwire_client._waiting import Waiting
from latentwire_client.errors import ServerFault, TooLarge, Unavailable

HIDDEN_STATUS = "Internal error from Core"


class Stream(Iterator[StreamItem[T]]):
    """The answers to a stream of items, as they are done; made by the client's stream methods."""

    def __init__(self, connections: Connections, method: str, outbox: Outbox[T]) -> None:
        # The generator does not know the stream: without a cycle, a stream that is dropped ends at once.
        self._items = _items(connections, method, outbox)
        self._outbox = outbox
        self._is_closed = False

    def __next__(self) -> StreamItem[T]:
        """Return the next item that is done.

        Raises:
            LatentwireError: the stream as a whole failed, and trying again did not help.
            RuntimeError: the stream failed or was interrupted before, and items have no answer.
        """
        try:
            return next(self._items)
        except StopIteration:
            if not self._is_closed:
                self._outbox.check_finished()
            raise

    def ordered(self) -> Iterator[StreamItem[T]]:
        """Iterate in the order of the input; an item that is done early is held until its turn."""
        early: dict[int, StreamItem[T]] = {}
        turn = 0
        for item in self:
            early[item.index] = item
            while turn in early:
                yield early.pop(turn)
                turn += 1

    def close(self) -> None:
        """End the stream early; items in flight are cancelled."""
        self._is_closed = True
        self._items.close()


def _items(connections: Connections, method: str, outbox: Outbox[T]) -> Generator[StreamItem[T], None, None]:
    """Run calls until every item has its answer."""
    waiting = Waiting(connections.settings.retry)
    while not outbox.finished:
        connection = connections.current()
        try:
            yield from _call(connection, method, outbox)
        except Unavailable as error:
            if outbox.finished:  # a draining server ends the call so even when every item is answered
                return
            pause_s = None if outbox.source_failed else waiting.pause_s(error, outbox.answers)
            if pause_s is None:
                raise
            connection.pause(pause_s)
        except TooLarge as error:  # gRPC ends the whole call for one message that is over a limit
            if (failed := outbox.attribute(error)) is not None:
                yield failed


def _call(connection: Connection, method: str, outbox: Outbox[T]) -> Iterator[StreamItem[T]]:
    """Run one call: items without an answer go first; each answer makes room for a further item."""
    requests: SimpleQueue[Any] = SimpleQueue()
    address = connection.settings.address
    with connection.mapped_errors():
        call = getattr(connection.codec, method)(iter(requests.get, None), metadata=address.metadata)
    try:
        outbox.begin()
        while True:
            yield from _send(outbox, requests)
            if outbox.finished:
                break
            try:
                response = next(call, None)
            except grpc.RpcError as error:
                # The error is the call itself: with a traceback it would refer, in a circle, to this frame.
                error.with_traceback(None)
                raise connection.failure(error) from None
            if response is None:
                # The server ended the call in good order with items unanswered: as good as gone.
                raise Unavailable(grpc.StatusCode.UNAVAILABLE, f"{address.target} ended the stream early")
            yield outbox.answer(response)
        requests.put(None)
        call.code()  # waits until the server has ended the call, which it would count as cancelled otherwise
    finally:
        requests.put(None)  # ends the thread that sends
        call.cancel()


def _send(outbox: Outbox[T], requests: "SimpleQueue[Any]") -> Iterator[StreamItem[T]]:
    """Send items while there is room; yield those that cannot even be sent."""
    for outcome in outbox.fill():
        if isinstance(outcome, StreamItem):
            yield outcome
        else:
            requests.put(outcome)


class AsyncStream(AsyncIterator[StreamItem[T]]):
    """The answers to a stream of items, as they are done; `Stream`, awaited."""

    def __init__(self, connections: AsyncConnections, method: str, outbox: Outbox[T]) -> None:
        # The generator does not know the stream: without a cycle, a stream that is dropped ends at once.
        self._items = _async_items(connections, method, outbox)
        self._outbox = outbox
        self._is_closed = False

    async def __anext__(self) -> StreamItem[T]:
        """Return the next item that is done.

        Raises:
            LatentwireError: the stream as a whole failed, and trying again did not help.
            RuntimeError: the stream failed or was interrupted before, and items have no answer.
        """
        try:
            return await anext(self._items)
        except StopAsyncIteration:
            if not self._is_closed:
                self._outbox.check_finished()
            raise

    async def ordered(self) -> AsyncGenerator[StreamItem[T], None]:
        """Iterate in the order of the input; an item that is done early is held until its turn."""
        early: dict[int, StreamItem[T]] = {}
        turn = 0
        async for item in self:
            early[item.index] = item
            while turn in early:
                yield early.pop(turn)
                turn += 1

    async def close(self) -> None:
        """End the stream early; items in flight are cancelled."""
        self._is_closed = True
        await self._items.aclose()


# A generator that is dropped half-way is closed by the loop, some time later; `aclosing` does it in place.


async def _async_items(
    connections: AsyncConnections, method: str, outbox: Outbox[T]
) -> AsyncGenerator[StreamItem[T], None]:
    """Run calls until every item has its answer."""
    waiting = Waiting(connections.settings.retry)
    while not outbox.finished:
        connection = connections.current()
        try:
            async with aclosing(_async_call(connection, method, outbox)) as items:
                async for item in items:
                    yield item
        except Unavailable as error:
            if outbox.finished:  # a draining server ends the call so even when every item is answered
                return
            pause_s = None if outbox.source_failed else waiting.pause_s(error, outbox.answers)
            if pause_s is None:
                raise
            await connection.pause(pause_s)
        except TooLarge as error:  # gRPC ends the whole call for one message that is over a limit
            if (failed := outbox.attribute(error)) is not None:
                yield failed


async def _async_call(
    connection: AsyncConnection, method: str, outbox: Outbox[T]
) -> AsyncGenerator[StreamItem[T], None]:
    """Run one call: items without an answer go first; each answer makes room for a further item."""
    requests: asyncio.Queue[Any] = asyncio.Queue()
    address = connection.settings.address

    async def sent() -> AsyncIterator[Any]:
        while (request := await requests.get()) is not None:
            yield request

    call = getattr(connection.codec, method)(sent(), metadata=address.metadata)
    try:
        outbox.begin()
        while True:
            async with aclosing(_async_send(outbox, requests)) as failed:
                async for item in failed:
                    yield item
            if outbox.finished:
                break
            try:
                with connection.mapped_errors():
                    response = await call.read()
            except ServerFault as error:
                # A write that meets the end of the call hides the server's status (grpc/grpc#36066). Items without an
                # answer are sent again; if the status was another than UNAVAILABLE, the next call will say so.
                if error.details != HIDDEN_STATUS:
                    raise
                raise Unavailable(grpc.StatusCode.UNAVAILABLE, f"{address.target} ended the stream") from None
            if response is grpc.aio.EOF:
                raise Unavailable(grpc.StatusCode.UNAVAILABLE, f"{address.target} ended the stream early")
            yield outbox.answer(response)
        requests.put_nowait(None)
        with connection.mapped_errors():
            await call.code()
    finally:
        requests.put_nowait(None)
        call.cancel()


async def _async_send(outbox: Outbox[T], requests: "asyncio.Queue[Any]") -> AsyncGenerator[StreamItem[T], None]:
    """Send items while there is room; yield those that cannot even be sent."""
    outcomes = outbox.fill()
    while (outcome := await asyncio.to_thread(next, outcomes, None)) is not None:
        if isinstance(outcome, StreamItem):
            yield outcome
        else:
            requests.put_nowait(outcome)
