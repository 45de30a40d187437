# SPDX-License-Identifier: Apache-2.0
"""Events that strangers can cause at will -> at most one line of the log a minute, with their number."""

import logging
import time
from collections.abc import Callable

PERIOD_S = 60.0


class Seldom:
    """Warns of the first event at once, and of those that follow with a later one.

    Args:
        log: where the lines go.
        what: what happened, in the past and in the plural.
        clock: the time in seconds.
    """

    def __init__(self, log: logging.Logger, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._what = what
        self._clock = clock
        self._silent_until = -float("inf")
        self._count = 0

    def note(self, reason: str) -> None:
        """Count an event; log a line with its reason where the last line is a minute old."""
        self._count += 1
        if self._clock() < self._silent_until:
            return
        self._silent_until = self._clock() + PERIOD_S
        self._log.warning("%s: %d since the last such line, the newest because %s", self._what, self._count, reason)
        self._count = 0
