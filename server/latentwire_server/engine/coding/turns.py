# SPDX-License-Identifier: Apache-2.0
"""A client and a number of workers -> its turn at one of them.

Where there are two workers or more, one client never has all of them: work of another client begins at once. A worker
that comes free goes to the waiting client that has the fewest, and among equal clients to each in turn.
"""

import asyncio
from collections import Counter, deque


class Turns:
    """The turns at workers of one kind; for one event loop.

    Args:
        workers: how many there are, at least 1.
    """

    def __init__(self, workers: int) -> None:
        self._free = workers
        self._most = max(1, workers - 1)
        self._held: Counter[str] = Counter()
        # The client that was served longest ago comes first.
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}

    async def enter(self, client: str) -> None:
        """Wait for a worker; `leave` gives it back. A caller that is cancelled leaves the line."""
        if self._free and self._held[client] < self._most:
            self._take(client)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(client, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._step_out(client, turn)
            else:  # the turn came in the very moment of giving up
                self.leave(client)
            raise

    def leave(self, client: str) -> None:
        """Give a worker back, and let the next client have it."""
        self._free += 1
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]
        while waiting := [other for other in self._lines if self._held[other] < self._most]:
            chosen = min(waiting, key=lambda other: self._held[other])
            line = self._lines.pop(chosen)
            turn = line.popleft()
            if line:
                self._lines[chosen] = line
            if not turn.done():  # its caller was cancelled, and has not stepped out of the line yet
                self._take(chosen)
                turn.set_result(None)
                return

    def _take(self, client: str) -> None:
        self._free -= 1
        self._held[client] += 1

    def _step_out(self, client: str, turn: "asyncio.Future[None]") -> None:
        line = self._lines.get(client)
        if line is not None and turn in line:
            line.remove(turn)
            if not line:
                del self._lines[client]
