# SPDX-License-Identifier: Apache-2.0
"""Plain functions -> their results, in threads, with the turns of the clients at them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from latentwire_server.engine.coding.clock import Clock
from latentwire_server.engine.coding.turns import Turns
from latentwire_server.engine.jobs import Caller

T = TypeVar("T")


class Threads:
    """A number of threads; for one event loop.

    Args:
        count: how many threads one client can have, at least 1; there is one more, which no client alone can have.
        initializer: called in each thread when it starts.
    """

    def __init__(self, count: int, initializer: Callable[[], object]) -> None:
        self._pool = ThreadPoolExecutor(count + 1, thread_name_prefix="coding", initializer=initializer)
        self._turns = Turns(count + 1)

    async def run(self, work: Callable[[], T], caller: Caller, clock: Clock) -> T:
        """Do work in a thread. A caller that goes is let go at once; the thread is free when the work has ended.

        Raises:
            DeadlineExceeded: the caller's deadline passed.
        """
        loop = asyncio.get_running_loop()

        def ended(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits for a turn
                loop.call_soon_threadsafe(self._turns.leave, caller.client)

        async with caller.until_deadline("the request was being read or answered"):
            with clock.waiting():
                await self._turns.enter(caller.client)
            with clock.working():
                doing = self._pool.submit(work)
                doing.add_done_callback(ended)
                return await asyncio.wrap_future(doing)

    async def close(self, wait: bool) -> None:
        """End the threads; `wait` for the work that they are at."""
        await asyncio.to_thread(self._pool.shutdown, wait=wait, cancel_futures=True)
