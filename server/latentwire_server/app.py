# SPDX-License-Identifier: Apache-2.0
"""A configuration -> a running server, in an event loop, a thread or a process of its own."""

import asyncio
import logging
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from latentwire_proto.v1.latent_codec_pb2_grpc import add_LatentCodecServiceServicer_to_server
from latentwire_server.config import ServerConfig
from latentwire_server.doors.grpc.interceptors import SERVICE, RequestInterceptor
from latentwire_server.doors.grpc.service import LatentCodecService
from latentwire_server.doors.grpc.transport import channel_options
from latentwire_server.doors.http.hf_remote import RemoteVaeGateway
from latentwire_server.doors.http.metrics_page import metrics_page
from latentwire_server.doors.http.server import HttpServer, Place
from latentwire_server.doors.oip import service as oip
from latentwire_server.engine.engine import Engine
from latentwire_server.errors import ServerError
from latentwire_server.process.lifecycle import Lifecycle, ask_by_signal, leave
from latentwire_server.process.ports import Ports, check_free, is_loopback, join
from latentwire_server.telemetry.metrics import Metrics

log = logging.getLogger("latentwire")

# After the last answer is written, how long the transport may take to deliver it.
CLOSE_S = 5
PAGE_S = 1  # for a page of metrics


class Server:
    """One server in the running event loop: `start`, then `stop`.

    Args:
        config: the models, the ports and the limits.
        shares_port: whether other processes of this server listen on its ports, too.
    """

    def __init__(self, config: ServerConfig, *, shares_port: bool = False) -> None:
        self.config = config
        self.metrics = Metrics()
        self.port = 0
        self.http_port = 0
        self.metrics_port = 0
        self._shares_port = shares_port
        self._lifecycle = Lifecycle()
        self._engine = Engine(config, self.metrics)
        self._health = health.HealthServicer()
        self._http: HttpServer | None = None
        if config.http_port is not None:
            gateway = RemoteVaeGateway(self._engine, config, self._lifecycle, self.metrics)
            place = Place(config.host, config.http_port, "--http-port", "HTTP")
            self._http = HttpServer(gateway.application(), config, place, shares_port=shares_port)
        self._metrics_page: HttpServer | None = None
        if config.metrics_port is not None:
            page = metrics_page(self.metrics.registry, config.token)
            place = Place(config.metrics_host, config.metrics_port, "--metrics-port", "metrics")
            self._metrics_page = HttpServer(page, config, place)
        self._interceptor = RequestInterceptor(
            self._lifecycle, self.metrics, config.token, services=(SERVICE, oip.SERVICE), probes=oip.PROBES,
            receive_timeout_s=config.receive_timeout_s,
        )  # fmt: skip
        self._grpc = grpc.aio.server(
            interceptors=[self._interceptor], options=channel_options(config, shares_port=shares_port)
        )

    async def start(self) -> None:
        """Listen, load the models, run each once, and only then be healthy and let requests in.

        A server that shares its port listens last: until then the other processes answer.

        Raises:
            ServerError: the port is taken, or a certificate and its key cannot be read or used.
            ModelError: a model cannot be loaded.
        """
        service = LatentCodecService(self._engine, self.config, self._lifecycle, self.metrics)
        add_LatentCodecServiceServicer_to_server(service, self._grpc)
        if self.config.oip:
            gateway = oip.OpenInferenceService(self._engine, self.config, self._lifecycle, self.metrics)
            self._grpc.add_generic_rpc_handlers((gateway.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        reflection.enable_server_reflection(
            (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
             reflection.SERVICE_NAME),
            self._grpc,
        )  # fmt: skip
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._warn_if_open()
        try:
            if not self._shares_port:
                await self._open()
            await self._engine.start()
            self._lifecycle.warm()
            await self._set_health(health_pb2.HealthCheckResponse.SERVING)
            if self._shares_port:
                await self._open()
        except BaseException:
            await self.stop()
            raise

    @property
    def ports(self) -> Ports:
        """The ports on which the server listens."""
        return Ports(self.port, self.http_port, (self.metrics_port,) if self.metrics_port else ())

    async def stop(self) -> bool:
        """Be unhealthy, let no request in, finish the requests that are in, and close.

        Returns:
            Whether all of them ended within `drain_timeout_s`; if not, the device may still be at work on a batch.
        """
        self._lifecycle.drain()
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        drained = await self._lifecycle.idle(self.config.drain_timeout_s)
        if not drained:
            log.error("requests were still running after %s s; they are lost", self.config.drain_timeout_s)
        grace_s = CLOSE_S if drained else 0
        if self._http is not None:
            await self._http.stop(grace_s)
        await self._interceptor.close(grace_s)
        await self._grpc.stop(grace_s)
        await self._engine.close(wait=drained)
        if self._metrics_page is not None:
            await self._metrics_page.stop(PAGE_S)
        return drained

    async def _set_health(self, status: int) -> None:
        for service in ("", SERVICE):
            await self._health.set(service, status)

    async def _open(self) -> None:
        """Listen on every port."""
        self.port = self._listen()
        if self._metrics_page is not None:
            self.metrics_port = await self._metrics_page.start()
        await self._grpc.start()
        if self._http is not None:
            self.http_port = await self._http.start()

    def _listen(self) -> int:
        host, port = self.config.host, self.config.port
        if not self._shares_port:
            # gRPC says only that it failed, in a log line of its own; this check says why.
            check_free(host, port)
        address = join(host, port)
        try:
            if self.config.tls_cert is None or self.config.tls_key is None:
                return int(self._grpc.add_insecure_port(address))
            pair = (self.config.tls_key.read_bytes(), self.config.tls_cert.read_bytes())
            # gRPC says only that a wrong pair failed; this check says why. The empty password stops it from asking.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.config.tls_cert, self.config.tls_key, "")
            return int(self._grpc.add_secure_port(address, grpc.ssl_server_credentials([pair])))
        except RuntimeError as error:
            raise ServerError(f"cannot listen on {address}: {error}; choose another with --port or --host") from error
        except ssl.SSLError as error:
            raise ServerError(
                f"cannot use the certificate {self.config.tls_cert} with the key {self.config.tls_key}: {error}; "
                "--tls-cert and --tls-key take PEM files that belong together, the key without a password"
            ) from error
        except OSError as error:
            raise ServerError(f"cannot read the certificate or its key: {error}") from error

    def _warn_if_open(self) -> None:
        served = {self.config.host: "requests"}
        if self.config.metrics_port is not None:
            same = self.config.metrics_host in served
            served[self.config.metrics_host] = "requests and metrics" if same else "metrics"
        for host, what in served.items():
            if is_loopback(host):
                continue
            if self.config.tls_cert is None:
                log.warning("listening for %s on %s without TLS; consider --tls-cert and --tls-key", what, host)
            if self.config.token is None:
                log.warning("listening for %s on %s without a token; consider --token", what, host)


def run(config: ServerConfig, on_ready: Callable[[Ports], None], *, lifeline: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain and end the process; a second signal ends it at once.

    Args:
        config: the configuration of the server.
        on_ready: called with the ports when the server answers requests.
        lifeline: for a worker, which shares its ports with others: a file descriptor whose end asks it to drain, too.

    Raises:
        ServerError, ModelError: the server cannot start.
    """
    asyncio.run(_run(config, on_ready, lifeline))
    leave(0)


async def _run(config: ServerConfig, on_ready: Callable[[Ports], None], lifeline: int | None = None) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    ask_by_signal(stopping, os._exit)
    if lifeline is not None:

        def end() -> None:
            loop.remove_reader(lifeline)
            stopping.set()

        loop.add_reader(lifeline, end)
    shown = {key: value for key, value in asdict(config).items() if key != "token"}
    log.info("configuration: %s", {**shown, "token": config.token is not None})
    server = Server(config, shares_port=lifeline is not None)
    starting, asked = asyncio.create_task(server.start()), asyncio.create_task(stopping.wait())
    await asyncio.wait((starting, asked), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()  # no model is loaded after the one that is being loaded
        await asyncio.wait((starting,))
    if starting.cancelled():
        log.info("stopped before every model was loaded")
        return
    await starting
    if not asked.done():
        try:
            on_ready(server.ports)
        except BaseException:
            await server.stop()  # its threads would keep the process alive
            raise
        await asked
    log.info("draining")
    if not await server.stop():
        leave(1)  # the batch on the device may run until its next pause
    log.info("stopped")


@contextmanager
def background(config: ServerConfig) -> Iterator[Server]:
    """Serve from a thread with an event loop of its own while the context lasts.

    Raises:
        ServerError, ModelError: the server cannot start.
    """
    started = threading.Event()
    outcome: list[Server | BaseException] = []
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()

    async def serve() -> None:
        try:
            server = Server(config)
            await server.start()
            outcome.append(server)
        except BaseException as error:
            outcome.append(error)
            return
        finally:
            started.set()
        await stopping.wait()
        await server.stop()

    def thread_main() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=thread_main, name="latentwire-server", daemon=True)
    thread.start()
    try:
        started.wait()
        server = outcome[0]
        if isinstance(server, BaseException):
            raise server
        yield server
    finally:
        with suppress(RuntimeError):  # the loop is closed: the server never started
            loop.call_soon_threadsafe(stopping.set)
        thread.join()
