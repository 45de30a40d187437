# SPDX-License-Identifier: Apache-2.0
"""The metrics of a server -> a page for Prometheus, which can send the token (`authorization` in its scrape_config)."""

from prometheus_client import CollectorRegistry, make_asgi_app
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from latentwire_server.doors.access import check_token
from latentwire_server.errors import Unauthenticated


def metrics_page(registry: CollectorRegistry, token: str | None) -> ASGIApp:
    """Return the page at every path as an ASGI application; with a token, clients must send it."""
    page: ASGIApp = make_asgi_app(registry)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            check_token(token, Headers(scope=scope).get("authorization", ""))
        except Unauthenticated as error:
            await PlainTextResponse(f"{error}\n", 401, {"www-authenticate": "Bearer"})(scope, receive, send)
        else:
            await page(scope, receive, send)

    return answer
