# SPDX-License-Identifier: Apache-2.0
"""How long calls and streams go on trying: the rule by a clock that the test sets, then both clients by it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from latentwire_client import AsyncClient, Cancelled, Client, Overloaded, Retry, Unavailable, _waiting
from latentwire_client._waiting import Waiting
from latentwire_client.testing import FakeServer
from latentwire_proto.v1 import latent_codec_pb2 as pb
from tests.waiting import until

GONE = Unavailable(grpc.StatusCode.UNAVAILABLE, "gone")
IMAGE = np.zeros((8, 8, 3), np.uint8)
QUICK = Retry(attempts=1, initial_backoff_s=0.01, max_backoff_s=0.01)


def full(retry_after_s: float) -> Overloaded:
    error = Overloaded(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    error.retry_after_s = retry_after_s
    return error


class Clock:
    """Stands for the module `time`."""

    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_waiting, "time", clock)
    return clock


def test_without_an_answer_there_are_so_many_attempts(clock: Clock) -> None:
    waiting = Waiting(Retry(3, 0.5, 0.6))
    pauses = [waiting.pause_s(GONE, 0) for _ in range(3)]
    assert pauses[2] is None
    assert pauses[0] is not None
    assert pauses[1] is not None
    assert 0 <= pauses[0] <= 0.5
    assert 0 <= pauses[1] <= 0.6


def test_after_an_answer_a_restart_is_waited_for_however_long_that_answer_is_ago(clock: Clock) -> None:
    waiting = Waiting(Retry(2, reconnect_s=10))
    for answers in (5, 6):
        clock.now_s += 1000
        for _ in range(10):
            assert waiting.pause_s(GONE, answers) is not None
            clock.now_s += 0.99
        clock.now_s += 1
        assert waiting.pause_s(GONE, answers) is None


def test_an_answer_ends_an_outage(clock: Clock) -> None:
    waiting = Waiting(Retry(2, reconnect_s=0))
    for answers in range(1, 5):
        assert waiting.pause_s(GONE, answers) is not None
    assert waiting.pause_s(GONE, 4) is None


def test_the_attempts_share_the_time_of_a_call(clock: Clock) -> None:
    waiting = Waiting(Retry(5, 0.01, 0.01), call_s=2.0)
    assert waiting.left_s == 2.0  # exactly: gRPC rounds others up
    clock.now_s += 1.5
    assert waiting.pause_s(GONE, 0) is not None
    assert waiting.left_s == 0.5
    clock.now_s += 0.5
    assert waiting.left_s == 0.0
    assert waiting.pause_s(GONE, 0) is None
    assert Waiting(Retry()).left_s is None


@pytest.mark.parametrize(("error", "answers"), [(GONE, 1), (full(3.0), 0)], ids=["a restart", "a full queue"])
def test_after_a_wait_the_next_try_has_all_the_time_of_a_call_again(
    error: Unavailable | Overloaded, answers: int, clock: Clock
) -> None:
    waiting = Waiting(Retry(full_queue_s=60), call_s=2.0)
    clock.now_s += 1.9
    pause_s = waiting.pause_s(error, answers)
    assert pause_s is not None
    clock.now_s += pause_s
    assert waiting.left_s == pytest.approx(2.0)


def test_a_full_queue_is_waited_for_as_long_as_the_server_says_and_no_longer_than_the_client_wants(
    clock: Clock,
) -> None:
    waiting = Waiting(Retry(attempts=1, full_queue_s=20))
    for _ in range(3):
        assert waiting.pause_s(full(7.0), 0) == 7.0
        clock.now_s += 7.0
    assert waiting.pause_s(full(7.0), 0) is None
    assert Waiting(Retry()).pause_s(full(0.0), 1) is None


def test_a_server_with_a_full_queue_is_not_gone(clock: Clock) -> None:
    waiting = Waiting(Retry(attempts=2, full_queue_s=20))
    for _ in range(3):
        assert waiting.pause_s(GONE, 0) is not None
        assert waiting.pause_s(full(0.0), 0) is not None
    assert waiting.pause_s(GONE, 0) is not None
    assert waiting.pause_s(GONE, 0) is None


# --- both clients -----------------------------------------------------------------------------------------------------


class Busy(FakeServer):
    """A server whose queue is full for the first calls."""

    refusals = 0

    def Encode(self, request: pb.EncodeRequest, context: Any) -> pb.EncodeResponse:
        if self.refusals > 0:
            self.refusals -= 1
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=10**7)))
            refused = status_pb2.Status(code=8, message="the queue is full", details=[detail])
            context.abort_with_status(rpc_status.to_status(refused))
        return super().Encode(request, context)


async def test_calls_wait_for_a_full_queue_where_the_client_wants_it() -> None:
    with Busy() as server:
        patient = Retry(attempts=1, full_queue_s=60)
        server.refusals = 3
        with Client(server.target, retry=patient) as client:
            client.encode(IMAGE)
        server.refusals = 3
        async with AsyncClient(server.target, retry=patient) as other:
            await other.encode(IMAGE)
        assert server.refusals == 0
        server.refusals = 1
        with Client(server.target) as client, pytest.raises(Overloaded, match="the queue is full"):
            client.encode(IMAGE)


async def test_calls_wait_for_a_server_that_has_answered_where_the_client_wants_it() -> None:
    patient = Retry(1, QUICK.initial_backoff_s, QUICK.max_backoff_s, calls_reconnect=True)
    with FakeServer() as server:
        with Client(server.target, retry=patient) as client:
            client.info()
            server.fail_next(grpc.StatusCode.UNAVAILABLE, times=4)
            client.encode(IMAGE)
            assert server.calls["Encode"] == 5
        async with AsyncClient(server.target, retry=patient) as other:
            await other.info()
            server.fail_next(grpc.StatusCode.UNAVAILABLE, times=4)
            await other.encode(IMAGE)
            assert server.calls["Encode"] == 10


@pytest.mark.parametrize(
    ("retry", "answered"),
    [
        (Retry(1, calls_reconnect=True), False),
        (Retry(1, calls_reconnect=True, reconnect_s=0), True),
        (Retry(1), True),
    ],
    ids=["never answered", "no time to wait", "not asked to wait"],
)
async def test_a_server_that_is_gone_is_not_waited_for_otherwise(retry: Retry, answered: bool) -> None:
    with FakeServer() as server:
        with Client(server.target, retry=retry) as client:
            if answered:
                client.info()
            server.fail_next(grpc.StatusCode.UNAVAILABLE)
            with pytest.raises(Unavailable):
                client.encode(IMAGE)
        async with AsyncClient(server.target, retry=retry) as other:
            if answered:
                await other.info()
            server.fail_next(grpc.StatusCode.UNAVAILABLE)
            with pytest.raises(Unavailable):
                await other.encode(IMAGE)


class Vanishing(FakeServer):
    """A server that is gone for whoever asks for more than information and one item."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    def Encode(self, request: pb.EncodeRequest, context: Any) -> pb.EncodeResponse:
        self.asked.set()
        context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        raise AssertionError

    def EncodeStream(self, request_iterator: Any, context: Any) -> Iterator[pb.EncodeStreamResponse]:
        if not self.asked.is_set():
            yield next(super().EncodeStream(request_iterator, context))
        self.asked.set()
        context.abort(grpc.StatusCode.UNAVAILABLE, "gone")


# A pause of up to an hour, which no test outlasts.
ENDLESS = Retry(1, 3600, 3600, reconnect_s=3600, calls_reconnect=True)
CALLS: list[Callable[[Client], object]] = [
    lambda client: client.encode(IMAGE),
    lambda client: client.encode([IMAGE] * 3),
]


@pytest.mark.parametrize("call", CALLS, ids=["a call", "a stream"])
def test_closing_a_client_ends_its_pauses(call: Callable[[Client], object]) -> None:
    ended: list[BaseException] = []
    with Vanishing() as server:
        client = Client(server.target, retry=ENDLESS)
        client.info()

        def work() -> None:
            try:
                call(client)
            except Exception as error:
                ended.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        until(lambda: server.asked.is_set() or not thread.is_alive())
        client.close()
        thread.join()
    assert [type(error) for error in ended] == [Cancelled]


async def test_closing_an_async_client_ends_its_pauses() -> None:
    with Vanishing() as server:
        client = AsyncClient(server.target, retry=ENDLESS)
        await client.info()
        task = asyncio.create_task(client.encode(IMAGE))
        await asyncio.to_thread(server.asked.wait, 60)
        await client.close()
        with pytest.raises(Cancelled):
            await task
