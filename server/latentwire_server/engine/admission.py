# SPDX-License-Identifier: Apache-2.0
"""Places in the queue: a client and a number of images -> a place, a wait or QueueFull.

A client may hold at most `SHARE` times as many places as are free. One client alone gets three quarters of the queue,
two that share it for a while 3/7 each, n 3 / (3n + 1) each, so that some stay free for newcomers; and a client that
holds none may have the very last. No client starves another. This is the dynamic threshold of Choudhury and Hahne
(IEEE/ACM Transactions on Networking 6(2), 1998), here for images.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from latentwire_server.config import ServerConfig
from latentwire_server.engine.jobs import Caller
from latentwire_server.errors import DeadlineExceeded, QueueFull, RequestTooLarge

SHARE = 3


def most_images(config: ServerConfig) -> int:
    """Return how many images one request may have: `--max-batch`, and no more than a client can hold of the queue."""
    return min(config.max_batch, _largest(config.max_queue))


class Admission:
    """Counts the images that are waiting or at work, by client; for one event loop.

    Args:
        places: images of all clients together.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self._held: Counter[str] = Counter()
        self._waiters: deque[tuple[asyncio.Future[None], str, int]] = deque()
        self.seconds_per_image = 0.1
        """To encode or decode one: a running mean that the engine keeps; the advice to come back later rests on it."""

    @property
    def held(self) -> int:
        """The number of places taken."""
        return self._held.total()

    @property
    def largest(self) -> int:
        """The most places that one client can hold, when it is alone."""
        return _largest(self.places)

    @asynccontextmanager
    async def place(self, caller: Caller, images: int) -> AsyncIterator[None]:
        """Hold places for `images` images while the context lasts.

        Raises:
            RequestTooLarge: more images than one client can ever hold.
            QueueFull: no places now, and the caller is not patient.
            DeadlineExceeded: none came free before the deadline.
        """
        if images > self.largest:
            raise RequestTooLarge(
                f"the request has {images} images; one client may have at most {self.largest} in the queue "
                "(serve --max-queue)"
            )
        caller.check_deadline()
        if not self._fits(caller.client, images) or (caller.patient and self._waits(caller.client)):
            if not caller.patient:
                raise QueueFull(
                    f"the queue is full: {self.held} of {self.places} places are taken "
                    f"({self._held[caller.client]} by this client), {images} more were asked for "
                    "(serve --max-queue)",
                    retry_after_s=max(0.1, self.held * self.seconds_per_image / 2),
                )
            await self._wait(caller, images)
        else:
            self._held[caller.client] += images
        try:
            yield
        finally:
            self._give_back(caller.client, images)

    def _give_back(self, client: str, images: int) -> None:
        self._held[client] -= images
        if not self._held[client]:
            del self._held[client]
        self._wake()

    def _fits(self, client: str, images: int) -> bool:
        free = self.places - self.held - images
        mine = self._held[client]
        # A single image of a client that holds nothing is let in as long as there is a place at all.
        return free >= 0 and (mine + images <= SHARE * free or mine + images == 1)

    def _waits(self, client: str) -> bool:
        return any(waiting == client for _, waiting, _ in self._waiters)

    async def _wait(self, caller: Caller, images: int) -> None:
        """Wait in line until `_wake` gives the places; on return they are held."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (turn, caller.client, images)
        self._waiters.append(entry)
        try:
            async with asyncio.timeout(caller.remaining_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # given in the very moment of giving up
                self._give_back(caller.client, images)
            elif entry in self._waiters:
                self._waiters.remove(entry)
                self._wake()  # it may have held back smaller requests of its client
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(
                    "the deadline passed while the request waited for a place in the queue"
                ) from error
            raise

    def _wake(self) -> None:
        """Give freed places to those in line; one who doesn't fit holds back only its own client."""
        passed_over: set[str] = set()
        for entry in list(self._waiters):
            turn, client, images = entry
            if client in passed_over or not self._fits(client, images):
                passed_over.add(client)
                continue
            self._waiters.remove(entry)
            if not turn.done():
                self._held[client] += images
                turn.set_result(None)


def _largest(places: int) -> int:
    return max(1, places * SHARE // (SHARE + 1))
