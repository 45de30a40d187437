# SPDX-License-Identifier: Apache-2.0
"""A client and a number of places -> the places now, a wait for them, or QueueFull.

The places are images in the queue, or MiB of memory. A client may hold at most `SHARE` times as many places as are
free. One client alone gets three quarters of all, two that share them for a while 3/7 each, n 3 / (3n + 1) each, so
that some places stay free for newcomers; and a client that holds no place may have the very last. No client starves
another. This is the dynamic threshold of Choudhury and Hahne (IEEE/ACM Transactions on Networking 6(2), 1998), with
places for cells.

A threshold alone lets a request for many places starve behind a flow of small ones. The first request in line whose
client holds no more than its share has a reservation: from then on, the others together take no more places than it
leaves. So it waits for the requests that are in, and for none that come.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from latentwire_server.config import ServerConfig
from latentwire_server.engine.jobs import Caller
from latentwire_server.errors import QueueFull, RequestTooLarge

SHARE = 3
LEAST_RETRY_S = 0.1
"""The shortest time after which a refused client should come back."""
NEWEST = 0.1
"""The weight of the newest duration in the running mean."""


def most_images(config: ServerConfig) -> int:
    """Return how many images one request may have: `--max-batch`, and no more than a client can hold of the queue."""
    return min(config.max_batch, _largest(config.max_queue))


@dataclass(eq=False)
class _Waiter:
    """A request in line; the turn's result is the reservation under which the places were taken."""

    turn: "asyncio.Future[_Reservation | None]"
    client: str
    number: int


@dataclass(eq=False)
class _Reservation:
    """What is kept for a waiter, and the number of places that others have taken since, and still hold."""

    waiter: _Waiter
    taken: int = 0


class Shares:
    """Counts the places that clients hold; for one event loop.

    Args:
        places: the places of all clients together.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self._held: Counter[str] = Counter()
        self._waiters: list[_Waiter] = []
        self._reservation: _Reservation | None = None
        self._seconds_per_place = 0.1

    @property
    def held(self) -> int:
        """The number of places taken."""
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

    def _fits(self, client: str, number: int) -> bool:
        free = self.places - self.held - number
        kept = self._reservation
        if kept is not None and kept.taken + number > self.places - self._needed(kept.waiter):
            return False
        mine = self._held[client]
        # A client that holds no place gets one place as long as any place is free.
        return free >= 0 and (mine + number <= SHARE * free or mine + number == 1)

    def _has_come(self, waiter: _Waiter) -> bool:
        """Whether a waiter with a reservation gets its places; its client's threshold is that of a client alone."""
        fits = self._held[waiter.client] + waiter.number <= self.largest
        return fits and self.held + self._needed(waiter) <= self.places

    def _needed(self, waiter: _Waiter) -> int:
        """Return the free places that a reservation waits for: one stays for a newcomer, unless there is only one."""
        return min(waiter.number + 1, self.places)

    def _take(self, client: str, number: int) -> "_Reservation | None":
        self._held[client] += number
        if self._reservation is not None:
            self._reservation.taken += number
        return self._reservation

    def _give_back(self, client: str, number: int, reservation: "_Reservation | None") -> None:
        self._held[client] -= number
        if not self._held[client]:
            del self._held[client]
        if reservation is not None:
            reservation.taken -= number
        self._wake()

    def _is_waiting(self, client: str) -> bool:
        return any(waiter.client == client for waiter in self._waiters)

    async def _wait(self, caller: Caller, number: int) -> "_Reservation | None":
        """Wait in line until `_wake` gives the places; on return they are held."""
        waiter = _Waiter(asyncio.get_running_loop().create_future(), caller.client, number)
        self._waiters.append(waiter)
        self._wake()
        try:
            async with caller.until_deadline("the request waited for a place in the queue"):
                return await waiter.turn
        except BaseException:
            if waiter.turn.done() and not waiter.turn.cancelled():  # the places came in the very moment of giving up
                self._give_back(caller.client, number, waiter.turn.result())
            else:
                self._leave(waiter)
                self._wake()  # smaller requests of the same client may have waited behind this one
            raise

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._waiters:  # `_wake` has let go of a waiter that is giving up
            self._waiters.remove(waiter)
        if self._reservation is not None and self._reservation.waiter is waiter:
            self._reservation = None

    def _reserve(self) -> None:
        """Begin a reservation, if there is none, for the first in line whose client holds no more than its share.

        The share counts a newcomer beside the clients that hold places or wait for some.
        """
        if self._reservation is not None:
            return
        clients = {*self._held, *(waiter.client for waiter in self._waiters)}
        share = self.places // (len(clients) + 1)
        first = next((waiter for waiter in self._waiters if self._held[waiter.client] <= share), None)
        if first is not None:
            self._reservation = _Reservation(first)

    def _wake(self) -> None:
        """Give free places to those in line; a request that does not fit holds back only its own client."""
        held_back: set[str] = set()
        for waiter in list(self._waiters):
            self._reserve()
            kept = self._reservation is not None and self._reservation.waiter is waiter
            fits = self._has_come(waiter) if kept else self._fits(waiter.client, waiter.number)
            if waiter.client in held_back or not fits:
                held_back.add(waiter.client)
                continue
            self._leave(waiter)
            if not waiter.turn.done():
                waiter.turn.set_result(self._take(waiter.client, waiter.number))
        self._reserve()


class Claim:
    """What one caller holds; `Shares.claim` makes it and closes it.

    Args:
        shares: whose places they are.
        caller: who takes them.
    """

    def __init__(self, shares: Shares, caller: Caller) -> None:
        self._shares = shares
        self._caller = caller
        self._taken: list[tuple[int, _Reservation | None]] = []
        self._closed = False

    @property
    def held(self) -> int:
        """The number of places that the claim holds."""
        return sum(number for number, _ in self._taken)

    def take_now(self, number: int) -> bool:
        """Take places if they are free and no request of the same client waits for its own.

        Returns:
            whether the claim holds them; False, too, where it is closed.
        """
        shares, client = self._shares, self._caller.client
        if self._closed or shares._is_waiting(client) or not shares._fits(client, number):
            return False
        self._taken.append((number, shares._take(client, number)))
        return True

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
        if caller.patient:
            if not self.take_now(number):
                self._taken.append((number, await shares._wait(caller, number)))
            return
        if not shares._fits(caller.client, number):
            kept = ", places are kept for a request that waits" if shares._reservation else ""
            raise QueueFull(
                f"the queue is full: {shares.held} of {shares.places} places are taken "
                f"({shares._held[caller.client]} by this client){kept}, {number} more were asked for "
                "(serve --max-queue)",
                retry_after_s=shares.retry_after_s,
            )
        self._taken.append((number, shares._take(caller.client, number)))

    def close(self) -> None:
        """Give back what the claim holds; it takes no more places."""
        self._closed = True
        taken, self._taken = self._taken, []
        for number, reservation in taken:
            self._shares._give_back(self._caller.client, number, reservation)


def _largest(places: int) -> int:
    return max(1, places * SHARE // (SHARE + 1))
