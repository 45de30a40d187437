# SPDX-License-Identifier: Apache-2.0
"""Work for a client -> its result; the work is cancelled when the client goes."""

from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from latentwire_server.process.lifecycle import unless

T = TypeVar("T")


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Return the result of the work; when the client goes, cancel the work and raise ClientDisconnect.

    The request's body must have been read.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return await unless(gone(), ClientDisconnect(), work)
