# SPDX-License-Identifier: Apache-2.0
"""HTTP requests that are late, ambiguous or absurd: each ends by itself, and none is a fault of the server."""

import logging
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from latentwire_server.app import Server, background
from latentwire_server.config import ModelSource, ServerConfig
from latentwire_server.doors.http import protocol

NINES = "9" * 20


@pytest.fixture(scope="module")
def door(tiny_kl: Path) -> Iterator[Server]:
    config = ServerConfig(
        models=(ModelSource("tiny", str(tiny_kl)),), port=0, http_port=0, max_connections=3, receive_timeout_s=1
    )
    with background(config) as server:
        yield server


def connect(door: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", door.http_port))


def rest(connection: socket.socket) -> bytes:
    """Return what comes until the server closes the connection."""
    pieces = []
    try:
        while piece := connection.recv(65_536):
            pieces.append(piece)
    except ConnectionError:
        pass
    return b"".join(pieces)


@pytest.mark.parametrize("begin", [b"", b"P", b"POST / HTTP/1.1\r\nHost: x\r\n"])
def test_headers_that_do_not_come_end_the_connection(
    door: Server, begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEADERS_S", 0.2)
    with connect(door) as connection:
        connection.sendall(begin)
        assert rest(connection) == b""


def test_headers_that_come_a_byte_at_a_time_have_no_more_time(door: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEADERS_S", 0.2)
    with connect(door) as connection, pytest.raises(ConnectionError):  # noqa: PT012
        while True:
            connection.sendall(b"x")


def test_a_second_request_on_a_connection_has_its_own_time_for_headers(
    door: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEADERS_S", 0.2)
    with connect(door) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in connection.recv(65_536)
        connection.sendall(b"GET /health HTTP/1.1\r\nHo")
        assert b"HTTP/1.1" not in rest(connection)


@pytest.mark.parametrize("framing", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_body_that_does_not_come_is_a_timeout_of_the_request(door: Server, framing: bytes) -> None:
    with connect(door) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + framing + b"\r\n1\r\n")
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"--receive-timeout-s" in answer


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: -3\r\n",
        b"Content-Length: 0x3\r\n",
        b"Content-Length: " + b"9" * 5000 + b"\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: chunked\r\nX-Fold: a\r\n b\r\n : c\r\n",
    ],
)
def test_a_length_that_can_be_read_in_two_ways_is_refused(
    door: Server, headers: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(door) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n3\r\nabc\r\n0\r\n\r\n")
        answer = rest(connection)
    assert answer.partition(b" ")[2][:3] in (b"400", b"413", b"501")
    assert b"HTTP/1.1" not in answer[8:]  # what follows is no second request
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []


@pytest.mark.parametrize("size", [b"g", b"-3", b"0x3", b" 3", b"f" * 30, b"9" * 5000])
def test_a_chunk_whose_size_is_no_number_ends_the_connection(
    door: Server, size: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(door) as connection:
        connection.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nabc\r\n0\r\n\r\n"
        )
        answer = rest(connection)
    assert answer.partition(b" ")[2][:3] in (b"400", b"408", b"413")
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []


@pytest.mark.parametrize(
    "target", [b"POST /", b"POST /encode", b"GET /health", b"HEAD /health", b"OPTIONS /health", b"PUT /nothing"]
)
def test_a_malformed_body_is_answered_once(door: Server, target: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with connect(door) as connection:
        connection.sendall(target + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"3\r\nabcXX\r\n")
        answer = rest(connection)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []


def test_at_the_limit_of_connections_the_oldest_half_request_makes_room(door: Server) -> None:
    half = [connect(door) for _ in range(3)]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{door.http_port}/health") as answer:
            assert answer.status == 200
        assert rest(half[0]) == b""
    finally:
        for each in half:
            each.close()


ABSURD = [NINES, "9" * 5000, "0" * 30, "-1", "1e400", "1_0", "\u0661", "", " 1", "nan", "9" * 18, "1e300", "1e-300"]
BODY = np.ones((1, 4, 2, 2), np.float32).tobytes()


@pytest.mark.parametrize("operation", ["decode", "encode"])
@pytest.mark.parametrize("name", ["shape", "height", "width", "seed", "scaling_factor", "shift_factor"])
@pytest.mark.parametrize("times", [1, 4, 250])
def test_an_absurd_number_in_a_query_is_the_client_s_fault(door: Server, operation: str, name: str, times: int) -> None:
    for value in ABSURD:
        query = [("dtype", "float32"), *[(name, value)] * times]
        query += [("shape", str(side)) for side in (1, 4, 2, 2)] if name != "shape" else []
        query += [("sample", "true")] if name == "seed" else []
        assert post(door, operation, query) in (200, 400, 413, 431)


def test_a_shape_of_250_long_sides_is_refused(door: Server) -> None:
    assert post(door, "decode", [("dtype", "float32"), *[("shape", NINES)] * 250]) == 400


def post(door: Server, operation: str, query: list[tuple[str, str]]) -> int:
    url = f"http://127.0.0.1:{door.http_port}/{operation}?{urllib.parse.urlencode(query)}"
    if len(url) > 60_000:
        url = url[:60_000]
    try:
        with urllib.request.urlopen(urllib.request.Request(url, BODY)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
