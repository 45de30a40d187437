# SPDX-License-Identifier: Apache-2.0
"""A server that listens and has not loaded its models yet, until a test lets it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from latentwire_server.app import Server
from latentwire_server.config import ServerConfig


@asynccontextmanager
async def warming(
    config: ServerConfig, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Server, Callable[[], Awaitable[None]]]]:
    """Start a server; yield it while it is held up, and what lets it load and waits until it serves."""
    server = Server(config)
    loading, go_on = asyncio.Event(), asyncio.Event()
    load = server._engine.start

    async def load_slowly() -> None:
        loading.set()
        await go_on.wait()
        await load()

    async def finish() -> None:
        go_on.set()
        await starting

    monkeypatch.setattr(server._engine, "start", load_slowly)
    starting = asyncio.create_task(server.start())
    await loading.wait()
    yield server, finish
    await server.stop()
