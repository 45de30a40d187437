# SPDX-License-Identifier: Apache-2.0
"""Dynamic batching by pixels: single images in, batches to the device, single results out.

Pure asyncio: the module knows neither tensors nor any protocol. There are three lanes by cost: up to 1024x1024 pixels,
larger, and minutes of work. The lanes take turns. Where the device pauses in the middle of a batch, a batch of a
cheaper lane runs meanwhile, so that a cheap image never waits for the end of an expensive one.

    image ──┬── little ──────┬── in turn ── run ── result
            ├── much ────────┤    └── in its pauses: a batch with less work
            └── very much ───┘
"""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from latentwire_server.engine.jobs import Caller
from latentwire_server.engine.lane import BatchLimits, Entry, Lane
from latentwire_server.errors import DeadlineExceeded, forget_frames

P = TypeVar("P")
R = TypeVar("R")

# The pixels of one image, times the passes over them. The models' usual sizes, up to 1024x1024, share a lane. Larger
# images take so long on any device that the others would notice. The last lane, for minutes of work, has no limit.
LANE_LIMITS = (1024 * 1024, 32 * 1024 * 1024)


@dataclass(frozen=True)
class BatchedResult(Generic[R]):
    """A result, and the number, the size and the end (time.monotonic_ns) of its batch."""

    result: R
    batch: int
    batch_size: int
    ended_ns: int


class Batcher(Generic[P, R]):
    """A queue in front of one device.

    Args:
        run: (key, payloads) -> one result or exception for each payload. While it runs, only `run_smaller_batch` calls
            it again.
        limits: the largest batch, and how long it waits.
    """

    def __init__(
        self, run: Callable[[Hashable, list[P]], Awaitable[Sequence[R | Exception]]], limits: BatchLimits
    ) -> None:
        self._run = run
        # The cheapest lane comes first.
        self._lanes: list[Lane[P, BatchedResult[R]]] = [Lane(limits) for _ in range(len(LANE_LIMITS) + 1)]
        # The lane whose turn is next comes first.
        self._turns = list(self._lanes)
        self._changed = asyncio.Event()
        self._batches = 0
        # The innermost batch at work, and the number of lanes whose batches may run in its pauses.
        self._at_work: tuple[list[Entry[P, BatchedResult[R]]], int] = ([], 0)
        self._ended = False

    def __len__(self) -> int:
        """Return the number of entries that wait."""
        return sum(map(len, self._lanes))

    async def submit(self, payload: P, *, key: Hashable, pixels: int, caller: Caller) -> BatchedResult[R]:
        """Queue one payload and return its result; when cancelled, the payload leaves the queue.

        Args:
            payload: handed to `run`.
            key: equal keys may share a batch.
            pixels: the pixels of the image, times the passes over them.
            caller: who asks.

        Raises:
            DeadlineExceeded: the caller's deadline passed; a payload that is not in a batch by then never runs.
            Exception: the exception that `run` gave for the payload.
        """
        caller.check_deadline()
        future: asyncio.Future[BatchedResult[R]] = asyncio.get_running_loop().create_future()
        entry = Entry(payload, key, pixels, caller, future)
        lane = self._lanes[bisect_left(LANE_LIMITS, pixels)]
        lane.add(entry)
        self._changed.set()
        try:
            async with asyncio.timeout(caller.remaining_s):
                return await future
        except TimeoutError as error:
            if not future.cancelled() and future.exception() is error:  # `run` raised it
                raise
            raise DeadlineExceeded("the deadline passed while the request was in the queue or at work") from error
        finally:
            lane.discard(entry)

    async def serve(self) -> None:
        """Cut batches and run them, for ever; run this as a task. Its cancellation abandons the batch at work."""
        try:
            while True:
                await self._serve_next()
        finally:
            self._ended = True

    async def _serve_next(self) -> None:
        """Run the next batch, or wait; a method of its own, so that no frame holds the last batch meanwhile."""
        plans = [(lane, lane.plan()) for lane in self._turns]
        waits_s = [lane.wait_s(batch) for lane, batch in plans]
        ready = [plan for plan, wait_s in zip(plans, waits_s, strict=True) if wait_s <= 0]
        if not ready:
            await self._change(min(waits_s))
            return
        lane, batch = ready[0]
        self._turns.sort(key=lambda other: other is lane)
        lane.take(batch)
        await self._carry_out(batch, self._lanes.index(lane))

    @property
    def has_smaller_batch(self) -> bool:
        """Whether a batch waits in a cheaper lane than that of the batch at work; any thread may ask."""
        _, lanes = self._at_work
        return any(self._lanes[:lanes])

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for the results of the batch at work; any thread may ask.

        A batch of the cheapest lane is abandoned only at the end of the batcher.
        """
        batch, lanes = self._at_work
        return self._ended or (lanes > 0 and all(entry.future.done() for entry in batch))

    async def run_smaller_batch(self) -> None:
        """Run one batch of a cheaper lane than that of the batch at work, if one is ready."""
        _, lanes = self._at_work
        for number, lane in enumerate(self._lanes[:lanes]):
            batch = lane.plan()
            if lane.wait_s(batch) <= 0:
                lane.take(batch)
                await self._carry_out(batch, number)
                return

    async def _change(self, timeout_s: float) -> None:
        """Wait until an entry comes, at most for a time."""
        self._changed.clear()
        try:
            async with asyncio.timeout(None if timeout_s == float("inf") else timeout_s):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _carry_out(self, batch: list[Entry[P, BatchedResult[R]]], lanes: int) -> None:
        """Run a batch; in its pauses, batches of the first `lanes` lanes may run."""
        self._batches += 1
        number = self._batches
        answered: list[tuple[Entry[P, BatchedResult[R]], R | Exception]]
        outer, self._at_work = self._at_work, (batch, lanes)
        try:
            results = await self._run(batch[0].key, [entry.payload for entry in batch])
            answered = list(zip(batch, results, strict=True))
        except Exception as error:
            answered = [(entry, error) for entry in batch]
        finally:
            self._at_work = outer
        ended_ns = time.monotonic_ns()
        abandoned = all(entry.future.done() for entry in batch)
        for entry, result in answered:
            if abandoned and isinstance(result, Exception):  # nobody else forgets them
                forget_frames(result)
            if entry.future.done():  # cancelled meanwhile
                continue
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(BatchedResult(result, number, len(batch), ended_ns))
