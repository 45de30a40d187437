# SPDX-License-Identifier: Apache-2.0
"""What a stranger without the token can send, over gRPC and HTTP: it costs little, and others are answered.

The full size of each attack is marked as slow.
"""

import socket
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import grpc
import psutil
import pytest

from latentwire_client import Client
from tests.integration.raw_http2 import (
    MAX_CONCURRENT_STREAMS,
    RawConnection,
    message,
    unfinished,
)
from tests.waiting import until

StartServer = Callable[..., AbstractContextManager[tuple["Popen[str]", str]]]
MIB = 2**20
TOKEN = "open sesame"
BEARER = {"authorization": f"Bearer {TOKEN}"}
PROBES = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ModelReady",
]
UNASKED = 64 * 1024
HALF = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Le"
CONNECTIONS = 30


@dataclass
class Attacked:
    """A server with a token, as its operator sees it."""

    process: psutil.Process
    target: str
    http_port: int
    metrics_port: int

    @property
    def memory_mib(self) -> float:
        return float(self.process.memory_info().rss) / MIB

    def answers_another(self) -> bool:
        with Client(self.target, token=TOKEN) as client:
            return bool(client.info().models)


def any_call(channel: grpc.Channel, path: str) -> Any:
    return channel.stream_stream(path)  # the form of every kind of method, on the wire


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def attacked(start_server: StartServer, tiny_kl: Path) -> Iterator[Attacked]:
    http_port, metrics_port = free_port(), free_port()
    flags = ["--http-port", str(http_port), "--metrics-port", str(metrics_port)]
    flags += ["--max-connections", str(CONNECTIONS), "--token", TOKEN]
    with start_server("--model", f"tiny={tiny_kl}", *flags) as (process, target):
        server = Attacked(psutil.Process(process.pid), target, http_port, metrics_port)
        assert server.answers_another()
        yield server


