# SPDX-License-Identifier: Apache-2.0
"""A host and a port -> a socket to listen on, or the reason why there is no such socket."""

import ipaddress
import socket
from dataclasses import dataclass

from latentwire_server.errors import ServerError


@dataclass(frozen=True)
class Ports:
    """Where a server listens.

    Attributes:
        grpc: the port of its RPCs.
        http: the port of diffusers' remote VAE functions; 0 where the server does not answer them.
        metrics: the port of each worker's metrics; empty where they are not served.
    """

    grpc: int
    http: int
    metrics: tuple[int, ...]


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def join(host: str, port: int) -> str:
    """Map a host and a port to one address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_free(host: str, port: int, flag: str = "--port") -> None:
    """Refuse a port that is taken.

    Args:
        host: an address or a name.
        port: 0 for any free one.
        flag: the option that sets the port.

    Raises:
        ServerError: the port is taken, or this machine does not have the host's address.
    """
    try:
        socket.create_server((host, port), family=_family(host)).close()
    except OSError as error:
        # socket.create_server appends the address to the system's text.
        reason = str(error.strerror).partition(" (while")[0]
        raise ServerError(
            f"cannot listen on {join(host, port)}: {reason}; choose another with {flag} or --host "
            f"({flag} 0 takes a free one)"
        ) from error


def reserve(host: str, port: int, flag: str = "--port") -> socket.socket:
    """Bind a port for workers that share it; the port is theirs while the socket is open, which does not listen itself.

    Args:
        host: an address or a name.
        port: 0 for any free one.
        flag: the option that sets the port.

    Raises:
        ServerError: the port is taken, this machine does not have the host's address, or its processes cannot share a
            port.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ServerError("processes cannot share a port on this system; start one server for each, without --workers")
    # A shared port could be bound beside another server that shares the same one.
    check_free(host, port, flag)
    reserved = socket.socket(_family(host), socket.SOCK_STREAM)
    # gRPC binds in the same way: connections of an earlier server that are still closing do no harm.
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind((host, port))
    return reserved


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
