# SPDX-License-Identifier: Apache-2.0
"""How a client behaves: timeouts, retries, limits; small values, checked when they are built."""

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Timeout:
    """How long a client waits.

    Attributes:
        call_s: for the answer to one call, retries included; None: for ever.
        stream_item_s: for the answer to one item of a stream, from when the server read it; None: for ever.
    """

    call_s: float | None = 120.0
    stream_item_s: float | None = None

    def __post_init__(self) -> None:
        """Check that the times are positive."""
        for name, value in (("call_s", self.call_s), ("stream_item_s", self.stream_item_s)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it must be positive and finite, or None to wait for ever")

    @property
    def stream_item_ns(self) -> int:
        """The time for a stream's item in nanoseconds, as it travels; 0: for ever."""
        return math.ceil((self.stream_item_s or 0.0) * 1e9)


@dataclass(frozen=True)
class Retry:
    """How a client tries again when the server cannot be reached, is not serving or stops during a call.

    The waits are random, up to initial_backoff_s, and grow by the factor 2 up to max_backoff_s.

    Attributes:
        attempts: 1 (no retry) to 5 (gRPC's own limit), the first one included.
        initial_backoff_s: the longest first wait, at least 0.01.
        max_backoff_s: the longest wait.
        reconnect_s: how long a stream that has had an answer goes on trying when the server is gone: long enough for a
            restart.
    """

    attempts: int = 4
    initial_backoff_s: float = 0.2
    max_backoff_s: float = 2.0
    reconnect_s: float = 60.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.attempts <= 5:
            raise ValueError(f"attempts is {self.attempts}; it must be in 1..5")
        # gRPC counts whole milliseconds; where a wait rounds down to none its call can hang, deadline or not.
        if not 0.01 <= self.initial_backoff_s <= self.max_backoff_s < math.inf:
            raise ValueError(
                f"backoff is {self.initial_backoff_s} to {self.max_backoff_s} s; both must be finite and at least "
                "0.01, in this order"
            )
        if not 0 <= self.reconnect_s < math.inf:
            raise ValueError(f"reconnect_s is {self.reconnect_s}; it must be finite and at least 0")

    def backoff_s(self, failures: int) -> float:
        """Return the longest wait after this many failures in a row, 1 or more."""
        return min(self.max_backoff_s, self.initial_backoff_s * 2.0 ** (failures - 1))


@dataclass(frozen=True)
class Limits:
    """What a client keeps to.

    Attributes:
        max_message_bytes: of one message, either way; the server has its own (`client.info().limits`).
        in_flight: items of a stream that are sent and not yet answered.
    """

    max_message_bytes: int = 64 * 2**20
    in_flight: int = 8

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.max_message_bytes < 2**31:
            raise ValueError(f"max_message_bytes is {self.max_message_bytes}; it must be in 1..2^31-1")
        if not self.in_flight >= 1:
            raise ValueError(f"in_flight is {self.in_flight}; it must be at least 1")


def check_settings(timeout: Timeout, retry: Retry, limits: Limits) -> None:
    """Check what a client is given, which it uses only later.

    Raises:
        TypeError: one is something else, such as a number of seconds.
    """
    for name, value, kind in (("timeout", timeout, Timeout), ("retry", retry, Retry), ("limits", limits, Limits)):
        if not isinstance(value, kind):
            field = fields(kind)[0].name
            raise TypeError(f"{name} is {value!r}; it must be a {kind.__name__}, such as {kind.__name__}({field}=...)")
