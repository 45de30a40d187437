# SPDX-License-Identifier: Apache-2.0
"""The failures of a stream in a row -> how long to wait before the next try, or that there is none."""

import random
import time

from latentwire_client.config import Retry


class Outage:
    """The time without an answer, of one stream; shared by the sync and the asyncio client.

    Args:
        retry: how a client tries again.
    """

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._answers = 0
        self._failures = 0
        self._began_s = 0.0

    def pause_s(self, answers: int) -> float | None:
        """Note a failure; return the wait before the next try, or None: give up.

        Args:
            answers: that the stream has had; where there are new ones, a new outage begins.
        """
        now_s = time.monotonic()
        if answers > self._answers or not self._failures:
            self._answers, self._failures, self._began_s = answers, 0, now_s
        self._failures += 1
        # Who has had an answer waits for a restart.
        patient = answers > 0 and now_s - self._began_s < self._retry.reconnect_s
        if self._failures >= self._retry.attempts and not patient:
            return None
        return random.uniform(0, self._retry.backoff_s(self._failures))
