# SPDX-License-Identifier: Apache-2.0
"""Work of the event loop -> the one thread that computes, and its results back.

Long work pauses now and then, and the thread computes meanwhile what the loop wants in between, one inside the other: a
second thread would compete for the cores with threads of its own, and miss what compilers keep for each thread.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from latentwire_server.engine.cores import use_cores

T = TypeVar("T")


class Device:
    """The thread, and how long it computes; made in the event loop that it is for.

    Args:
        cores: how many the thread has.
    """

    def __init__(self, cores: int) -> None:
        self._loop = asyncio.get_running_loop()
        # None: the innermost `_serve` ends.
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._compute, args=(cores,), name="device")
        self._lent_ns = 0
        self._closed = False

    def start(self) -> None:
        """Begin to compute."""
        self._thread.start()

    async def close(self, wait: bool) -> None:
        """End the thread when what it computes is done.

        Args:
            wait: for that.
        """
        if self._thread.ident is None:  # never started
            return
        self._closed = True
        self._calls.put(None)
        if wait:
            await asyncio.to_thread(self._thread.join)

    async def run(self, work: Callable[[], T]) -> tuple[T, int]:
        """Compute; return the result and the nanoseconds that it took, those of other work in its pauses excluded."""
        done: Future[tuple[T, int]] = Future()

        def call() -> None:
            if not done.set_running_or_notify_cancel():
                return
            started_ns, lent_ns = time.monotonic_ns(), self._lent_ns
            try:
                result = work()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result((result, time.monotonic_ns() - started_ns - (self._lent_ns - lent_ns)))

        self._calls.put(call)
        return await asyncio.wrap_future(done)

    def lend(self, others: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Pause until `others` is done, and compute what it wants; to be called in the thread, by work."""
        started_ns = time.monotonic_ns()
        lent = asyncio.run_coroutine_threadsafe(others(), self._loop)
        lent.add_done_callback(lambda _: self._calls.put(None))
        self._serve()
        if self._closed:  # that may have been the outermost's end: a loop that has stopped ends no pause
            self._calls.put(None)
        self._lent_ns += time.monotonic_ns() - started_ns

    def _compute(self, cores: int) -> None:
        use_cores(cores)
        self._serve()

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # with what it was given and gave, until the next comes
