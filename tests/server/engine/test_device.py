# SPDX-License-Identifier: Apache-2.0
"""Work goes to one thread and results come back; in the middle of long work the thread yields to other work."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from latentwire_server.engine.device import Device


@asynccontextmanager
async def started() -> AsyncIterator[Device]:
    device = Device(1)
    device.start()
    try:
        yield device
    finally:
        await device.close(wait=True)


async def test_all_work_is_done_in_one_thread_in_the_order_in_which_it_came() -> None:
    done: list[int] = []

    def work(number: int) -> str:
        done.append(number)
        return threading.current_thread().name

    async with started() as device:
        answers = await asyncio.gather(*(device.run(partial(work, number)) for number in range(5)))
    assert done == [0, 1, 2, 3, 4]
    assert [name for name, _ in answers] == ["device"] * 5


async def test_what_work_raises_reaches_its_caller_and_the_next_is_done() -> None:
    async with started() as device:
        with pytest.raises(ZeroDivisionError):
            await device.run(lambda: 1 // 0)
        assert (await device.run(lambda: 1))[0] == 1


async def test_a_thread_that_is_closed_in_a_pause_which_never_ends_ends_with_its_work() -> None:
    device, paused = Device(1), threading.Event()
    device.start()

    async def never() -> None:
        paused.set()
        await asyncio.Event().wait()

    work = asyncio.create_task(device.run(lambda: device.yield_to(never)))
    assert await asyncio.to_thread(paused.wait, 60)
    await device.close(wait=False)
    await asyncio.to_thread(device._thread.join, 60)
    assert not device._thread.is_alive()
    await work


async def test_work_that_is_cancelled_before_its_turn_is_not_done() -> None:
    go_on, done = threading.Event(), []
    async with started() as device:
        first = asyncio.create_task(device.run(go_on.wait))
        gone = asyncio.create_task(device.run(lambda: done.append("gone")))
        last = asyncio.create_task(device.run(lambda: done.append("last")))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        go_on.set()
        await asyncio.gather(first, last)
    assert done == ["last"]


async def test_work_that_is_cancelled_halfway_ends_and_the_next_is_done() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait()

    async with started() as device:
        task = asyncio.create_task(device.run(work))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        go_on.set()
        assert (await device.run(lambda: 1))[0] == 1


async def test_in_a_pause_the_thread_does_what_others_want_and_the_time_is_theirs() -> None:
    story: list[str] = []

    async with started() as device:

        async def others() -> None:
            _, ns = await device.run(small)
            assert ns >= 50_000_000

        def small() -> None:
            assert threading.current_thread().name == "device"
            story.append("small")
            time.sleep(0.05)

        def large() -> str:
            story.append("begun")
            device.yield_to(others)
            story.append("ended")
            return "large"

        before_ns = time.monotonic_ns()
        result, ns = await device.run(large)
        assert ns + 50_000_000 <= time.monotonic_ns() - before_ns
    assert result == "large"
    assert story == ["begun", "small", "ended"]


async def test_a_pause_ends_though_what_others_wanted_fails() -> None:
    async with started() as device:

        async def others() -> None:
            with pytest.raises(ZeroDivisionError):
                await device.run(lambda: 1 // 0)
            raise ValueError("a fault of others")

        def large() -> str:
            device.yield_to(others)
            return "large"

        assert (await device.run(large))[0] == "large"


async def test_closing_lets_the_work_end_and_a_device_that_never_began_may_be_closed() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        return go_on.wait()

    await Device(1).close(wait=True)
    async with started() as device:
        task = asyncio.create_task(device.run(work))
        await asyncio.to_thread(begun.wait, 60)
        closing = asyncio.create_task(device.close(wait=True))
        await asyncio.sleep(0)
        go_on.set()
        await closing
    assert (await task)[0]
