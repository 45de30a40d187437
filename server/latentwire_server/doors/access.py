# SPDX-License-Identifier: Apache-2.0
"""What a caller says of itself, in any protocol -> a checked token and the id of its request."""

import hmac
import re
import uuid

from latentwire_server.errors import Unauthenticated

REQUEST_ID = "x-request-id"
# What is kept of a request id that a client chose: nothing that could forge a line of the log.
SAFE_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)


def choose_request_id(chosen: str) -> str:
    """Map the id that a caller chose, or none, to the request's: the same where it is safe to log, else a new one."""
    return chosen if SAFE_ID.fullmatch(chosen) else uuid.uuid4().hex


def check_token(token: str | None, authorization: str) -> None:
    """Check what a caller sent as `authorization` against the server's token; None lets everyone in.

    Raises:
        Unauthenticated: it is not `Bearer TOKEN`.
    """
    if token is None:
        return
    if not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
        raise Unauthenticated(
            "the token is missing or wrong; send `authorization: Bearer TOKEN` "
            "(Client(token=...), --token or $LATENTWIRE_TOKEN)"
        )
