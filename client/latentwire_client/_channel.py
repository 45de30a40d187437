# SPDX-License-Identifier: Apache-2.0
"""Address and configuration -> the options of a gRPC channel; shared by the sync and the asyncio client."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from latentwire_client.config import Limits, Retry

DEFAULT_TARGET = "localhost:50051"
SERVER_VARIABLE = "LATENTWIRE_SERVER"
TOKEN_VARIABLE = "LATENTWIRE_TOKEN"
SERVICE = "latentwire.v1.LatentCodecService"
UNARY_METHODS = ("GetServerInfo", "Encode", "Decode")


@dataclass(frozen=True)
class Address:
    """Where the server is and how to be let in.

    Attributes:
        target: HOST:PORT, or any target that gRPC knows (`dns:///svc:50051`, `unix:/run/latentwire.sock`).
        token: sent with every call; None: none.
        tls: False: plain text; True: TLS with the system's root certificates; a path: with those of that PEM file.
    """

    target: str
    token: str | None
    tls: bool | str | os.PathLike[str]

    def __post_init__(self) -> None:
        """Check what gRPC would answer with no more than "invalid metadata" or "misformatted domain name".

        Raises:
            ValueError: the token cannot travel, or the target is an URL.
        """
        if self.target.startswith(("http://", "https://")):
            without = self.target.partition("://")[2].rstrip("/")
            secure = ", and tls=True or --tls" if self.target.startswith("https") else ""
            raise ValueError(f"the server is {self.target!r}; gRPC takes HOST:PORT: give {without!r}{secure}")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise ValueError("the token has a character other than printable ASCII; is there a line break at its end?")

    @classmethod
    def choose(cls, target: str | None, token: str | None, tls: bool | str | os.PathLike[str]) -> "Address":
        """Fill in what is not given: `$LATENTWIRE_SERVER` or localhost:50051, and `$LATENTWIRE_TOKEN`.

        Raises:
            ValueError: the token cannot be sent, or the target is an URL.
        """
        return cls(
            target=target or os.environ.get(SERVER_VARIABLE) or DEFAULT_TARGET,
            token=token or os.environ.get(TOKEN_VARIABLE) or None,
            tls=tls,
        )

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

    def open(self, api: Any, limits: Limits, retry: Retry) -> Any:
        """Make a channel of `api`: the module `grpc` or `grpc.aio`.

        Raises:
            OSError: the PEM file of `tls` cannot be read.
            ValueError: it holds no certificate.
        """
        options = list(_options(limits, retry))
        if self.tls is False:
            return api.insecure_channel(self.target, options=options)
        roots = None if self.tls is True else Path(self.tls).read_bytes()
        if roots is not None and b"-----BEGIN CERTIFICATE-----" not in roots:
            raise ValueError(f"{self.tls} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
        return api.secure_channel(self.target, grpc.ssl_channel_credentials(roots), options=options)


def _options(limits: Limits, retry: Retry) -> Iterator[tuple[str, Any]]:
    yield "grpc.max_send_message_length", limits.max_message_bytes
    yield "grpc.max_receive_message_length", limits.max_message_bytes
    # Retries need the request kept; the default of 256 KiB would silently switch them off for images.
    yield "grpc.per_rpc_retry_buffer_size", limits.max_message_bytes
    # A server that vanished without a word is noticed within a minute, also by a waiting stream.
    yield "grpc.keepalive_time_ms", 30_000
    yield "grpc.keepalive_timeout_ms", 20_000
    yield "grpc.enable_retries", int(retry.attempts > 1)
    if retry.attempts > 1:
        policy = {
            "maxAttempts": retry.attempts,
            "initialBackoff": f"{retry.initial_backoff_s:.9f}s",
            "maxBackoff": f"{retry.max_backoff_s:.9f}s",
            "backoffMultiplier": 2,
            # CANCELLED is what gRPC's server tells calls that meet its last moment.
            "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
        }
        names = [{"service": SERVICE, "method": method} for method in UNARY_METHODS]
        yield "grpc.service_config", json.dumps({"methodConfig": [{"name": names, "retryPolicy": policy}]})
