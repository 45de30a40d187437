# SPDX-License-Identifier: Apache-2.0
"""The HTTP door for diffusers' remote VAE functions: requests -> responses, and errors as JSON.

    POST /  /predict  /MODEL                latents of Content-Type tensor/binary are decoded, all else is encoded
    POST /decode  /encode  /MODEL/decode  /MODEL/encode
    GET  /          the models and their limits
    GET  /health    200 while requests are let in, else 503

Without MODEL the first model answers. Only configured names are paths. No path is redirected: a client would repeat a
redirected POST as a GET.
"""

import asyncio
import base64
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial

import grpc
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_proto import __version__
from latentwire_server.config import ServerConfig
from latentwire_server.doors.access import REQUEST_ID, check_token, choose_request_id
from latentwire_server.doors.corridor import Corridor
from latentwire_server.doors.http import hf_dialect
from latentwire_server.doors.http.connection import while_connected
from latentwire_server.doors.http.query import Query
from latentwire_server.engine.engine import Engine
from latentwire_server.engine.jobs import Caller, DecodeResult, EncodeJob, EncodeResult
from latentwire_server.engine.work import Passage
from latentwire_server.errors import (
    HTTP_STATUSES,
    NotServing,
    QueueFull,
    RequestTooLarge,
    ServerError,
    SlowSender,
    Unauthenticated,
    forget_frames,
    http_status,
    status_code,
    to_status,
)
from latentwire_server.process.lifecycle import Lifecycle
from latentwire_server.telemetry.metrics import Metrics, request_id

log = logging.getLogger("latentwire")

SPEC_FIELDS = ("latent_space", "weights_digest", "latent_channels", "downsample_factor", "scale", "shift")


