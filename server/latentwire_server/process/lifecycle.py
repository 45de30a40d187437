# SPDX-License-Identifier: Apache-2.0
"""Warming up, serving, draining: whether requests are let in, and when the last one has ended."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, TypeVar

from latentwire_server.errors import NotServing

T = TypeVar("T")

SHUTTING_DOWN = "the server is shutting down; send the request to another, or again later"


class Lifecycle:
    """The state of one server, for one event loop; it begins with warming up."""

    def __init__(self) -> None:
        self.draining = asyncio.Event()
        self._warm = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_serving(self) -> bool:
        """Whether requests are let in."""
        return self._warm and not self.draining.is_set()

    def warm(self) -> None:
        """Let requests in from now on."""
        self._warm = True

    def drain(self) -> None:
        """Let no more requests in; the requests that are in go on."""
        self.draining.set()

    async def idle(self, timeout_s: float) -> bool:
        """Wait until no request is in; return False where that takes longer than the timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def check_serving(self) -> None:
        """Refuse a request that has not come in whole.

        Raises:
            NotServing: the server is warming up or draining.
        """
        if self.draining.is_set():
            raise NotServing(SHUTTING_DOWN)
        if not self._warm:
            raise NotServing("the server is loading its models; send the request again in a moment")

    async def unless_draining(self, receiving: Awaitable[T]) -> T:
        """Return what is received; when the server drains, give up and raise NotServing: nobody waits for a sender."""
        return await unless(self.draining.wait(), NotServing(SHUTTING_DOWN), receiving)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as in while the context lasts.

        Raises:
            NotServing: the server is warming up or draining.
        """
        self.check_serving()
        self._in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()


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


def ask_by_signal(asked: asyncio.Event, end_at_once: Callable[[int], object]) -> None:
    """Set `asked` at the first SIGTERM or SIGINT; at the second, call `end_at_once` with the exit status for it."""
    received: list[int] = []

    def receive(number: int) -> None:
        if received:
            end_at_once(128 + number)  # the second signal: requests are lost
        received.append(number)
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, receive, number)


def leave(status: int) -> NoReturn:
    """End the process now.

    The interpreter would first take apart all that torch and diffusers have loaded: 1.3 s on an idle machine, more than
    a minute on a busy one, while the ports are closed and nothing is left to do.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or nobody reads it
            stream.flush()
    os._exit(status)
