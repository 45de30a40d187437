# SPDX-License-Identifier: Apache-2.0
"""Dynamic batching by pixels: single images in, batches to the device, single results out.

Pure asyncio: it knows neither tensors nor any protocol. Much work waits in a lane of its own, and so does very much.
The lanes take turns; and where the device pauses in the middle of a batch, one of a lane with less work runs meanwhile.

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

# Pixels of one image, times the passes over them. The models' usual sizes, up to 1024x1024, share a lane; what is above
# it takes long enough on any device for the others to notice. The last lane is for minutes of work, and has no limit.
LANE_LIMITS = (1024 * 1024, 32 * 1024 * 1024)


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """A result with the story of its batch: which one, how large, and when it ended (time.monotonic_ns)."""

    result: R
    batch: int
    batch_size: int
    ended_ns: int


class Batcher(Generic[P, R]):
    """A queue in front of one device.

    Args:
        run: (key, payloads) -> one result or exception for each payload. While it runs, only `run_smaller_batch` calls
            it again.
        limits: the size of a batch.
    """

    def __init__(
        self,
        run: Callable[[Hashable, list[P]], Awaitable[Sequence[R | Exception]]],
        limits: BatchLimits,
    ) -> None:
        self._run = run
        # Little work comes first.
        self._lanes: list[Lane[P, Outcome[R]]] = [Lane(limits) for _ in range(len(LANE_LIMITS) + 1)]
        # Whose turn is next comes first.
        self._turns = list(self._lanes)
        self._changed = asyncio.Event()
        self._batches = 0
        # The innermost batch at work, and the number of lanes of which others may run in its pauses.
        self._at_work: tuple[list[Entry[P, Outcome[R]]], int] = ([], 0)
        self._ended = False

    def __len__(self) -> int:
        """Return the number of entries that wait."""
        return sum(map(len, self._lanes))

    async def submit(self, payload: P, *, key: Hashable, pixels: int, caller: Caller) -> Outcome[R]:
        """Queue one payload and return its result; when cancelled, it leaves the queue.

        Args:
            payload: handed to `run`.
            key: of the entries that may share a batch.
            pixels: of the image, times the passes over them.
            caller: whose it is.

        Raises:
            DeadlineExceeded: the caller's deadline passed; what is not in a batch by then never gets into one.
            Exception: whatever `run` gave for it.
        """
        caller.check_deadline()
        future: asyncio.Future[Outcome[R]] = asyncio.get_running_loop().create_future()
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
        """Cut batches and run them, for ever; to be run as a task and cancelled, which abandons what is at work."""
        try:
            while True:
                await self._serve_next()
        finally:
            self._ended = True

    async def _serve_next(self) -> None:
        """Run the next batch, or wait; nothing of a batch, nor its model, is held any longer."""
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
        """Whether another batch would run in a pause of the one at work; any thread may ask."""
        _, lanes = self._at_work
        return any(self._lanes[:lanes])

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody gets the results of the batch at work; any thread may ask.

        A batch of little work runs on until the end of the batcher.
        """
        batch, lanes = self._at_work
        return self._ended or (lanes > 0 and all(entry.future.done() for entry in batch))

    async def run_smaller_batch(self) -> None:
        """Run one batch with less work than the one at work, if one is ready: for a pause of that."""
        _, lanes = self._at_work
        for number, lane in enumerate(self._lanes[:lanes]):
            batch = lane.plan()
            if lane.wait_s(batch) <= 0:
                lane.take(batch)
                await self._carry_out(batch, number)
                return

    async def _change(self, timeout_s: float) -> None:
        """Wait until an entry comes, at most so long."""
        self._changed.clear()
        try:
            async with asyncio.timeout(None if timeout_s == float("inf") else timeout_s):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _carry_out(self, batch: list[Entry[P, Outcome[R]]], lanes: int) -> None:
        """Run a batch, in whose pauses those of the first `lanes` lanes may run."""
        self._batches += 1
        number = self._batches
        answered: list[tuple[Entry[P, Outcome[R]], R | Exception]]
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
            if abandoned and isinstance(result, Exception):  # nobody else will
                forget_frames(result)
            if entry.future.done():  # cancelled meanwhile
                continue
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(Outcome(result, number, len(batch), ended_ns))
