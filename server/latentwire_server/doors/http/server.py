# SPDX-License-Identifier: Apache-2.0
"""An ASGI application -> a port that speaks HTTP or HTTPS, in the running event loop."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import uvicorn
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from latentwire_server.config import ServerConfig
from latentwire_server.doors.http.protocol import LimitedProtocol, refusals
from latentwire_server.errors import ServerError

HANDSHAKE_S = 10.0
# Where the process has no file descriptor left, how long until it looks for one again.
PAUSE_S = 0.5


@dataclass(frozen=True)
class Place:
    """Where to listen.

    Attributes:
        host: an address or a name.
        port: 0 for any free one.
        flag: the option that sets the port.
        what: what is served there, for messages.
    """

    host: str
    port: int
    flag: str
    what: str


class _Uvicorn(uvicorn.Server):
    """uvicorn as one of several servers in a process: it handles no signals, and takes connections that are given."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """One port: `start`, then `stop`.

    Args:
        application: answers the requests.
        config: the certificate and the limits.
        place: where to listen.
        shares_port: whether other processes listen on the port, too.
    """

    def __init__(self, application: ASGIApp, config: ServerConfig, place: Place, *, shares_port: bool = False) -> None:
        self._application = application
        self._config = config
        self._place = place
        self._shares_port = shares_port
        self._shaking: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._uvicorn: _Uvicorn | None = None

    async def start(self) -> int:
        """Listen; return the port.

        Raises:
            ServerError: the port is taken, or the certificate cannot be read.
        """
        settings = uvicorn.Config(
            partial(_unambiguous, self._application),
            interface="asgi3",
            http=LimitedProtocol,
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
        serving = asyncio.create_task(self._uvicorn.serve([]))
        self._tasks = [asyncio.create_task(self._accept(listener, self._uvicorn)), serving]
        return int(listener.getsockname()[1])

    async def stop(self, grace_s: int) -> None:
        """Refuse new connections, and wait at most `grace_s` seconds for the answers on open connections."""
        if self._uvicorn is None:
            return
        accepting, serving = self._tasks
        for task in (accepting, *self._shaking):
            task.cancel()
        await asyncio.gather(accepting, *self._shaking, return_exceptions=True)
        self._uvicorn.config.timeout_graceful_shutdown = grace_s
        self._uvicorn.should_exit = True
        await serving

    async def _accept(self, listener: socket.socket, server: _Uvicorn) -> None:
        """Take connections within their limit; uvicorn would take all, and log each that finds no descriptor."""
        with listener:
            while True:
                try:
                    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
                except OSError as error:
                    refusals.note(f"one could not be taken ({error.strerror}); see --max-connections and ulimit -n")
                    await asyncio.sleep(PAUSE_S)
                    continue
                if self._has_room(server):
                    shaking = asyncio.create_task(self._shake_hands(connection, server))
                    self._shaking.add(shaking)
                    shaking.add_done_callback(self._shaking.discard)
                else:
                    connection.close()
                await asyncio.sleep(0)  # a connection that makes room is closed by the event loop

    def _has_room(self, server: _Uvicorn) -> bool:
        """Return whether a connection can be taken; at the limit, the oldest that asks for nothing makes room."""
        held = [each for each in server.server_state.connections if isinstance(each, LimitedProtocol)]
        if len(held) + len(self._shaking) < self._config.max_connections:
            return True
        reason = f"there were {self._config.max_connections} (--max-connections)"
        idle = min((each for each in held if not each.is_asking), key=lambda each: each.since, default=None)
        if idle is None:
            refusals.note(reason)
            return False
        idle.refuse(reason)
        server.server_state.connections.discard(idle)
        return True

    async def _shake_hands(self, connection: socket.socket, server: _Uvicorn) -> None:
        def protocol() -> LimitedProtocol:
            return LimitedProtocol(server.config, server.server_state, {})

        secure = server.config.ssl
        with suppress(OSError):  # the client is gone, or speaks no TLS
            await asyncio.get_running_loop().connect_accepted_socket(
                protocol, connection, ssl=secure, ssl_handshake_timeout=HANDSHAKE_S if secure else None
            )

    def _listen(self) -> socket.socket:
        host, port = self._place.host, self._place.port
        try:
            listener = socket.create_server(
                (host, port),
                family=socket.AF_INET6 if ":" in host else socket.AF_INET,
                backlog=1024,
                reuse_port=self._shares_port,
                # As with gRPC, `::` stands for all IPv4 addresses, too.
                dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
            )
        except OSError as error:
            # socket.create_server appends the address to the system's text.
            reason = str(error.strerror).partition(" (while")[0]
            raise ServerError(
                f"cannot serve {self._place.what} on port {port}: {reason}; choose another with {self._place.flag} "
                "(0 takes a free one)"
            ) from error
        listener.setblocking(False)
        return listener


async def _unambiguous(application: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a request whose length is told in two ways, which a proxy and this server could read differently."""
    headers = Headers(scope=scope)
    if "content-length" in headers and "transfer-encoding" in headers:
        text = "the request has Content-Length and Transfer-Encoding; send one of them"
        application = JSONResponse({"error": text, "code": "INVALID_ARGUMENT"}, 400, {"connection": "close"})
    await application(scope, receive, send)
