# SPDX-License-Identifier: Apache-2.0
"""A client's arguments -> one checked value, shared by the clients, their streams and their outboxes."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import grpc

from latentwire_client.config import Limits, Retry, Timeout
from latentwire_client.info import Execution, OnExecution
from latentwire_proto.v1 import latent_codec_pb2 as pb

DEFAULT_PORT = 50051
DEFAULT_TARGET = f"localhost:{DEFAULT_PORT}"
SERVER_VARIABLE = "LATENTWIRE_SERVER"
TOKEN_VARIABLE = "LATENTWIRE_TOKEN"
PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
NO_PROXY_VARIABLES = ("no_grpc_proxy", "no_proxy")
# HOST or HOST:PORT, alone or as a name to be resolved; the targets of gRPC's other schemes are left as they are.
NAMED = re.compile(r"(?P<scheme>dns:(//[^/]*/)?)?(?P<host>\[[^\[\]]*\]|[^:/\[\]]+)(?P<colon>:(?P<port>.*))?")
OTHER_SCHEMES = ("unix:", "unix-abstract:", "vsock:", "ipv4:", "ipv6:", "xds:")
SERVICE = "latentwire.v1.LatentCodecService"
CHANNEL_OPTIONS = (
    # A server that vanished without a word is noticed within a minute, also by a waiting stream.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.enable_retries", 0),  # `_waiting` decides about them, for calls and streams alike
)


@dataclass(frozen=True)
class Address:
    """Where the server is, and what lets a client in.

    Attributes:
        target: HOST, which gets the default port, HOST:PORT, or any target that gRPC knows (`dns:///svc:50051`,
            `unix:/run/latentwire.sock`).
        token: sent with every call; None: no token.
        tls: False: plain text; True: TLS with the system's root certificates; a path: TLS with the root certificates of
            that PEM file.

    Raises:
        ValueError: the token cannot be sent, the target is an URL, or its port is no port.
    """

    target: str
    token: str | None
    tls: bool | str | os.PathLike[str]

    def __post_init__(self) -> None:
        # gRPC itself says no more than "invalid metadata" or "misformatted domain name".
        if self.target.startswith(("http://", "https://")):
            without = self.target.partition("://")[2].rstrip("/")
            secure = ", and tls=True or --tls" if self.target.startswith("https") else ""
            raise ValueError(f"the server is {self.target!r}; gRPC takes HOST:PORT: give {without!r}{secure}")
        object.__setattr__(self, "target", _with_port(self.target))
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise ValueError("the token has a character other than printable ASCII; is there a line break at its end?")

    @classmethod
    def choose(cls, target: str | None, token: str | None, tls: bool | str | os.PathLike[str]) -> "Address":
        """Fill in the target (`$LATENTWIRE_SERVER`, else localhost:50051) and the token (`$LATENTWIRE_TOKEN`)."""
        return cls(
            target=target or os.environ.get(SERVER_VARIABLE) or DEFAULT_TARGET,
            token=token or os.environ.get(TOKEN_VARIABLE) or None,
            tls=tls,
        )

    @property
    def proxy(self) -> str:
        """The variable of the environment that sends the channel through a proxy; empty: the way is direct.

        gRPC takes the first of the three that is set (`http_proxy_mapper.cc`); a server on this machine needs no proxy.
        """
        host = _host(self.target)
        if not host or _is_loopback(host) or _is_exempt(host, os.environ):
            return ""
        return next((name for name in PROXY_VARIABLES if os.environ.get(name)), "")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of every call."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)


@dataclass(frozen=True)
class Settings:
    """How one client reaches its server and behaves; see the arguments of `Client`.

    Raises:
        TypeError: a value is of another type, such as a number of seconds for `timeout`.
    """

    address: Address
    model: str
    timeout: Timeout
    retry: Retry
    limits: Limits
    on_execution: OnExecution | None

    def __post_init__(self) -> None:
        values = (("timeout", self.timeout, Timeout), ("retry", self.retry, Retry), ("limits", self.limits, Limits))
        for name, value, kind in values:
            if not isinstance(value, kind):
                example = f"{kind.__name__}({fields(kind)[0].name}=...)"
                raise TypeError(f"{name} is {value!r}; it must be a {kind.__name__}, such as {example}")

    def open(self, api: Any) -> Any:
        """Make a channel of `api`: the module `grpc` or `grpc.aio`.

        Raises:
            OSError: the PEM file of `tls` cannot be read.
            ValueError: the PEM file holds no certificate.
        """
        target, tls = self.address.target, self.address.tls
        sizes = [(f"grpc.max_{way}_message_length", self.limits.max_message_bytes) for way in ("send", "receive")]
        options = [*sizes, *CHANNEL_OPTIONS, ("grpc.enable_http_proxy", int(bool(self.address.proxy)))]
        if tls is False:
            return api.insecure_channel(target, options=options)
        roots = None if tls is True else Path(tls).read_bytes()
        if roots is not None and b"-----BEGIN CERTIFICATE-----" not in roots:
            raise ValueError(f"{tls} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
        return api.secure_channel(target, grpc.ssl_channel_credentials(roots), options=options)

    def report(self, response: pb.EncodeResponse | pb.DecodeResponse) -> None:
        """Tell `on_execution`, if there is one, how the server carried out what it answers."""
        if self.on_execution is not None:
            self.on_execution(Execution.from_message(response.execution))


def _with_port(target: str) -> str:
    """Return a target with its port, the default one where it has none; raise ValueError where the port is no port."""
    if target.startswith(OTHER_SCHEMES):
        return target
    if target.count(":") > 1 and _address(target) is not None:
        target = f"[{target}]"
    named = NAMED.fullmatch(target)
    if named is None:
        return target  # gRPC says what it makes of it
    if named["colon"] is None:
        return f"{target}:{DEFAULT_PORT}"
    port = named["port"]
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"the server is {target!r}; its port is {port!r}, and must be a number in 1..65535")
    return target


def _host(target: str) -> str:
    """Return the host of a target with a port; empty for a socket of this machine, and where gRPC alone can tell."""
    if target.startswith(("ipv4:", "ipv6:")):
        target = target.partition(":")[2]
    named = None if target.startswith(OTHER_SCHEMES) else NAMED.fullmatch(target)
    return "" if named is None else named["host"].strip("[]").lower()


def _address(host: str) -> Any:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or host.endswith(".localhost") or (address is not None and bool(address.is_loopback))


def _is_exempt(host: str, environment: Mapping[str, str]) -> bool:
    """Tell whether a list of exceptions names the host, as gRPC reads it: ends of names, and ranges of addresses."""
    listed = next((environment[name] for name in NO_PROXY_VARIABLES if environment.get(name)), "")
    address = _address(host)
    for entry in filter(None, (each.strip().lower() for each in listed.split(","))):
        if host.endswith(entry):
            return True
        try:
            if address is not None and address in ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False
