# SPDX-License-Identifier: Apache-2.0
"""The calls of one run -> their answers, waited for while the server's queue is full and while it restarts."""

import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from latentwire_client._outage import Outage
from latentwire_client.config import Retry
from latentwire_client.errors import Overloaded, Unavailable

T = TypeVar("T")

FULL_QUEUE_S = 120.0
# gRPC itself has tried a call again before it fails.
RESTART = Retry(attempts=1)


class Patience:
    """Makes the calls of one run, each again and again where waiting may help. Thread-safe."""

    def __init__(self) -> None:
        self._answered = False
        self._ended = Event()

    def __call__(self, call: Callable[[], T]) -> T:
        """Make a call; where the queue is full, again and again for two minutes at most.

        Once a call of the run has succeeded, a server that is gone is waited for as long as a stream does it.

        Raises:
            LatentwireError: what the call fails with at last.
        """
        deadline = time.monotonic() + FULL_QUEUE_S
        outage = Outage(RESTART)
        while True:
            try:
                answer = call()
            except Overloaded as error:
                if time.monotonic() > deadline or self._ended.wait(max(0.1, error.retry_after_s)):
                    raise
            except Unavailable:
                pause_s = outage.pause_s(int(self._answered))
                if pause_s is None or self._ended.wait(pause_s):
                    raise
            else:
                self._answered = True
                return answer

    def end(self) -> None:
        """Let every call that waits fail at once."""
        self._ended.set()
