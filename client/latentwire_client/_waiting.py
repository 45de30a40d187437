# SPDX-License-Identifier: Apache-2.0
"""The failures of one call, or of one stream -> how long to pause before the next try, or that there is no next try.

Without a transport and without sleeping, so that calls and streams, sync and asyncio, share it.
"""

import math
import random
import time

from latentwire_client.config import Retry
from latentwire_client.errors import LatentwireError, Overloaded


class Waiting:
    """The tries of one call, or of one stream.

    Args:
        retry: how a client tries again.
        call_s: the time for the answer, the tries of `Retry.attempts` included, seconds; None: no limit. The time spent
            waiting for a restart or a full queue does not count, and the next try has all of `call_s` again.
    """

    def __init__(self, retry: Retry, call_s: float | None = None) -> None:
        self._retry = retry
        self._call_s = math.inf if call_s is None else call_s
        self._deadline_s = time.monotonic() + self._call_s
        self._answers = 0
        self._failures = 0
        self._gone_since_s = 0.0
        self._full_since_s = math.inf

    @property
    def left_s(self) -> float | None:
        """How long the next try may take, seconds; None: for ever."""
        if self._call_s == math.inf:
            return None
        # Exactly what was asked for where nothing has been lost yet: gRPC rounds odd times up, by 10 s above 1000 s.
        return max(0.0, self._deadline_s - time.monotonic()) if self._failures else self._call_s

    def pause_s(self, error: LatentwireError, answers: int) -> float | None:
        """Note a failure; return the pause before the next try in seconds, or None to give up.

        Args:
            error: an Overloaded, or an Unavailable, which says that the server is gone.
            answers: the number of answers so far. Once there is one, a server that is gone is waited for
                `reconnect_s`; this time begins anew with the first failure after each answer.
        """
        now_s = time.monotonic()
        if isinstance(error, Overloaded):
            self._failures = 0  # a server that refuses is not gone
            self._full_since_s = min(self._full_since_s, now_s)
            if now_s - self._full_since_s >= self._retry.full_queue_s:
                return None
            pause_s = max(error.retry_after_s, random.uniform(0, self._retry.initial_backoff_s))
            self._deadline_s = now_s + pause_s + self._call_s
            return pause_s
        if answers > self._answers or not self._failures:
            self._answers, self._failures, self._gone_since_s = answers, 0, now_s
        self._failures += 1
        pause_s = random.uniform(0, self._retry.backoff_s(self._failures))
        if answers > 0 and now_s - self._gone_since_s < self._retry.reconnect_s:
            self._deadline_s = now_s + pause_s + self._call_s
            return pause_s
        in_time = now_s + pause_s < self._deadline_s
        return pause_s if self._failures < self._retry.attempts and in_time else None
