# SPDX-License-Identifier: Apache-2.0
"""The headers of a request, in any protocol -> a checked token and the request's id."""

import hmac
import re
import uuid

from latentwire_server.errors import Unauthenticated

REQUEST_ID = "x-request-id"
# A request id that a client chose is kept if it matches: it cannot forge a line of the log.
SAFE_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)


def choose_request_id(chosen: str) -> str:
    """Map the id that a caller chose, or an empty one, to the request's id: a new one where it is not safe to log."""
    return chosen if SAFE_ID.fullmatch(chosen) else uuid.uuid4().hex


def check_token(token: str | None, authorization: str) -> None:
    """Check the header `authorization` against the server's token; None lets everyone in.

    Raises:
        Unauthenticated: the header is not `Bearer TOKEN`.
    """
    if token is None:
        return
    if not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
        raise Unauthenticated(
            "the token is missing or wrong; send `authorization: Bearer TOKEN` "
            "(Client(token=...), --token or $LATENTWIRE_TOKEN)"
        )
