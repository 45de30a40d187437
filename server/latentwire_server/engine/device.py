# SPDX-License-Identifier: Apache-2.0
"""Work of the event loop -> the one thread that computes, and its results back.

Long work pauses now and then, and in the pause the same thread computes what the loop wants in between. A second thread
would compete for the cores with OpenMP threads of its own, and miss what compilers keep for each thread.

The device's thread has all cores, and so has the thread for loads. The threads that convert messages have one core
each, because their work is small, and OpenMP would keep a team of threads for each of them.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

T = TypeVar("T")

_setting_threads = threading.Lock()


def use_cores(count: int) -> None:
    """Let torch compute with `count` threads, at least 1, in the calling thread only."""
    with _setting_threads:
        default = torch.get_num_threads()  # a thread takes the default at its first call, and keeps it
        torch.set_num_threads(count)
        # This has set the default of all threads to come, too. A thread of its own sets the default back: it is not
        # used again.
        back = threading.Thread(target=torch.set_num_threads, args=(default,))
        back.start()
        back.join()


class Device:
    """The thread that computes, for the event loop in which it is made.

    Args:
        cores: the number of cores that the thread has.
    """

    def __init__(self, cores: int) -> None:
        self._loop = asyncio.get_running_loop()
        # None: the innermost `_serve` ends.
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._compute, args=(cores,), name="device")
        self._yielded_ns = 0
        self._closed = False

    def start(self) -> None:
        """Begin to compute."""
        self._thread.start()

    async def close(self, wait: bool) -> None:
        """End the thread after the work that it is at.

        Args:
            wait: whether to wait for that.
        """
        if self._thread.ident is None:  # never started
            return
        self._closed = True
        self._calls.put(None)
        if wait:
            await asyncio.to_thread(self._thread.join)

    async def run(self, work: Callable[[], T]) -> tuple[T, int]:
        """Compute; return the result and its duration in nanoseconds, without the other work in its pauses."""
        done: Future[tuple[T, int]] = Future()

        def call() -> None:
            if not done.set_running_or_notify_cancel():
                return
            started_ns, yielded_ns = time.monotonic_ns(), self._yielded_ns
            try:
                result = work()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result((result, time.monotonic_ns() - started_ns - (self._yielded_ns - yielded_ns)))

        self._calls.put(call)
        return await asyncio.wrap_future(done)

    def yield_to(self, others: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Pause the work that calls this, in the device's thread, until `others` is done; compute what it wants."""
        started_ns = time.monotonic_ns()
        ended = asyncio.run_coroutine_threadsafe(others(), self._loop)
        ended.add_done_callback(lambda _: self._calls.put(None))
        self._serve()
        # The pause may have taken the mark that ends the thread: a loop that has stopped ends no pause.
        if self._closed:
            self._calls.put(None)
        self._yielded_ns += time.monotonic_ns() - started_ns

    def _compute(self, cores: int) -> None:
        use_cores(cores)
        self._serve()

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # or its input and its result would stay in memory until the next call
