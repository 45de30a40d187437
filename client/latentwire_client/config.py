# SPDX-License-Identifier: Apache-2.0
"""How a client behaves (timeouts, retries, limits), and the options that its encoding methods take."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from latentwire_core.kinds import LatentKind


@dataclass(frozen=True)
class Timeout:
    """How long a client waits for answers.

    Attributes:
        call_s: seconds for the answer to one call, its `Retry.attempts` included; None: no limit.
        stream_item_s: seconds for the answer to one item of a stream, from when the server read the item; None: no
            limit.

    Raises:
        ValueError: a time is not positive and finite.
    """

    call_s: float | None = 120.0
    stream_item_s: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("call_s", self.call_s), ("stream_item_s", self.stream_item_s)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it must be positive and finite, or None to wait for ever")

    @property
    def stream_item_ns(self) -> int:
        """`stream_item_s` in nanoseconds, as it travels; 0: no limit."""
        return math.ceil((self.stream_item_s or 0.0) * 1e9)


@dataclass(frozen=True)
class Retry:
    """How a client tries again when the server cannot be reached, is not serving or stops during a call.

    The pause before a try is random: at most `initial_backoff_s` at first, and twice as long with each failure, up to
    `max_backoff_s`.

        Client(retry=Retry(full_queue_s=120, calls_reconnect=True))  # for long jobs: wait rather than fail

    Attributes:
        attempts: tries in a row, 1 (no retry) to 5.
        initial_backoff_s: the longest first pause, seconds, at least 0.01.
        max_backoff_s: the longest pause, seconds.
        reconnect_s: how long a stream tries again while the server is gone, seconds, such as during a restart; only
            once the stream has had an answer.
        full_queue_s: how long a call is tried again while the server's queue is full, seconds; 0: not at all.
        calls_reconnect: whether single calls, too, are tried again for `reconnect_s` once the client has had an answer.

    Raises:
        ValueError: a number is out of its range.
    """

    attempts: int = 4
    initial_backoff_s: float = 0.2
    max_backoff_s: float = 2.0
    reconnect_s: float = 60.0
    full_queue_s: float = 0.0
    calls_reconnect: bool = False

    def __post_init__(self) -> None:
        # A server that has answered is waited for by time; for one that never did, more attempts only delay the news.
        if not 1 <= self.attempts <= 5:
            raise ValueError(f"attempts is {self.attempts}; it must be in 1..5")
        # A shorter pause would be a busy loop.
        if not 0.01 <= self.initial_backoff_s <= self.max_backoff_s < math.inf:
            raise ValueError(
                f"backoff is {self.initial_backoff_s} to {self.max_backoff_s} s; both must be finite and at least "
                "0.01, in this order"
            )
        for name, value in (("reconnect_s", self.reconnect_s), ("full_queue_s", self.full_queue_s)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}; it must be finite and at least 0")

    def backoff_s(self, failures: int) -> float:
        """Return the longest pause after this many failures in a row, 1 or more."""
        return min(self.max_backoff_s, self.initial_backoff_s * 2.0 ** (failures - 1))


@dataclass(frozen=True)
class Limits:
    """The sizes that a client keeps to.

    Attributes:
        max_message_bytes: bytes of one message, sent or received; the server has a limit of its own
            (`client.info().limits`).
        in_flight: items of a stream that are sent and not yet answered.

    Raises:
        ValueError: a number is out of its range.
    """

    max_message_bytes: int = 64 * 2**20
    in_flight: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.max_message_bytes < 2**31:
            raise ValueError(f"max_message_bytes is {self.max_message_bytes}; it must be in 1..2^31-1")
        if not self.in_flight >= 1:
            raise ValueError(f"in_flight is {self.in_flight}; it must be at least 1")


class EncodeOptions(TypedDict, total=False):
    """The keyword arguments of `encode` and `encode_stream`; all are optional.

    kind: `mode` (the default), `sample` or `moments` (mean and log-variance).
    scaled: whether the latents are scaled, as a diffusion model takes them; default: raw.
    dtype: `float16` (the default), `float32`, or `bfloat16`, which travels as such and arrives as float32.
    seeds: for samples, 0..2^64-1, one for each image of an array, of a list, or of a stream in its order.
    size: (height, width) to scale and crop an image file to; default: the size of the file.
    model: a served name; default: the client's, else the server's.
    """

    kind: LatentKind | str
    scaled: bool
    dtype: str
    seeds: Sequence[int]
    size: tuple[int, int] | None
    model: str


class CompressOptions(TypedDict, total=False):
    """The keyword arguments of `compress` and `compress_stream`; all are optional.

    quality: `cache` (the default), `high`, `medium`, `low`, `lossless` (float16 latents, bit for bit), or the
        quantizer's step in units, above 0: a smaller step is finer.
    refinement: iterations of gradient descent that fit the latents to the image; default 0; at most
        `client.info().limits.max_refinement`. The decoded image comes closer to the original in the same number of
        bytes. One iteration takes about as long as encoding and decoding the image twice: a call may need a longer
        `Timeout.call_s`.
    size: (height, width) to scale and crop an image file to; default: the size of the file.
    model: a served name; default: the client's, else `f8c32` where it is served, else the server's.
    """

    quality: str | float
    refinement: int
    size: tuple[int, int] | None
    model: str
