# SPDX-License-Identifier: Apache-2.0
"""Settings -> channels, made when they are first needed: one for each process, or for each event loop."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc

from latentwire_client._settings import Address, Settings
from latentwire_client.config import Limits, Retry, Timeout
from latentwire_client.errors import Cancelled, LatentwireError, from_rpc_error
from latentwire_client.info import OnExecution
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub


class Connection:
    """A channel and the stubs of its services.

    They are made together, before another thread can close the channel: gRPC crashes the process where a stub is made
    of a closed one (grpcio 1.81).
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.channel: Any = settings.open(grpc)
        self.codec: Any = LatentCodecServiceStub(self.channel)
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)
        self._closed = threading.Event()

    def close(self) -> None:
        """Close the channel; calls in flight, and those that pause before their next try, are `Cancelled`."""
        self._closed.set()
        self.channel.close()

    def pause(self, seconds: float) -> None:
        """Sleep before the next try; raise Cancelled when the channel is closed meanwhile."""
        if self._closed.wait(seconds):
            raise closed_error(self.settings)

    @contextmanager
    def mapped_errors(self) -> Iterator[None]:
        """Map what gRPC raises to what the client raises."""
        try:
            yield
        except grpc.RpcError as error:
            raise self.failure(error) from None
        except ValueError:  # gRPC's answer to a call on a closed channel
            if not self._closed.is_set():
                raise
            raise closed_error(self.settings) from None

    def failure(self, error: grpc.RpcError) -> LatentwireError:
        """Map what gRPC raised during a call to what the client raises."""
        if error.code() is grpc.StatusCode.CANCELLED and self._closed.is_set():
            return closed_error(self.settings)
        return from_rpc_error(error, self.settings.address.target, self.settings.address.proxy)


class Connections:
    """The connection of each process: a channel does not survive a fork. Thread-safe; pickled without its channels."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # A parent's connection is kept beside the child's: dropping it would close it in the parent, too.
        self.by_process: dict[int, Connection] = {}

    def current(self) -> Connection:
        """Return this process's connection; make it if there is none."""
        connection = self.by_process.get(os.getpid())
        if connection is None:
            made = Connection(self.settings)
            connection = self.by_process.setdefault(os.getpid(), made)
            if connection is not made:  # another thread was faster
                made.close()
        return connection

    def close(self) -> None:
        """Close this process's connection; `current` makes another."""
        connection = self.by_process.pop(os.getpid(), None)
        if connection is not None:
            connection.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.settings,)


class AsyncConnection:
    """A channel of one event loop, and the stubs of its services."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.channel: Any = settings.open(grpc.aio)
        self.codec: Any = LatentCodecServiceStub(self.channel)
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)
        self._closed = asyncio.Event()

    async def close(self) -> None:
        """Close the channel; calls in flight, and those that pause before their next try, are `Cancelled`."""
        self._closed.set()
        await self.channel.close()

    async def pause(self, seconds: float) -> None:
        """Sleep before the next try; raise Cancelled when the channel is closed meanwhile."""
        try:
            await asyncio.wait_for(self._closed.wait(), seconds)
        except TimeoutError:
            return
        raise closed_error(self.settings)

    @contextmanager
    def mapped_errors(self) -> Iterator[None]:
        """Map what gRPC raises to what the client raises.

        When another task closes the channel, gRPC raises CancelledError as if the waiting task had been cancelled,
        which a task group would take for a silent end.
        """
        try:
            yield
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.settings.address.target, self.settings.address.proxy) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise closed_error(self.settings) from None


class AsyncConnections:
    """The connection of each process and event loop. Pickled without its channels."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.by_loop: dict[tuple[int, asyncio.AbstractEventLoop], AsyncConnection] = {}

    def current(self) -> AsyncConnection:
        """Return the connection of the running loop; make it if there is none."""
        key = (os.getpid(), asyncio.get_running_loop())
        if key not in self.by_loop:
            for other in list(self.by_loop):
                if other[1].is_closed():
                    self.by_loop.pop(other, None)
            self.by_loop[key] = AsyncConnection(self.settings)
        return self.by_loop[key]

    async def close(self) -> None:
        """Close the connection of the running loop; `current` makes another."""
        connection = self.by_loop.pop((os.getpid(), asyncio.get_running_loop()), None)
        if connection is not None:
            await connection.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.settings,)


C = TypeVar("C", Connections, AsyncConnections)


class Configured(Generic[C]):
    """What the clients have in common: how they are made, and their address."""

    _connect: Callable[[Settings], C]

    def __init__(
        self,
        target: str | None = None,
        *,
        model: str = "",
        timeout: Timeout = Timeout(),
        retry: Retry = Retry(),
        limits: Limits = Limits(),
        token: str | None = None,
        tls: bool | str | os.PathLike[str] = False,
        on_execution: OnExecution | None = None,
    ) -> None:
        address = Address.choose(target, token, tls)
        self._settings = Settings(address, model, timeout, retry, limits, on_execution)
        self._connections: C = type(self)._connect(self._settings)
        self._answered = False  # whether a single call has ever succeeded

    @property
    def target(self) -> str:
        """The server's address."""
        return self._settings.address.target


def closed_error(settings: Settings) -> Cancelled:
    """Return the error of a call whose channel was closed under way."""
    target = settings.address.target
    return Cancelled(grpc.StatusCode.CANCELLED, f"the channel to {target} was closed during the call")
