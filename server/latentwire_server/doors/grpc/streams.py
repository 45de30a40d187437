# SPDX-License-Identifier: Apache-2.0
"""Bidirectional streams: requests in, answers out as they are ready, with a bounded number of items in flight."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from latentwire_server.errors import NotServing

Q = TypeVar("Q")
S = TypeVar("S")


async def serve_stream(
    requests: AsyncIterator[Q], answer: Callable[[Q], Awaitable[S]], window: int, draining: asyncio.Event
) -> AsyncIterator[S]:
    """Map a stream of requests to a stream of answers, in the order in which they are done.

    Args:
        requests: the items. They are read only while fewer than `window` items have no answer: the transport's flow
            control then slows down a fast sender.
        answer: makes the answer to one item; it must not raise.
        window: the most items in flight.
        draining: once set, no more items are read.

    Raises:
        InvalidRequest: bytes that were read are not a request; raised at once.
        NotServing: draining ended the reading before the client did; raised after the last answer.
    """
    pending: set[asyncio.Task[S]] = set()
    reader: asyncio.Task[Q | None] | None = None
    drain = asyncio.create_task(draining.wait())
    exhausted = False
    try:
        while True:
            if not exhausted and reader is None and len(pending) < window and not drain.done():
                reader = asyncio.create_task(_next(requests))
            if reader is None and not pending:
                break
            watched: set[asyncio.Task[S] | asyncio.Task[Q | None] | asyncio.Task[bool]] = {*pending}
            if reader is not None:
                watched |= {reader, drain}
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if reader is not None and reader.done():
                request = reader.result()
                exhausted = request is None
                if request is not None:
                    pending.add(asyncio.create_task(_call(answer, request)))
                reader = None
            elif reader is not None and drain.done():
                reader.cancel()
                reader = None
            for task in [task for task in pending if task in done]:
                pending.remove(task)
                yield task.result()
        if not exhausted:
            raise NotServing("the server is shutting down; send the items without an answer again")
    finally:
        drain.cancel()
        if reader is not None:
            reader.cancel()
        for task in pending:
            task.cancel()


async def _next(requests: AsyncIterator[Q]) -> Q | None:
    """Return the next item; None after the last.

    A task of this coroutine ends without an exception at the end: a StopAsyncIteration would refer, in a circle, to the
    frame that read the item.
    """
    return await anext(requests, None)


async def _call(answer: Callable[[Q], Awaitable[S]], request: Q) -> S:
    return await answer(request)
