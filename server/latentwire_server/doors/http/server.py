# SPDX-License-Identifier: Apache-2.0
"""An ASGI application -> a port that speaks HTTP or HTTPS, in the running event loop."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from latentwire_server.config import ServerConfig
from latentwire_server.errors import ServerError


class _Uvicorn(uvicorn.Server):
    """uvicorn as one of several servers in a process: it handles no signals."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class HttpServer:
    """One port: `start`, then `stop`.

    Args:
        application: answers the requests.
        config: the address, the port and the certificate.
        shares_port: whether other processes listen on the port, too.
    """

    def __init__(self, application: ASGIApp, config: ServerConfig, *, shares_port: bool = False) -> None:
        self._application = application
        self._config = config
        self._shares_port = shares_port
        self._uvicorn: _Uvicorn | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen; return the port.

        Raises:
            ServerError: the port is taken, or the certificate cannot be read.
        """
        settings = uvicorn.Config(
            self._application,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            # Clients share the places in the queue by their address, which a proxy's header could forge.
            proxy_headers=False,
            server_header=False,
            ssl_certfile=self._config.tls_cert,
            ssl_keyfile=self._config.tls_key,
        )
        try:
            settings.load()
        except OSError as error:
            raise ServerError(f"cannot read the certificate or its key: {error}") from error
        listener = self._listen()
        self._uvicorn = _Uvicorn(settings)
        self._serving = asyncio.create_task(self._uvicorn.serve([listener]))
        await self._uvicorn.listening.wait()
        return int(listener.getsockname()[1])

    async def stop(self, grace_s: int) -> None:
        """Refuse new connections, and wait at most `grace_s` seconds for the answers on open connections."""
        if self._uvicorn is None or self._serving is None:
            return
        self._uvicorn.config.timeout_graceful_shutdown = grace_s
        self._uvicorn.should_exit = True
        await self._serving

    def _listen(self) -> socket.socket:
        host, port = self._config.host, self._config.http_port or 0
        try:
            return socket.create_server(
                (host, port),
                family=socket.AF_INET6 if ":" in host else socket.AF_INET,
                reuse_port=self._shares_port,
                # As with gRPC, `::` stands for all IPv4 addresses, too.
                dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
            )
        except OSError as error:
            # socket.create_server appends the address to the system's text.
            reason = str(error.strerror).partition(" (while")[0]
            raise ServerError(
                f"cannot serve HTTP on port {port}: {reason}; choose another with --http-port (0 takes a free one)"
            ) from error
