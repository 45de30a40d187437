# SPDX-License-Identifier: Apache-2.0
"""Work for a client -> its result; the work is cancelled when the client goes or another event comes first."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Return the result of the work; when the client goes, cancel the work and raise ClientDisconnect.

    The request's body must have been read.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return await unless(gone(), ClientDisconnect(), work)


async def unless(event: Awaitable[object], error: Exception, work: Awaitable[T]) -> T:
    """Return the result of the work; when the event comes first, cancel the work and raise the error."""
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(event)
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise error
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
