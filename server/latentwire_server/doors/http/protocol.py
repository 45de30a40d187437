# SPDX-License-Identifier: Apache-2.0
"""Bytes of an HTTP/1.1 connection -> requests for uvicorn, within limits of time.

uvicorn waits without end for the rest of a header, and for a client that takes its answer slowly.
"""

import asyncio
import logging
from contextlib import suppress

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from latentwire_server.telemetry.seldom import Seldom

# From the first byte of a request, or from the connection where there is none, to the end of the headers.
HEADERS_S = 10.0
# After the last byte of an answer is written, how long the client may take to read the answer.
ANSWER_S = 120.0

refusals = Seldom(logging.getLogger("latentwire"), "HTTP connections were closed")


class LimitedProtocol(H11Protocol):
    """One connection; it is closed without an answer where its client is too slow.

    Attributes:
        since: when it was made, in the time of the event loop.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        # uvicorn warns of each malformed request; its errors, which are bugs, are shown.
        self.logger = logging.getLogger("latentwire.http")
        self.logger.setLevel(logging.ERROR)
        self.since = self.loop.time()
        self._headers_limit: asyncio.TimerHandle | None = None

    @property
    def is_asking(self) -> bool:
        """Whether a request with whole headers is being received or answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect headers."""
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Take bytes in; the time for headers ends with their last byte and begins with the next request's first."""
        super().data_received(data)
        if self.is_asking:
            self._forget_headers()
        elif self._headers_limit is None and not self.transport.is_closing():
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget_headers()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request, once: an application that is at work for it has lost its client."""
        refusals.note("a request was malformed")
        if self.is_asking:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            with suppress(h11.LocalProtocolError):  # the answer to HEAD has no text
                super().send_400_response(msg)
        self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection without a further request; an answer that nobody reads is given up later."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(ANSWER_S, self.transport.abort)

    def refuse(self, reason: str) -> None:
        """Close the connection without an answer, and note why."""
        refusals.note(reason)
        self.transport.abort()

    def _expect_headers(self) -> None:
        reason = f"the headers of a request were not there after {HEADERS_S:g} s"
        self._headers_limit = self.loop.call_later(HEADERS_S, self.refuse, reason)

    def _forget_headers(self) -> None:
        if self._headers_limit is not None:
            self._headers_limit.cancel()
            self._headers_limit = None