class RemoteVaeGateway:
    """Answers the clients of one server.

    Args:
        engine: does the work.
        config: the models' names, the token and the limits.
        lifecycle: decides which requests are let in.
        metrics: counts how each request ended, as method `http/decode`, `http/encode`, `http/info` or `http/unknown`.
    """

    def __init__(self, engine: Engine, config: ServerConfig, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self._engine = engine
        self._config = config
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._corridor = Corridor(engine, metrics)

    def application(self) -> Starlette:
        """Return the routes as an ASGI application.

        Raises:
            ServerError: the path of a model is that of another model, or has another meaning here.
        """
        paths = [("/predict", ("", "")), ("/decode", ("", "decode")), ("/encode", ("", "encode"))]
        for model in self._config.models:
            paths += [(f"/{model.name}", (model.name, ""))]
            paths += [(f"/{model.name}/{each}", (model.name, each)) for each in ("decode", "encode")]
        routes = [Route("/health", self._health), Route("/", self._root, methods=["GET", "POST"])]
        routes += [Route(path, partial(self._post, *named), methods=["POST"]) for path, named in paths]
        path, times = Counter(route.path for route in routes).most_common(1)[0]
        if times > 1:
            raise ServerError(
                f"the HTTP path {path} would stand for two things; give the model another name (--model NAME=SOURCE), "
                "or leave --http-port out"
            )
        application = Starlette(routes=routes, exception_handlers={HTTPException: self._no_route})
        application.router.redirect_slashes = False
        return application

    async def _root(self, request: Request) -> Response:
        if request.method == "POST":
            return await self._post("", "", request)
        return await self._answer("info", request, self._info)

    async def _post(self, model: str, operation: str, request: Request) -> Response:
        operation = operation or hf_dialect.to_operation(request.headers.get("content-type", ""))
        work = self._decode if operation == "decode" else self._encode
        return await self._answer(operation, request, partial(work, model))

    async def _info(self, request: Request) -> Response:
        with self._lifecycle.request():
            specs = {name: model.spec for name, model in self._engine.models.items()}
        return JSONResponse(
            {
                "server": f"latentwire {__version__}",
                "max_body_bytes": self._config.max_message_bytes,
                "models": [
                    {"name": name} | {field: getattr(spec, field) for field in SPEC_FIELDS}
                    for name, spec in specs.items()
                ],
            }
        )

    async def _health(self, request: Request) -> Response:
        # Probes ask every few seconds: they need no token, and leave no line in the log.
        identity = _identify(request)
        try:
            with self._lifecycle.request():
                response = JSONResponse({"status": "ok"})
        except NotServing as error:
            response = _to_response(error)
        response.headers[REQUEST_ID] = identity
        return response

    async def _decode(self, model: str, request: Request) -> Response:
        query, body = _query(request), await self._body(request)
        accept, content_type = (request.headers.get(name, "") for name in ("accept", "content-type"))

        def images() -> int:
            hf_dialect.check_content_type(content_type)
            return hf_dialect.count_images(query, body, self._spec(model))

        def to_answer(result: DecodeResult) -> Response:
            return _respond(hf_dialect.from_decode_result(result, hf_dialect.to_reply(query, accept)))

        passage = Passage(
            model=model,
            images=images,
            to_job=lambda loaded: hf_dialect.to_decode_job(query, accept, body, loaded.spec),
            to_answer=to_answer,
            fields=hf_dialect.FIELDS,
        )
        with self._lifecycle.request():
            return await while_connected(request, self._corridor.decode(passage, _caller(request)))

    async def _encode(self, model: str, request: Request) -> Response:
        query, body = _query(request), await self._body(request)
        passage: Passage[EncodeJob, EncodeResult, Response] = Passage(
            model=model,
            images=lambda: hf_dialect.count_images(query, body, self._spec(model)),
            to_job=lambda loaded: hf_dialect.to_encode_job(query, body),
            to_answer=lambda result: _respond(hf_dialect.from_encode_result(result)),
            fields=hf_dialect.FIELDS,
        )
        with self._lifecycle.request():
            return await while_connected(request, self._corridor.encode(passage, _caller(request)))

    def _spec(self, model: str) -> AutoencoderSpec:
        return self._engine.models[self._engine.model_name(model)].spec

    async def _body(self, request: Request) -> bytearray:
        """Read the body; refuse one that is larger than a message before it is in memory, and any while draining."""
        return await self._lifecycle.unless_draining(self._read(request))

    async def _read(self, request: Request) -> bytearray:
        limit = self._config.max_message_bytes
        announced = request.headers.get("content-length", "")
        too_large = f"the body has {announced or 'more'} bytes; {limit} are accepted (serve --max-message-mib)"
        if int(announced or 0) > limit:
            raise RequestTooLarge(too_large)
        body, timeout_s = bytearray(), self._config.receive_timeout_s
        try:
            async with asyncio.timeout(timeout_s), aclosing(request.stream()) as stream:
                async for chunk in stream:
                    body += chunk
                    if len(body) > limit:
                        raise RequestTooLarge(too_large)
        except TimeoutError as error:
            raise SlowSender(
                f"{len(body)} bytes of the body were there after {timeout_s:g} s (serve --receive-timeout-s); send it "
                "faster, or a smaller one"
            ) from error
        return body

    async def _answer(self, method: str, request: Request, work: Callable[[Request], Awaitable[Response]]) -> Response:
        """Give the request its id, check its token, map its errors, and tell the metrics and the log."""
        identity = _identify(request)
        started = time.monotonic()
        code = grpc.StatusCode.CANCELLED  # until another end is known
        try:
            check_token(self._config.token, _authorization(request))
            response = await work(request)
            code = grpc.StatusCode.OK
        except ClientDisconnect:
            response = Response(status_code=HTTP_STATUSES[code])  # nobody reads it
        except Exception as error:
            code = status_code(error)
            response = _to_response(error)
            forget_frames(error)
        finally:
            self._ended(method, code, request, started)
        response.headers[REQUEST_ID] = identity
        return response

    async def _no_route(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # the handler is registered for these
        identity, started = _identify(request), time.monotonic()
        code = next(code for code, status in HTTP_STATUSES.items() if status == error.status_code)
        text = (
            f"there is no {request.method} {request.scope['path'][:100]}; POST to /decode, /encode, /MODEL/decode or "
            "/MODEL/encode, where MODEL is one of those that GET / lists"
        )
        content = {"error": text, "code": code.name, "request_id": identity}
        response = JSONResponse(content, error.status_code, error.headers)
        response.headers[REQUEST_ID] = identity
        self._ended("unknown", code, request, started)
        return response

    def _ended(self, method: str, code: grpc.StatusCode, request: Request, started: float) -> None:
        self._metrics.ended(f"http/{method}", code.name)
        milliseconds = (time.monotonic() - started) * 1000
        log.info("http/%s %s in %.1f ms from %s", method, code.name, milliseconds, _peer(request))


def _identify(request: Request) -> str:
    """Choose the request's id, for its answer and for the log."""
    identity = choose_request_id(request.headers.get(REQUEST_ID, ""))
    request_id.set(identity)
    return identity


def _query(request: Request) -> Query:
    # Not from request.url, which contains the client's header `Host`.
    return Query(request.scope["query_string"].decode("latin-1"))


def _caller(request: Request) -> Caller:
    # Clients of this dialect connect anew for each call: the address is all that their calls have in common.
    return Caller(client=f"http:{request.client.host if request.client else ''}")


def _peer(request: Request) -> str:
    return f"{request.client.host}:{request.client.port}" if request.client else "unknown"


def _authorization(request: Request) -> str:
    """Return the header `authorization`, with the password of Basic authentication as a bearer token.

    diffusers' functions take a token only as the password of a URL: `http://any:TOKEN@host:port/`.
    """
    sent = request.headers.get("authorization", "")
    scheme, _, credentials = sent.partition(" ")
    if scheme.lower() != "basic":
        return sent
    try:
        password = base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:  # not Base64, or not of a text
        return sent
    return f"Bearer {password}"


def _respond(answer: hf_dialect.Answer) -> Response:
    return Response(answer.body, headers=answer.headers, media_type=answer.media_type)


def _to_response(error: Exception) -> JSONResponse:
    """Map an exception to the response with its status, under the id of the current request."""
    status = to_status(error, request_id.get())
    headers = {}
    if isinstance(error, QueueFull):
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    content = {"error": status.message, "code": status_code(error).name, "request_id": request_id.get()}
    return JSONResponse(content, http_status(error), headers)
