# SPDX-License-Identifier: Apache-2.0
"""Entries of many clients -> the next batch.

Only entries of equal key share a batch. Clients take turns, so that one who sends a thousand images delays another's
single image by one batch.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from latentwire_server.engine.jobs import Caller

P = TypeVar("P")
F = TypeVar("F")


@dataclass(frozen=True)
class BatchLimits:
    """How large a batch gets and how long it waits for that.

    Attributes:
        images: the most entries in one batch.
        pixels: the most pixels of its entries together; a larger entry goes alone.
        delay_s: how long the oldest entry waits for the batch to fill, seconds.
    """

    images: int
    pixels: int
    delay_s: float


@dataclass(eq=False)
class Entry(Generic[P, F]):
    """One image in the queue."""

    payload: P
    key: Hashable
    pixels: int
    caller: Caller
    future: "asyncio.Future[F]"
    enqueued_s: float = field(default_factory=time.monotonic)


class Lane(Generic[P, F]):
    """The entries that wait, by client; for one event loop.

    Args:
        limits: the largest batch, and how long it waits.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._queues: OrderedDict[str, deque[Entry[P, F]]] = OrderedDict()

    def __bool__(self) -> bool:
        """Return whether an entry waits; another thread may ask, too."""
        return bool(self._queues)

    def __len__(self) -> int:
        """Return the number of entries that wait."""
        return sum(map(len, self._queues.values()))

    def add(self, entry: Entry[P, F]) -> None:
        """Put an entry at the end of its client's queue."""
        self._queues.setdefault(entry.caller.client, deque()).append(entry)

    def discard(self, entry: Entry[P, F]) -> None:
        """Take an entry out if it is still there."""
        queue = self._queues.get(entry.caller.client)
        if queue is not None and entry in queue:
            queue.remove(entry)
            if not queue:
                del self._queues[entry.caller.client]

    def plan(self) -> list[Entry[P, F]]:
        """Choose the next batch, in turns one entry of each client, and leave the entries in the lane."""
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

    def wait_s(self, batch: list[Entry[P, F]]) -> float:
        """Return how long a planned batch waits for more entries, seconds; 0 or less: not at all.

        An empty batch waits for ever; a batch without room for another entry like its first one does not wait.
        """
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

    def take(self, batch: list[Entry[P, F]]) -> None:
        """Take a planned batch out; the client of its first entry goes to the end of the line."""
        for entry in batch:
            self.discard(entry)
        if (first := batch[0].caller.client) in self._queues:
            self._queues.move_to_end(first)

    def _drop_expired(self) -> None:
        for queue in list(self._queues.values()):
            for entry in list(queue):
                try:
                    entry.caller.check_deadline()
                except Exception as error:
                    self.discard(entry)
                    if not entry.future.done():
                        entry.future.set_exception(error)
