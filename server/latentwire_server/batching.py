# SPDX-License-Identifier: Apache-2.0
"""Dynamic batching by pixels: single images in, batches to the device, single results out.

Pure asyncio: it knows neither tensors nor any protocol. Large images wait in a lane of their own. The lanes take
turns; and where the device pauses in the middle of a large batch, a small one runs meanwhile.

    image ──┬── small lane ──┬── in turn ── run ── result
            └── large lane ──┘    └── in its pauses: a small batch
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from latentwire_server.errors import DeadlineExceeded, forget_frames
from latentwire_server.jobs import Caller
from latentwire_server.lane import BatchLimits, Entry, Lane

P = TypeVar("P")
R = TypeVar("R")

# Pixels of one image. The models' usual sizes, up to 1024x1024, share a lane; what is above it takes long enough on any
# device for the others to notice.
LARGEST_SMALL = 1024 * 1024


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
        run: (key, payloads) -> one result or exception for each payload; called again while it runs by `let_in` only.
        limits: the size of a batch.
    """

    def __init__(
        self,
        run: Callable[[Hashable, list[P]], Awaitable[Sequence[R | Exception]]],
        limits: BatchLimits,
    ) -> None:
        self._run = run
        self._small: Lane[P, Outcome[R]] = Lane(limits)
        self._large: Lane[P, Outcome[R]] = Lane(limits)
        # Whose turn is next comes first.
        self._lanes = [self._small, self._large]
        self._changed = asyncio.Event()
        self._batches = 0
        # The large batch at work, while a small one may run in its pauses.
        self._pausing: list[Entry[P, Outcome[R]]] = []
        self._ended = False

    def __len__(self) -> int:
        """Return the number of entries that wait."""
        return sum(map(len, self._lanes))

    async def submit(self, payload: P, *, key: Hashable, pixels: int, caller: Caller) -> Outcome[R]:
        """Queue one payload and return its result; when cancelled, it leaves the queue.

        Raises:
            DeadlineExceeded: the caller's deadline passed; what is not in a batch by then never gets into one.
            Exception: whatever `run` gave for it.
        """
        caller.check_deadline()
        future: asyncio.Future[Outcome[R]] = asyncio.get_running_loop().create_future()
        entry = Entry(payload, key, pixels, caller, future)
        lane = self._small if pixels <= LARGEST_SMALL else self._large
        lane.add(entry)
        self._changed.set()
        try:
            async with asyncio.timeout(caller.remaining_s):
                return await future
        except TimeoutError as error:
            if not future.cancelled():  # `run` raised it
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
        plans = [(lane, lane.plan()) for lane in self._lanes]
        waits_s = [lane.wait_s(batch) for lane, batch in plans]
        ready = [plan for plan, wait_s in zip(plans, waits_s, strict=True) if wait_s <= 0]
        if not ready:
            await self._change(min(waits_s))
            return
        lane, batch = ready[0]
        self._lanes.sort(key=lambda other: other is lane)
        lane.take(batch)
        self._pausing = batch if lane is self._large else []
        try:
            await self._carry_out(batch)
        finally:
            self._pausing = []

    @property
    def wants_in(self) -> bool:
        """Whether the batch at work is a large one, in whose pauses a small one would run; any thread may ask."""
        return bool(self._pausing and self._small)

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody gets the results of the batch at work, a large one unless the end came; any thread may ask."""
        return self._ended or (bool(self._pausing) and all(entry.future.done() for entry in self._pausing))

    async def let_in(self) -> None:
        """Run one small batch if one is ready: for a pause of the large batch at work."""
        batch = self._small.plan()
        if self._small.wait_s(batch) > 0:
            return
        self._small.take(batch)
        pausing, self._pausing = self._pausing, []
        try:
            await self._carry_out(batch)
        finally:
            self._pausing = pausing

    async def _change(self, timeout_s: float) -> None:
        """Wait until an entry comes, at most so long."""
        self._changed.clear()
        try:
            async with asyncio.timeout(None if timeout_s == float("inf") else timeout_s):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _carry_out(self, batch: list[Entry[P, Outcome[R]]]) -> None:
        self._batches += 1
        number = self._batches
        answered: list[tuple[Entry[P, Outcome[R]], R | Exception]]
        try:
            results = await self._run(batch[0].key, [entry.payload for entry in batch])
            answered = list(zip(batch, results, strict=True))
        except Exception as error:
            answered = [(entry, error) for entry in batch]
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
