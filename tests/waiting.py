# SPDX-License-Identifier: Apache-2.0
"""Waiting for what has no event of its own. There is no limit of time here: the suite's own ends a test that hangs."""

import asyncio
import time
from collections.abc import Callable

PAUSE_S = 0.01


def until(condition: Callable[[], object]) -> None:
    """Return when a condition holds."""
    while not condition():
        time.sleep(PAUSE_S)


async def until_async(condition: Callable[[], object]) -> None:
    """Return when a condition holds, and let the event loop run until then."""
    while not condition():
        await asyncio.sleep(PAUSE_S)
