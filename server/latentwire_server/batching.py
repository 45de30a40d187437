# SPDX-License-Identifier: Apache-2.0
"""Dynamic batching by pixels: single images in, batches to the device, single results out.

Pure asyncio: it knows neither tensors nor any protocol. Only entries of equal key share a batch. Clients take turns,
so that one who sends a thousand images delays another's single image by one batch.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from latentwire_server.errors import DeadlineExceeded
from latentwire_server.jobs import Caller

P = TypeVar("P")
R = TypeVar("R")


@dataclass(frozen=True)
class BatchLimits:
    """How large a batch gets and how long it waits for that.

    Attributes:
        images: entries in one batch.
        pixels: sum of their pixels; a larger entry goes alone.
        delay_s: how long the oldest entry waits for the batch to fill.
    """

    images: int
    pixels: int
    delay_s: float


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """A result with the story of its batch: which one, how large, and when it ran (time.monotonic_ns)."""

    result: R
    batch: int
    batch_size: int
    started_ns: int
    ended_ns: int


@dataclass(eq=False)
class Entry(Generic[P, R]):
    """One image in the queue."""

    payload: P
    key: Hashable
    pixels: int
    caller: Caller
    future: "asyncio.Future[Outcome[R]]"
    enqueued_s: float = field(default_factory=time.monotonic)


class Batcher(Generic[P, R]):
    """A queue in front of one device.

    Args:
        run: (key, payloads) -> one result or exception for each payload; never called twice at a time.
        limits: the size of a batch.
    """

    def __init__(
        self,
        run: Callable[[Hashable, list[P]], Awaitable[Sequence[R | Exception]]],
        limits: BatchLimits,
    ) -> None:
        self._run = run
        self._limits = limits
        self._queues: OrderedDict[str, deque[Entry[P, R]]] = OrderedDict()
        self._changed = asyncio.Event()
        self._batches = 0

    def __len__(self) -> int:
        """Return the number of entries that wait."""
        return sum(map(len, self._queues.values()))

    async def submit(self, payload: P, *, key: Hashable, pixels: int, caller: Caller) -> Outcome[R]:
        """Queue one payload and return its result; when cancelled, it leaves the queue.

        Raises:
            DeadlineExceeded: the caller's deadline passed; what is not in a batch by then never gets into one.
            Exception: whatever `run` gave for it.
        """
        caller.check_deadline()
        future: asyncio.Future[Outcome[R]] = asyncio.get_running_loop().create_future()
        entry = Entry(payload, key, pixels, caller, future)
        self._queues.setdefault(caller.client, deque()).append(entry)
        self._changed.set()
        try:
            async with asyncio.timeout(caller.remaining_s):
                return await future
        except TimeoutError as error:
            if not future.cancelled():  # `run` raised it
                raise
            raise DeadlineExceeded("the deadline passed while the request was in the queue or at work") from error
        finally:
            self._discard(entry)

    async def serve(self) -> None:
        """Cut batches and run them, for ever; to be run as a task and cancelled."""
        while True:
            batch = self._plan()
            wait_s = self._wait_s(batch)
            if wait_s > 0:
                self._changed.clear()
                try:
                    async with asyncio.timeout(None if not batch else wait_s):
                        await self._changed.wait()
                except TimeoutError:
                    pass
                continue
            for entry in batch:
                self._discard(entry)
            # The turn passes: the client served first goes to the end of the line.
            if (first := batch[0].caller.client) in self._queues:
                self._queues.move_to_end(first)
            await self._carry_out(batch)

    def _wait_s(self, batch: list[Entry[P, R]]) -> float:
        """Return how long to wait before `batch` is run; infinite where it is empty."""
        if not batch:
            return float("inf")
        full = (
            len(batch) >= self._limits.images
            or sum(entry.pixels for entry in batch) + batch[0].pixels > self._limits.pixels
        )
        if full:
            return 0.0
        oldest = min(entry.enqueued_s for entry in batch)
        return oldest + self._limits.delay_s - time.monotonic()

    def _plan(self) -> list[Entry[P, R]]:
        """Choose the next batch, leaving it in the queue: in turns, one entry of each client at a time."""
        self._drop_expired()
        queues = [list(queue) for queue in self._queues.values()]
        if not queues:
            return []
        batch = [queues[0][0]]
        pixels = batch[0].pixels
        same = [[entry for entry in queue if entry.key == batch[0].key] for queue in queues]
        same[0].remove(batch[0])
        # The first client has had its entry of this round.
        turns = same[1:] + same[:1]
        while any(turns) and len(batch) < self._limits.images:
            for queue in turns:
                if not queue or len(batch) == self._limits.images:
                    continue
                if pixels + queue[0].pixels > self._limits.pixels:
                    return batch
                pixels += queue[0].pixels
                batch.append(queue.pop(0))
        return batch

    def _drop_expired(self) -> None:
        for queue in list(self._queues.values()):
            for entry in list(queue):
                try:
                    entry.caller.check_deadline()
                except Exception as error:
                    self._discard(entry)
                    if not entry.future.done():
                        entry.future.set_exception(error)

    def _discard(self, entry: Entry[P, R]) -> None:
        """Take an entry out of the queue if it is still there."""
        queue = self._queues.get(entry.caller.client)
        if queue is not None and entry in queue:
            queue.remove(entry)
            if not queue:
                del self._queues[entry.caller.client]

    async def _carry_out(self, batch: list[Entry[P, R]]) -> None:
        self._batches += 1
        started_ns = time.monotonic_ns()
        answered: list[tuple[Entry[P, R], R | Exception]]
        try:
            results = await self._run(batch[0].key, [entry.payload for entry in batch])
            answered = list(zip(batch, results, strict=True))
        except Exception as error:
            answered = [(entry, error) for entry in batch]
        ended_ns = time.monotonic_ns()
        for entry, result in answered:
            if entry.future.done():  # cancelled meanwhile
                continue
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(Outcome(result, self._batches, len(batch), started_ns, ended_ns))
