# SPDX-License-Identifier: Apache-2.0
"""The context of a call -> the bytes of its message, received in turn and within a time.

Until a message is asked for, the transport takes 64 KiB of it; then it takes as many bytes as the message announces,
and keeps them until the last one is there. A stream asks for its next message before the client has one: its turn would
never end. Therefore a connection has few streams.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import grpc.aio

from latentwire_server.errors import InvalidRequest, QueueFull, SlowSender

# Messages of one connection that are received at once. They share its bandwidth: more would come no sooner.
AT_ONCE = 4
# Streams of one connection. Each can hold an unfinished message.
STREAMS_AT_ONCE = 16
# Messages of callers whose token nobody checks, from all connections: what probes send is there with its headers.
OPEN_AT_ONCE = 4
OPEN_S = 5.0


class Inbox:
    """Receives the messages of one server's unary calls, and counts its streams.

    Args:
        timeout_s: how long a message may take.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._streams: Counter[str] = Counter()
        self._open: dict[int, asyncio.Timeout] = {}
        self._numbers = count()

    async def receive(self, context: Any) -> bytes:
        """Map the call of a caller who was let in to its message.

        Raises:
            InvalidRequest: the call ended without a message.
            SlowSender: the message was not there in time.
        """
        turn = self._turns.setdefault(context.peer(), asyncio.Semaphore(AT_ONCE))
        try:
            async with turn, asyncio.timeout(self._timeout_s):
                return _checked(await context.read())
        except TimeoutError as error:
            raise _slow(self._timeout_s, " (serve --receive-timeout-s)") from error

    @contextmanager
    def stream(self, context: Any) -> Iterator[None]:
        """Let a stream of a caller who was let in go on.

        Raises:
            QueueFull: the connection has as many streams as it may have.
        """
        connection = context.peer()
        if self._streams[connection] >= STREAMS_AT_ONCE:
            raise QueueFull(
                f"this connection has {STREAMS_AT_ONCE} streams, and may have no more; send more items through each, "
                "or open another connection",
                retry_after_s=1,
            )
        self._streams[connection] += 1
        try:
            yield
        finally:
            self._streams[connection] -= 1
            if not self._streams[connection]:
                del self._streams[connection]

    async def receive_openly(self, context: Any) -> bytes:
        """Map the call of anybody to its message; where too many are on their way, the oldest is given up.

        Raises:
            InvalidRequest: the call ended without a message.
            QueueFull: the message was given up for another.
            SlowSender: the message was not there in time.
        """
        if len(self._open) >= OPEN_AT_ONCE:
            self._open.pop(next(iter(self._open))).reschedule(asyncio.get_running_loop().time())
        number = next(self._numbers)
        try:
            async with asyncio.timeout(OPEN_S) as limit:
                self._open[number] = limit
                return _checked(await context.read())
        except TimeoutError as error:
            if number not in self._open:
                raise QueueFull(
                    f"{OPEN_AT_ONCE} messages of callers without a token are received at once, and others came after "
                    "this one; send the whole message at once",
                    retry_after_s=1,
                ) from error
            raise _slow(OPEN_S) from error
        finally:
            self._open.pop(number, None)


def _slow(timeout_s: float, limit: str = "") -> SlowSender:
    return SlowSender(f"the message was not there after {timeout_s:g} s{limit}; send it faster, or a smaller one")


def _checked(message: Any) -> bytes:
    """Return the message.

    Raises:
        InvalidRequest: there is no message.
    """
    if message is grpc.aio.EOF:
        raise InvalidRequest("", "the call ended without a message; send one request")
    assert isinstance(message, bytes)
    return message
