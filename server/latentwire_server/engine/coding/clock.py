# SPDX-License-Identifier: Apache-2.0
"""The stages of one request -> the time that it waits in them, and the time that is worked for it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Clock:
    """Where the time of one request goes, in nanoseconds: waiting for turns and memory, and at work."""

    waited_ns: int = 0
    worked_ns: int = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the context as waiting."""
        since = time.monotonic_ns()
        try:
            yield
        finally:
            self.waited_ns += time.monotonic_ns() - since

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the context as work."""
        since = time.monotonic_ns()
        try:
            yield
        finally:
            self.worked_ns += time.monotonic_ns() - since
