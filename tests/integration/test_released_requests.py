# SPDX-License-Identifier: Apache-2.0
"""A request that has ended, well or not, keeps no memory and leaves no object to the garbage collector."""

import http.client
import io
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from PIL import Image
from torch import Tensor

from latentwire_client import Client, DeadlineExceeded, Latents, LatentwireError, Retry, Timeout, UnknownModel
from latentwire_server.app import Server, background
from latentwire_server.config import ModelSource, ServerConfig
from tests.conftest import left_to_the_collector
from tests.waiting import until

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
LARGEST_BODY = 1 << 20


@pytest.fixture(scope="module")
def small(tiny_kl: Path) -> Iterator[Server]:
    """A server whose messages are small."""
    models = (ModelSource("tiny", str(tiny_kl)),)
    config = ServerConfig(models=models, port=0, http_port=0, max_message_mib=LARGEST_BODY >> 20)
    with background(config) as server:
        yield server


def client_of(server: Server, seconds: float = 120.0) -> Client:
    return Client(f"127.0.0.1:{server.port}", retry=Retry(attempts=1), timeout=Timeout(call_s=seconds))


def answered(server: Server) -> None:
    with client_of(server) as client:
        client.encode(IMAGE)


def refused(server: Server) -> None:
    with client_of(server) as client, pytest.raises(UnknownModel):
        client.encode(IMAGE, model="none of this name")


def broken(server: Server) -> None:
    with client_of(server) as client, pytest.raises(LatentwireError):
        client.encode(png()[:-100])


def given_up(server: Server) -> None:
    with client_of(server, 0.5) as client, pytest.raises(DeadlineExceeded):
        client.compress(IMAGE, quality="high", refinement=100)


def streamed(server: Server) -> None:
    with client_of(server) as client, closing(client.encode_stream([IMAGE] * 3)) as items:
        assert all(item.error is None for item in items)


def streamed_with_failures(server: Server) -> None:
    not_finite = Latents(np.full((1, 4, 8, 8), np.nan, np.float32))
    with client_of(server) as client, closing(client.decode_stream([not_finite] * 3)) as items:
        assert all(item.error is not None for item in items)


def unreadable(server: Server) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        for method in ("Encode", "EncodeStream"):
            call: Any = channel.stream_unary(f"/latentwire.v1.LatentCodecService/{method}")
            with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
                call(iter([b"\xff no protobuf"]))


def over_http(server: Server) -> None:
    assert posted(server, png()) == 200


def broken_over_http(server: Server) -> None:
    assert posted(server, png()[:-100]) == 400


def too_large_over_http(server: Server) -> None:
    half = bytes(LARGEST_BODY // 2 + 1)
    assert posted(server, iter([half, half])) == 413


def posted(server: Server, body: bytes | Iterator[bytes]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port)
    with closing(connection):
        connection.request("POST", "/encode", body)
        return connection.getresponse().status


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(IMAGE).save(buffer, "PNG")
    return buffer.getvalue()


def left_behind(server: Server, use: Callable[[Server], None], *, times: int) -> list[str]:
    """Return the objects that the server leaves to the collector: frames, messages, images."""
    with left_to_the_collector() as left:
        for _ in range(times):
            use(server)
        wait_until_idle(server)
    return [
        each.f_code.co_qualname if isinstance(each, FrameType) else type(each).__name__
        for each in left
        if (isinstance(each, FrameType) and "latentwire_server" in each.f_code.co_filename)
        or isinstance(each, Message | Tensor)
    ]


def wait_until_idle(server: Server) -> None:
    residency = server._engine.models["tiny"].residency
    assert residency is not None
    until(lambda: not (server._engine.places.held or residency.holders))
    answered(server)  # when this is answered, the event loop has taken its next turn


@pytest.mark.parametrize(
    "use",
    [
        answered, refused, broken, given_up, streamed, streamed_with_failures, unreadable, over_http,
        broken_over_http, too_large_over_http,
    ],
)  # fmt: skip
def test_nothing_of_a_request_waits_for_the_garbage_collector(small: Server, use: Callable[[Server], None]) -> None:
    left_behind(small, use, times=1)  # objects that are made once
    assert left_behind(small, use, times=3) == []