@pytest.mark.parametrize("mib", [100, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("headers", [{}, BEARER], ids=["without a token", "with the token"])
def test_a_compressed_message_is_refused_before_it_is_inflated(
    attacked: Attacked, mib: int, headers: dict[str, str]
) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(mib)) + packer.flush()
    before = attacked.memory_mib
    with RawConnection(attacked.target) as connection:
        call = connection.call(headers={"grpc-encoding": "gzip", **headers})
        connection.send({call: message(bomb, compressed=True)})
        connection.read_until(lambda: call in connection.reset)
    assert attacked.memory_mib - before < mib / 2
    assert attacked.answers_another()


@pytest.mark.parametrize("count", [200, pytest.param(5000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", ["Encode", "EncodeStream"])
def test_more_calls_on_one_connection_than_a_hundred_are_turned_away(
    attacked: Attacked, method: str, count: int
) -> None:
    with RawConnection(attacked.target) as connection:
        connection.read_until(lambda: connection.settings)
        assert connection.settings[MAX_CONCURRENT_STREAMS] == 100
        for number in range(count):
            connection.call(f"/latentwire.v1.LatentCodecService/{method}", BEARER)
            if number % 50 == 0:
                connection.read(0)
        connection.read_until(lambda: len(connection.reset) >= count - 100)
        assert not connection.closed
        assert attacked.answers_another()


def test_a_thousand_calls_that_are_cancelled_at_once_leave_nothing(attacked: Attacked) -> None:
    memory = []
    for _ in range(2):
        with RawConnection(attacked.target) as connection:
            for number in range(1000):
                connection.cancel(connection.call(headers=BEARER))
                if number % 50 == 0:
                    connection.read(0)
            assert attacked.answers_another()
        memory.append(attacked.memory_mib)
    assert memory[1] - memory[0] < 50  # the first round takes what the process keeps


@pytest.mark.parametrize("mib", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_nothing_is_received_for_a_caller_without_the_token(attacked: Attacked, mib: int) -> None:
    before = attacked.memory_mib
    with RawConnection(attacked.target) as connection:
        calls = [connection.call() for _ in range(10)]
        taken = unfinished(connection, calls, mib * MIB)
        assert connection.reset == set(calls)
        assert max(taken.values()) <= 2 * UNASKED
        assert attacked.memory_mib - before < 5 * mib


@pytest.mark.parametrize("mib", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_a_connection_has_four_messages_received_at_once(attacked: Attacked, mib: int) -> None:
    with RawConnection(attacked.target) as connection:
        taken = unfinished(connection, [connection.call(headers=BEARER) for _ in range(10)], mib * MIB)
        assert sum(size > 2 * UNASKED for size in taken.values()) == 4
        assert attacked.answers_another()


@pytest.mark.parametrize("mib", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_a_connection_has_sixteen_streams(attacked: Attacked, mib: int) -> None:
    with RawConnection(attacked.target) as connection:
        path = "/latentwire.v1.LatentCodecService/EncodeStream"
        streams = [connection.call(path, BEARER) for _ in range(20)]
        taken = unfinished(connection, streams, mib * MIB)
        assert connection.reset == set(streams[16:])
        assert all(taken[stream] > 2 * UNASKED for stream in streams[:16])
        assert attacked.answers_another()
    with RawConnection(attacked.target) as connection:  # the others have ended with their connection
        stream = connection.call(path, BEARER)
        assert unfinished(connection, [stream], mib * MIB)[stream] > 2 * UNASKED


@pytest.mark.parametrize("path", PROBES)
def test_four_messages_to_probes_are_received_at_once_and_the_newest_come_first(attacked: Attacked, path: str) -> None:
    with RawConnection(attacked.target) as connection:
        calls = [connection.call(path) for _ in range(10)]
        unfinished(connection, calls, 2 * MIB)
        assert connection.reset == set(calls[:6])
        with RawConnection(attacked.target) as other:
            probe = other.call(PROBES[0])
            other.send({probe: message(b"")})
            other.read_until(lambda: probe in other.answered)
            assert probe in other.answered


@pytest.mark.parametrize("path", PROBES)
def test_bytes_that_are_no_message_to_a_probe_are_an_invalid_argument(attacked: Attacked, path: str) -> None:
    with grpc.insecure_channel(attacked.target) as channel, pytest.raises(grpc.RpcError) as caught:
        list(any_call(channel, path)(iter([b"\xff no protobuf"])))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "13 bytes that were sent are no request" in error.details()


@pytest.mark.parametrize("path", [*PROBES, "/latentwire.v1.LatentCodecService/Encode"])
def test_a_call_that_ends_without_a_message_is_an_invalid_argument(attacked: Attacked, path: str) -> None:
    with grpc.insecure_channel(attacked.target) as channel, pytest.raises(grpc.RpcError) as caught:
        list(any_call(channel, path)(iter([]), metadata=tuple(BEARER.items())))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_that_never_ends_does_not_hold_up_the_end_of_the_server(
    start_server: StartServer, tiny_kl: Path
) -> None:
    with start_server("--model", f"tiny={tiny_kl}") as (process, target), RawConnection(target) as connection:
        unfinished(connection, [connection.call()], MIB)
        process.terminate()
        assert process.wait() == 0  # 1 where a request was given up after --drain-timeout-s


@pytest.mark.parametrize("count", [100, pytest.param(1200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("door", ["http_port", "metrics_port"])
def test_half_requests_take_no_more_connections_than_the_limit_no_threads_and_no_other_s_place(
    attacked: Attacked, door: str, count: int
) -> None:
    port = getattr(attacked, door)
    threads, files = attacked.process.num_threads(), attacked.process.num_fds()
    with ExitStack() as half:
        for _ in range(count):
            half.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(HALF)
        for _ in range(3):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers=BEARER)
            with urllib.request.urlopen(request) as answer:
                assert answer.status == 200
        assert attacked.process.num_threads() == threads
        assert attacked.process.num_fds() <= files + CONNECTIONS + 5
    until(lambda: attacked.process.num_fds() <= files)


def test_the_page_of_metrics_asks_for_the_token(attacked: Attacked) -> None:
    url = f"http://127.0.0.1:{attacked.metrics_port}/metrics"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url)
    with caught.value as refusal:
        assert refusal.code == 401
    with urllib.request.urlopen(urllib.request.Request(url, headers=BEARER)) as page:
        assert b"latentwire_queue_images" in page.read()


def test_a_grpc_port_takes_no_more_connections_than_its_limit(attacked: Attacked) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(RawConnection(attacked.target)) for _ in range(CONNECTIONS + 10)]
        while sum(each.closed for each in connections) < 10:
            for each in connections:
                each.read(0.01)
        assert sum(bool(each.settings) for each in connections) <= CONNECTIONS
