# SPDX-License-Identifier: Apache-2.0
"""A client and a number of places -> the places now, a wait for them, or QueueFull.

The places are images in the queue, or MiB of memory. A client may hold at most `SHARE` times as many places as are
free. One client alone gets three quarters of all, two that share them for a while 3/7 each, n 3 / (3n + 1) each, so
that some places stay free for newcomers; and a client that holds no place may have the very last. No client starves
another. This is the dynamic threshold of Choudhury and Hahne (IEEE/ACM Transactions on Networking 6(2), 1998), with
places for cells.
"""

import asyncio
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from latentwire_server.config import ServerConfig
from latentwire_server.engine.jobs import Caller
from latentwire_server.errors import DeadlineExceeded, QueueFull, RequestTooLarge

SHARE = 3
LEAST_RETRY_S = 0.1
"""The shortest time after which a refused client should come back."""
NEWEST = 0.1
"""The weight of the newest duration in the running mean."""


def most_images(config: ServerConfig) -> int:
    """Return how many images one request may have: `--max-batch`, and no more than a client can hold of the queue."""
    return min(config.max_batch, _largest(config.max_queue))


class Shares:
    """Counts the places that clients hold; for one event loop.

    Args:
        places: the places of all clients together.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self._held: Counter[str] = Counter()
        # Guards `_held` and `_waiters`: `Claim.take_now` runs in any thread.
        self._lock = threading.RLock()
        self._waiters: deque[tuple[asyncio.Future[None], str, int]] = deque()
        self._seconds_per_place = 0.1

    @property
    def held(self) -> int:
        """The number of places taken."""
        with self._lock:
            return self._held.total()

    @property
    def largest(self) -> int:
        """The most places that one client can hold when it is alone."""
        return _largest(self.places)

    @property
    def retry_after_s(self) -> float:
        """The time in which half of the places taken should come free, seconds: advice for a refused client."""
        return max(LEAST_RETRY_S, self.held * self._seconds_per_place / 2)

    def observe(self, seconds: float) -> None:
        """Take the time for which one place was at work into the running mean behind `retry_after_s`."""
        self._seconds_per_place += NEWEST * (seconds - self._seconds_per_place)

    @asynccontextmanager
    async def hold(self, caller: Caller, number: int) -> AsyncIterator[None]:
        """Hold a number of places while the context lasts; raises what `Claim.take` raises."""
        with self.claim(caller) as claim:
            await claim.take(number)
            yield

    @contextmanager
    def claim(self, caller: Caller) -> Iterator["Claim"]:
        """Yield a claim that holds no place yet; the end of the context gives back all places that the claim took."""
        claim = Claim(self, caller)
        try:
            yield claim
        finally:
            claim.close()

    def _take_now(self, client: str, number: int) -> bool:
        with self._lock:
            fits = self._fits(client, number)
            if fits:
                self._held[client] += number
            return fits

    def _give_back(self, client: str, number: int) -> None:
        with self._lock:
            self._held[client] -= number
            if not self._held[client]:
                del self._held[client]
            self._wake()

    def _fits(self, client: str, number: int) -> bool:
        free = self.places - self.held - number
        mine = self._held[client]
        # A client that holds no place gets one place as long as any place is free.
        return free >= 0 and (mine + number <= SHARE * free or mine + number == 1)

    def _is_waiting(self, client: str) -> bool:
        return any(waiting == client for _, waiting, _ in self._waiters)

    async def _wait(self, caller: Caller, number: int) -> None:
        """Wait in line until `_wake` gives the places; on return they are held."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (turn, caller.client, number)
        with self._lock:
            self._waiters.append(entry)
        try:
            async with asyncio.timeout(caller.remaining_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # the places came in the very moment of giving up
                self._give_back(caller.client, number)
            else:
                with self._lock:
                    self._waiters = deque(each for each in self._waiters if each is not entry)
                    self._wake()  # smaller requests of the same client may have waited behind this one
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(
                    "the deadline passed while the request waited for a place in the queue"
                ) from error
            raise

    def _wake(self) -> None:
        """Give free places to those in line; a request that does not fit holds back only its own client."""
        held_back: set[str] = set()
        with self._lock:
            for entry in list(self._waiters):
                turn, client, number = entry
                if client in held_back or not self._fits(client, number):
                    held_back.add(client)
                    continue
                self._waiters.remove(entry)
                if not turn.done():
                    self._held[client] += number
                    turn.set_result(None)


class Claim:
    """What one caller holds; `Shares.claim` makes it and closes it.

    Args:
        shares: whose places they are.
        caller: who takes them.
    """

    def __init__(self, shares: Shares, caller: Caller) -> None:
        self._shares = shares
        self._caller = caller
        self._held = 0
        self._closed = False

    @property
    def held(self) -> int:
        """The number of places that the claim holds."""
        return self._held

    def take_now(self, number: int) -> bool:
        """Take places if they are free and no request of the same client waits for its own; from any thread.

        Returns:
            whether the claim holds them; False, too, where it is closed.
        """
        shares, client = self._shares, self._caller.client
        with shares._lock:
            taken = not self._closed and not shares._is_waiting(client) and shares._take_now(client, number)
            if taken:
                self._held += number
            return taken

    async def take(self, number: int) -> None:
        """Take places; a patient caller waits for them behind its own earlier requests.

        Raises:
            RequestTooLarge: the number is above what one client can ever hold.
            QueueFull: the places are not free, and the caller is not patient.
            DeadlineExceeded: the deadline passed before the places came free.
        """
        shares, caller = self._shares, self._caller
        if number > shares.largest:
            raise RequestTooLarge(
                f"the request has {number} images; one client may have at most {shares.largest} in the queue "
                "(serve --max-queue)"
            )
        caller.check_deadline()
        if not caller.patient:
            if not shares._take_now(caller.client, number):
                raise QueueFull(
                    f"the queue is full: {shares.held} of {shares.places} places are taken "
                    f"({shares._held[caller.client]} by this client), {number} more were asked for "
                    "(serve --max-queue)",
                    retry_after_s=shares.retry_after_s,
                )
            self._held += number
        elif not self.take_now(number):
            await shares._wait(caller, number)
            self._held += number

    def close(self) -> None:
        """Give back what the claim holds; it takes no more places."""
        with self._shares._lock:
            self._closed = True
            number, self._held = self._held, 0
        if number:
            self._shares._give_back(self._caller.client, number)


def _largest(places: int) -> int:
    return max(1, places * SHARE // (SHARE + 1))
