# SPDX-License-Identifier: Apache-2.0
"""A client's arguments -> one checked value, shared by the clients, their streams and their outboxes."""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import grpc

from latentwire_client.config import Limits, Retry, Timeout
from latentwire_client.info import Execution, OnExecution
from latentwire_proto.v1 import latent_codec_pb2 as pb

DEFAULT_TARGET = "localhost:50051"
SERVER_VARIABLE = "LATENTWIRE_SERVER"
TOKEN_VARIABLE = "LATENTWIRE_TOKEN"
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
        target: HOST:PORT, or any target that gRPC knows (`dns:///svc:50051`, `unix:/run/latentwire.sock`).
        token: sent with every call; None: no token.
        tls: False: plain text; True: TLS with the system's root certificates; a path: TLS with the root certificates of
            that PEM file.

    Raises:
        ValueError: the token cannot be sent, or the target is an URL.
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
        options = [*sizes, *CHANNEL_OPTIONS]
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
