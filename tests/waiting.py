# SPDX-License-Identifier: Apache-2.0
"""Waiting without limits of time: the suite's own ends a test that hangs."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PAUSE_S = 0.005


def until(condition: Callable[[], object]) -> None:
    """Return when a condition holds."""
    while not condition():
        time.sleep(PAUSE_S)


async def until_async(condition: Callable[[], object]) -> None:
    """Return when a condition holds, and let the event loop run until then."""
    while not condition():
        await asyncio.sleep(PAUSE_S)


@contextmanager
def gate() -> Iterator[threading.Event]:
    """Give an event that is set at the end of the block at the latest: a thread that waits for it lets a test fail."""
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()
