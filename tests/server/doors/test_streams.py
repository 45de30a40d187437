# SPDX-License-Identifier: Apache-2.0
"""Requests in, answers out of order, a bounded number in flight, and an orderly end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

import pytest

from latentwire_server.doors.grpc.streams import serve_stream
from latentwire_server.errors import NotServing


class Client:
    """Sends numbers and counts how many were read; where `stays_open` is set, it never ends its side."""

    def __init__(self, count: int, *, stays_open: bool = False) -> None:
        self.count = count
        self.read = 0
        self.stays_open = stays_open

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in range(self.count):
            self.read += 1
            yield number
        if self.stays_open:
            await asyncio.Event().wait()


class Worker:
    """Answers each number when its gate opens."""

    def __init__(self) -> None:
        self.gates: dict[int, asyncio.Event] = {}
        self.at_work: set[int] = set()
        self.cancelled: set[int] = set()
        self.most_at_work = 0

    async def answer(self, number: int) -> str:
        gate = self.gates.setdefault(number, asyncio.Event())
        self.at_work.add(number)
        self.most_at_work = max(self.most_at_work, len(self.at_work))
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.cancelled.add(number)
            raise
        finally:
            self.at_work.discard(number)
        return f"answer {number}"

    def finish(self, *numbers: int) -> None:
        for number in numbers:
            self.gates.setdefault(number, asyncio.Event()).set()


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


def stream(
    client: Client, worker: Worker, *, window: int = 4, draining: asyncio.Event | None = None
) -> AsyncGenerator[str, None]:
    draining = asyncio.Event() if draining is None else draining
    answers = serve_stream(aiter(client), worker.answer, window, draining)
    return cast("AsyncGenerator[str, None]", answers)


async def collect(answers: AsyncIterator[str]) -> list[str]:
    return [answer async for answer in answers]


async def test_an_empty_stream_gives_no_answers() -> None:
    assert await collect(stream(Client(0), Worker())) == []


async def test_every_item_is_answered_once() -> None:
    worker = Worker()
    worker.finish(*range(100))
    answers = await collect(stream(Client(100), worker))
    assert sorted(answers) == sorted(f"answer {n}" for n in range(100))


async def test_answers_come_as_they_are_ready() -> None:
    worker = Worker()
    answers = stream(Client(4), worker)
    first = asyncio.ensure_future(anext(answers))
    await settle()
    worker.finish(2)
    assert await first == "answer 2"
    worker.finish(3)
    assert await anext(answers) == "answer 3"
    worker.finish(1)
    assert await anext(answers) == "answer 1"
    worker.finish(0)
    assert await collect(answers) == ["answer 0"]


async def test_an_answer_does_not_wait_for_the_next_request() -> None:
    worker = Worker()
    worker.finish(0)
    answers = stream(Client(1, stays_open=True), worker)
    assert await anext(answers) == "answer 0"
    await answers.aclose()


@pytest.mark.parametrize("window", [1, 3])
async def test_no_more_than_the_window_is_at_work_or_read(window: int) -> None:
    client, worker = Client(20), Worker()
    task = asyncio.create_task(collect(stream(client, worker, window=window)))
    await settle()
    assert worker.at_work == set(range(window))
    assert client.read == window
    worker.finish(0)
    await settle()
    assert client.read == window + 1
    worker.finish(*range(20))
    assert len(await task) == 20
    assert worker.most_at_work == window


async def test_answers_that_nobody_takes_stop_the_reading() -> None:
    client, worker = Client(20), Worker()
    worker.finish(*range(20))
    answers = stream(client, worker, window=3)
    await anext(answers)
    await settle()
    assert client.read <= 4
    await answers.aclose()


async def test_draining_answers_what_was_read_and_then_says_not_serving() -> None:
    client, worker, draining = Client(3, stays_open=True), Worker(), asyncio.Event()
    answers: list[str] = []

    async def consume() -> None:
        async for answer in stream(client, worker, draining=draining):
            answers.append(answer)

    task = asyncio.create_task(consume())
    await settle()
    draining.set()
    await settle()
    assert not task.done()
    worker.finish(0, 1, 2)
    with pytest.raises(NotServing, match="send the items without an answer again"):
        await task
    assert sorted(answers) == ["answer 0", "answer 1", "answer 2"]


async def test_draining_reads_no_more_even_as_the_window_comes_free() -> None:
    client, worker, draining = Client(20), Worker(), asyncio.Event()
    task = asyncio.create_task(collect(stream(client, worker, window=2, draining=draining)))
    await settle()
    draining.set()
    worker.finish(*range(20))
    with pytest.raises(NotServing):
        await task
    assert client.read == 2


async def test_draining_ends_an_idle_stream() -> None:
    draining = asyncio.Event()
    answers = stream(Client(0, stays_open=True), Worker(), draining=draining)
    task = asyncio.create_task(collect(answers))
    await settle()
    draining.set()
    with pytest.raises(NotServing):
        await task


async def test_draining_does_not_disturb_a_stream_whose_client_has_ended() -> None:
    worker, draining = Worker(), asyncio.Event()
    task = asyncio.create_task(collect(stream(Client(2), worker, draining=draining)))
    await settle()
    draining.set()
    worker.finish(0, 1)
    assert sorted(await task) == ["answer 0", "answer 1"]


async def test_closing_the_stream_early_cancels_what_is_in_flight() -> None:
    client, worker = Client(4, stays_open=True), Worker()
    answers = stream(client, worker)
    first = asyncio.ensure_future(anext(answers))
    await settle()
    worker.finish(0)
    assert await first == "answer 0"
    await answers.aclose()
    await settle()
    assert worker.cancelled == {1, 2, 3}
    assert not worker.at_work


async def test_cancelling_the_consumer_cancels_what_is_in_flight() -> None:
    worker = Worker()
    task = asyncio.create_task(collect(stream(Client(3, stays_open=True), worker)))
    await settle()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await settle()
    assert worker.cancelled == {0, 1, 2}


async def test_a_request_stream_that_breaks_ends_the_answers_with_its_error() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 0
        raise ConnectionError("the peer is gone")

    worker = Worker()
    answers = serve_stream(broken(), worker.answer, 4, asyncio.Event())
    with pytest.raises(ConnectionError, match="the peer is gone"):
        await collect(answers)
    await settle()
    assert not worker.at_work


async def test_no_task_outlives_its_stream() -> None:
    worker = Worker()
    worker.finish(*range(5))
    before = asyncio.all_tasks()
    await collect(stream(Client(5), worker))
    await settle()
    assert asyncio.all_tasks() == before
