# SPDX-License-Identifier: Apache-2.0
"""Single entries in, batches to `run`, single results out."""

import asyncio
import time
import weakref
from collections import defaultdict
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import FrozenInstanceError, dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire_server.engine import jobs
from latentwire_server.engine.batching import LANE_LIMITS, BatchedResult, Batcher
from latentwire_server.engine.jobs import Caller
from latentwire_server.engine.lane import BatchLimits, Entry, Lane
from latentwire_server.errors import DeadlineExceeded

PLENTY = 10**9
FOR_EVER_S = 1e6


class Device:
    """A `run` that notes its batches and waits at a gate."""

    def __init__(self) -> None:
        self.batches: list[tuple[Hashable, list[str]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_work = 0
        self.most_at_work = 0

    async def run(self, key: Hashable, payloads: list[str]) -> Sequence[str | Exception]:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        self.batches.append((key, payloads))
        await asyncio.sleep(0)
        await self.gate.wait()
        self.at_work -= 1
        return [ValueError(p) if p.startswith("bad") else p.upper() for p in payloads]

    @property
    def payloads(self) -> list[list[str]]:
        return [payloads for _, payloads in self.batches]


class Queue:
    """A batcher at work, and the tasks that wait for it."""

    def __init__(self, batcher: Batcher[str, str]) -> None:
        self.batcher = batcher

    def put(
        self,
        payload: str,
        *,
        key: Hashable = "key",
        pixels: int = 1,
        client: str = "client",
        deadline: float | None = None,
    ) -> "asyncio.Task[BatchedResult[str]]":
        caller = Caller(client, deadline)
        return asyncio.create_task(self.batcher.submit(payload, key=key, pixels=pixels, caller=caller))


@asynccontextmanager
async def serving(
    device: Device, *, images: int = 4, pixels: int = PLENTY, delay_s: float = 0.0
) -> AsyncIterator[Queue]:
    batcher: Batcher[str, str] = Batcher(device.run, BatchLimits(images, pixels, delay_s))
    server = asyncio.create_task(batcher.serve())
    try:
        yield Queue(batcher)
        assert len(batcher) == 0
        assert device.most_at_work <= 1
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


@pytest.fixture
def device() -> Device:
    return Device()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_result_is_the_payloads_own_and_tells_of_its_batch(device: Device) -> None:
    before_ns = time.monotonic_ns()
    async with serving(device) as queue:
        tasks = [queue.put(name) for name in "abc"]
        outcomes = await asyncio.gather(*tasks)
    assert [outcome.result for outcome in outcomes] == ["A", "B", "C"]
    assert {outcome.batch_size for outcome in outcomes} == {3}
    assert len({outcome.batch for outcome in outcomes}) == 1
    for outcome in outcomes:
        assert before_ns <= outcome.ended_ns <= time.monotonic_ns()


async def test_batches_are_numbered_apart(device: Device) -> None:
    async with serving(device, images=1) as queue:
        first, second = await asyncio.gather(queue.put("a"), queue.put("b"))
    assert first.batch != second.batch


def test_a_result_stays_as_it_is() -> None:
    with pytest.raises(FrozenInstanceError):
        BatchedResult("A", 1, 1, 0).batch = 2  # type: ignore[misc]


async def test_only_equal_keys_share_a_batch(device: Device) -> None:
    async with serving(device) as queue:
        tasks = [queue.put(name, key=key) for name, key in zip("abcde", "xyxyx", strict=True)]
        await asyncio.gather(*tasks)
    assert device.batches == [("x", ["a", "c", "e"]), ("y", ["b", "d"])]


async def test_a_batch_holds_at_most_so_many_images(device: Device) -> None:
    async with serving(device, images=4) as queue:
        await asyncio.gather(*(queue.put(name) for name in "abcdefghi"))
    assert [len(batch) for batch in device.payloads] == [4, 4, 1]


async def test_a_batch_holds_at_most_so_many_pixels(device: Device) -> None:
    async with serving(device, images=100, pixels=10) as queue:
        await asyncio.gather(*(queue.put(name, pixels=4) for name in "abcde"))
    assert [len(batch) for batch in device.payloads] == [2, 2, 1]


async def test_an_entry_larger_than_the_pixel_budget_goes_alone(device: Device) -> None:
    async with serving(device, pixels=10) as queue:
        tasks = [queue.put(name, pixels=11) for name in "ab"]
        outcomes = await asyncio.gather(*tasks)
    assert [outcome.batch_size for outcome in outcomes] == [1, 1]


async def test_without_delay_an_entry_runs_at_once(device: Device) -> None:
    device.gate.clear()
    async with serving(device, delay_s=0) as queue:
        task = queue.put("a")
        await settle()
        assert device.payloads == [["a"]]
        device.gate.set()
        await task


async def test_with_delay_an_entry_waits_for_company_and_a_full_batch_does_not(
    device: Device,
) -> None:
    async with serving(device, images=3, delay_s=FOR_EVER_S) as queue:
        tasks = [queue.put("a"), queue.put("b")]
        await settle()
        assert device.payloads == []
        tasks.append(queue.put("c"))
        await asyncio.gather(*tasks)
    assert device.payloads == [["a", "b", "c"]]


async def test_with_delay_a_batch_without_room_for_another_image_does_not_wait(
    device: Device,
) -> None:
    async with serving(device, images=100, pixels=10, delay_s=FOR_EVER_S) as queue:
        await asyncio.gather(queue.put("a", pixels=4), queue.put("b", pixels=4))
        await queue.put("c", pixels=11)
    assert device.payloads == [["a", "b"], ["c"]]


async def test_when_the_delay_has_passed_an_entry_goes_without_company(device: Device) -> None:
    async with serving(device, delay_s=0.005) as queue:
        outcome = await queue.put("a")
    assert outcome.batch_size == 1


@dataclass
class Moment:
    """Half a second for which batches of small entries wait, until it is over."""

    over: bool = False

    def wait_s(self, batch: list[Entry[str, Any]]) -> float:
        if not batch:
            return float("inf")
        return 0.0 if self.over or batch[0].payload.startswith("large") else 0.5


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> Moment:
    moment = Moment()
    monkeypatch.setattr(Lane, "wait_s", moment.wait_s)
    return moment


async def test_a_batch_that_still_waits_for_a_moment_does_not_run(device: Device, moment: Moment) -> None:
    async with serving(device) as queue:
        first = queue.put("a")
        await settle()
        assert device.batches == []
        moment.over = True
        await asyncio.gather(first, queue.put("b"))
    assert device.payloads == [["a", "b"]]


async def test_a_client_with_a_thousand_entries_delays_anothers_one_by_one_batch(
    device: Device,
) -> None:
    device.gate.clear()
    async with serving(device, images=4) as queue:
        crowd = [queue.put(f"crowd {n}", client="crowd") for n in range(1000)]
        await settle()
        single = queue.put("single", client="single")
        await settle()
        device.gate.set()
        await single
        assert "single" in device.payloads[1]
        await asyncio.gather(*crowd)
    assert [p for batch in device.payloads for p in batch if p != "single"] == [f"crowd {n}" for n in range(1000)]


async def test_clients_share_a_batch_in_turns(device: Device) -> None:
    device.gate.clear()
    async with serving(device, images=4) as queue:
        tasks = [queue.put("first", client="z")]
        await settle()
        tasks += [queue.put(f"a{n}", client="a") for n in range(6)]
        tasks += [queue.put(f"b{n}", client="b") for n in range(2)]
        await settle()
        device.gate.set()
        await asyncio.gather(*tasks)
    assert sorted(device.payloads[1]) == ["a0", "a1", "b0", "b1"]


async def test_clients_of_unlike_keys_take_turns_batch_by_batch(device: Device) -> None:
    device.gate.clear()
    async with serving(device, images=2) as queue:
        tasks = [queue.put("a0", client="a", key="a")]
        await settle()
        tasks += [queue.put(f"a{n}", client="a", key="a") for n in range(1, 5)]
        tasks += [queue.put(f"b{n}", client="b", key="b") for n in range(4)]
        await settle()
        device.gate.set()
        await asyncio.gather(*tasks)
    assert device.payloads[1:] == [["a1", "a2"], ["b0", "b1"], ["a3", "a4"], ["b2", "b3"]]


async def test_one_clients_entries_of_two_keys_both_come_to_their_turn(device: Device) -> None:
    device.gate.clear()
    async with serving(device, images=2) as queue:
        tasks = [queue.put("x0", key="x")]
        await settle()
        tasks += [queue.put("y0", key="y"), *(queue.put(f"x{n}", key="x") for n in range(1, 5))]
        await settle()
        device.gate.set()
        await asyncio.gather(*tasks)
    assert device.payloads[1] == ["y0"]


async def test_a_passed_deadline_is_refused_at_submit(device: Device) -> None:
    async with serving(device) as queue:
        with pytest.raises(DeadlineExceeded, match="the deadline passed"):
            await queue.put("late", deadline=time.monotonic() - 1)
    assert device.batches == []


async def test_an_entry_that_expires_in_the_queue_never_runs(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(jobs, "time", SimpleNamespace(monotonic=lambda: now))
    device.gate.clear()
    async with serving(device) as queue:
        first = queue.put("first")
        await settle()
        late, last = queue.put("late", deadline=105.0), queue.put("last", deadline=115.0)
        await settle()
        now = 110.0
        device.gate.set()
        with pytest.raises(DeadlineExceeded):
            await late
        await asyncio.gather(first, last)
    assert device.payloads == [["first"], ["last"]]


async def test_a_cancelled_entry_leaves_the_queue(device: Device) -> None:
    device.gate.clear()
    async with serving(device) as queue:
        first = queue.put("first")
        await settle()
        gone, stays = queue.put("gone"), queue.put("stays")
        await settle()
        assert len(queue.batcher) == 2
        gone.cancel()
        await settle()
        assert len(queue.batcher) == 1
        device.gate.set()
        await asyncio.gather(first, stays)
        assert gone.cancelled()
    assert device.payloads == [["first"], ["stays"]]


async def test_cancelling_an_entry_at_work_spares_its_neighbours(device: Device) -> None:
    device.gate.clear()
    async with serving(device) as queue:
        gone, stays = queue.put("gone"), queue.put("stays")
        await settle()
        gone.cancel()
        await settle()
        device.gate.set()
        assert (await stays).result == "STAYS"
    assert gone.cancelled()


async def test_an_entry_cancelled_while_its_batch_fills_does_not_run(device: Device) -> None:
    async with serving(device, images=2, delay_s=FOR_EVER_S) as queue:
        gone = queue.put("gone")
        await settle()
        gone.cancel()
        await asyncio.gather(queue.put("a"), queue.put("b"))
    assert device.payloads == [["a", "b"]]


async def test_a_bad_result_reaches_its_own_entry_only(device: Device) -> None:
    async with serving(device) as queue:
        tasks = [queue.put(name) for name in ("a", "bad", "c")]
        results = await asyncio.gather(*tasks, return_exceptions=True)
    first, bad, last = results
    assert isinstance(first, BatchedResult)
    assert isinstance(bad, ValueError)
    assert isinstance(last, BatchedResult)
    assert (first.result, str(bad), last.result) == ("A", "bad", "C")


async def test_a_timeout_of_run_is_not_taken_for_the_callers_deadline() -> None:
    async def run(key: Hashable, payloads: list[str]) -> Sequence[str | Exception]:
        return [TimeoutError("of the device")]

    batcher: Batcher[str, str] = Batcher(run, BatchLimits(images=4, pixels=PLENTY, delay_s=0))
    server = asyncio.create_task(batcher.serve())
    with pytest.raises(TimeoutError, match="of the device") as caught:
        await Queue(batcher).put("a")
    assert not isinstance(caught.value, DeadlineExceeded)
    server.cancel()
    await asyncio.gather(server, return_exceptions=True)


async def test_an_exception_of_run_reaches_its_batch_and_the_next_batch_runs() -> None:
    async def run(key: Hashable, payloads: list[str]) -> Sequence[str | Exception]:
        if key == "broken":
            raise RuntimeError("out of memory")
        return payloads

    batcher: Batcher[str, str] = Batcher(run, BatchLimits(images=4, pixels=PLENTY, delay_s=0))
    server = asyncio.create_task(batcher.serve())
    queue = Queue(batcher)
    broken = [queue.put("a", key="broken"), queue.put("b", key="broken")]
    whole = queue.put("c", key="whole")
    for task in broken:
        with pytest.raises(RuntimeError, match="out of memory"):
            await task
    assert (await whole).result == "c"
    server.cancel()
    await asyncio.gather(server, return_exceptions=True)


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_a_run_that_gives_the_wrong_number_of_results_fails_its_batch_not_the_queue(
    count: int,
) -> None:
    async def run(key: Hashable, payloads: list[str]) -> Sequence[str | Exception]:
        return payloads if key == "whole" else ["result"] * count

    batcher: Batcher[str, str] = Batcher(run, BatchLimits(images=4, pixels=PLENTY, delay_s=0))
    server = asyncio.create_task(batcher.serve())
    queue = Queue(batcher)
    broken = [queue.put("a", key="broken"), queue.put("b", key="broken")]
    for task in broken:
        with pytest.raises(ValueError, match="zip"):
            await task
    assert (await queue.put("c", key="whole")).result == "c"
    server.cancel()
    await asyncio.gather(server, return_exceptions=True)


# Large images


LITTLE, MUCH = LANE_LIMITS
LARGE, HUGE = LITTLE + 1, MUCH + 1


class PausingDevice(Device):
    """A device whose large batches have a number of strips, with a pause after each but the last."""

    def __init__(self, strips: int) -> None:
        super().__init__()
        self.strips = strips
        self.story: list[str] = []
        self.batcher: Batcher[str, str]

    async def run(self, key: Hashable, payloads: list[str]) -> Sequence[str | Exception]:
        if not payloads[0].startswith("large"):
            self.story += payloads
            assert not self.batcher.has_smaller_batch
            return await super().run(key, payloads)
        for strip in range(self.strips):
            self.story.append(f"{payloads[0]}/{strip}")
            await settle()
            await self.gate.wait()
            if self.batcher.is_abandoned:
                raise ValueError("abandoned")
            if strip < self.strips - 1 and self.batcher.has_smaller_batch:
                await self.batcher.run_smaller_batch()
        return [payload.upper() for payload in payloads]


@asynccontextmanager
async def pausing(strips: int, *, images: int = 1, delay_s: float = 0.0) -> AsyncIterator[tuple[PausingDevice, Queue]]:
    device = PausingDevice(strips)
    device.gate.clear()
    async with serving(device, images=images, delay_s=delay_s) as queue:
        device.batcher = queue.batcher
        yield device, queue


def test_images_up_to_1024x1024_share_a_lane_and_those_up_to_32_times_as_many_pixels_the_next() -> None:
    assert LANE_LIMITS == (1_048_576, 33_554_432)


async def test_before_the_first_batch_none_is_abandoned_and_none_is_smaller(device: Device) -> None:
    batcher: Batcher[str, str] = Batcher(device.run, BatchLimits(4, PLENTY, 0.0))
    waiting = Queue(batcher).put("a")
    await settle()
    assert not batcher.is_abandoned
    assert not batcher.has_smaller_batch
    await batcher.run_smaller_batch()
    assert device.batches == []
    waiting.cancel()


async def test_a_small_entry_runs_between_two_strips_of_a_large_one() -> None:
    async with pausing(3) as (device, queue):
        large = queue.put("large", pixels=LARGE)
        await settle()
        small = queue.put("small", pixels=LITTLE)
        await settle()
        device.gate.set()
        assert (await small).result == "SMALL"
        assert not large.done()
        assert (await large).result == "LARGE"
    assert device.story == ["large/0", "small", "large/1", "large/2"]


async def test_of_many_small_entries_one_batch_runs_in_each_pause() -> None:
    async with pausing(3) as (device, queue):
        tasks = [queue.put("large", pixels=LARGE)]
        await settle()
        tasks += [queue.put(name) for name in "abcd"]
        await settle()
        device.gate.set()
        await asyncio.gather(*tasks)
    assert device.story == ["large/0", "a", "large/1", "b", "large/2", "c", "d"]


async def test_between_batches_the_lanes_take_turns() -> None:
    async with pausing(1) as (device, queue):
        tasks = [queue.put("large a", pixels=LARGE)]
        await settle()
        tasks += [queue.put(name) for name in "xyz"]
        tasks += [queue.put(f"large {name}", pixels=LARGE) for name in "bc"]
        await settle()
        device.gate.set()
        await asyncio.gather(*tasks)
    assert device.story == ["large a/0", "x", "large b/0", "y", "large c/0", "z"]


async def test_a_batch_that_still_waits_for_a_moment_does_not_run_in_a_pause(moment: Moment) -> None:
    async with pausing(3, images=2) as (device, queue):
        large = queue.put("large", pixels=LARGE)
        await settle()
        small = queue.put("a")
        await settle()
        device.gate.set()
        await large
        assert device.story == ["large/0", "large/1", "large/2"]
        moment.over = True
        await asyncio.gather(small, queue.put("b"))
    assert device.story[3:] == ["a", "b"]


async def test_a_large_entry_never_runs_in_the_pause_of_another() -> None:
    async with pausing(2) as (device, queue):
        tasks = [queue.put(f"large {name}", pixels=LARGE) for name in "ab"]
        await settle()
        device.gate.set()
        await asyncio.gather(*tasks)
    assert device.story == ["large a/0", "large a/1", "large b/0", "large b/1"]


async def test_an_entry_that_expired_or_still_waits_for_company_does_not_run_in_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(jobs, "time", SimpleNamespace(monotonic=lambda: now))
    async with pausing(2, images=2, delay_s=FOR_EVER_S) as (device, queue):
        tasks = [queue.put(f"large {name}", pixels=LARGE) for name in "ab"]
        await settle()
        late = queue.put("late", deadline=105.0)
        await settle()
        now = 110.0
        early = queue.put("early")
        device.gate.set()
        await asyncio.gather(*tasks)
        with pytest.raises(DeadlineExceeded):
            await late
        assert not early.done()
        early.cancel()
        await settle()
    assert device.story == ["large a/0", "large a/1"]


async def test_in_the_pauses_of_very_much_work_what_is_less_runs_the_least_first() -> None:
    async with pausing(3) as (device, queue):
        tasks = [queue.put("large a", pixels=HUGE)]
        await settle()
        tasks += [queue.put("large b", pixels=MUCH), queue.put("large c", pixels=HUGE), queue.put("small")]
        await settle()
        device.gate.set()
        await asyncio.gather(*tasks)
    within = ["large b/0", "large b/1", "large b/2"]
    assert device.story[:7] == ["large a/0", "small", "large a/1", *within, "large a/2"]
    assert device.story[7:] == ["large c/0", "large c/1", "large c/2"]


async def test_a_deadline_that_meets_the_result_is_told_as_a_deadline() -> None:
    def hold_up_the_loop() -> None:
        time.sleep(0.05)

    class Late(Device):
        async def run(self, key: Hashable, payloads: list[str]) -> Sequence[str | Exception]:
            hold_up_the_loop()  # the deadline passes in the very turn of the loop that brings the result
            return await super().run(key, payloads)

    async with serving(Late()) as queue:
        with pytest.raises(DeadlineExceeded):
            await queue.put("a", deadline=time.monotonic() + 0.02)
        assert (await queue.put("b")).result == "B"


async def test_a_large_batch_is_abandoned_when_the_last_of_its_callers_has_gone() -> None:
    async with pausing(9, images=2) as (device, queue):
        tasks = [queue.put(f"large {name}", pixels=LARGE) for name in "ab"]
        await settle()
        assert not queue.batcher.is_abandoned
        tasks[0].cancel()
        await settle()
        assert not queue.batcher.is_abandoned
        tasks[1].cancel()
        await settle()
        assert queue.batcher.is_abandoned
        device.gate.set()
        assert (await queue.put("next")).result == "NEXT"
        assert not queue.batcher.is_abandoned
    assert device.story == ["large a/0", "next"]


async def test_a_batch_at_work_is_abandoned_when_the_batcher_ends() -> None:
    async with pausing(9) as (_, queue):
        waiting = queue.put("large", pixels=LARGE)
        await settle()
        assert not queue.batcher.is_abandoned
    assert queue.batcher.is_abandoned
    assert not waiting.done()
    waiting.cancel()


@settings(deadline=None, max_examples=60)
@given(
    entries=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(1, 3), st.booleans()),
        max_size=40,
    ),
    images=st.integers(1, 5),
    pixels=st.integers(1, 8),
)
def test_whatever_comes_every_entry_ends_once_and_limits_hold(
    entries: list[tuple[str, str, int, bool]], images: int, pixels: int
) -> None:
    async def scenario() -> None:
        device = Device()
        tasks: list[asyncio.Task[BatchedResult[str]]] = []
        cancelled: list[int] = []
        size_of = {"x": 1, "y": 3}
        async with serving(device, images=images, pixels=pixels) as queue:
            for index, (client, key, turns, cancel) in enumerate(entries):
                tasks.append(queue.put(f"{index}", key=key, pixels=size_of[key], client=client))
                for _ in range(turns):
                    await asyncio.sleep(0)
                if cancel:
                    tasks[-1].cancel()
                    cancelled.append(index)
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for index, result in enumerate(results):
            if isinstance(result, BatchedResult):
                assert result.result == f"{index}"
            else:
                assert isinstance(result, asyncio.CancelledError)
                assert index in cancelled
        ran = [payload for payloads in device.payloads for payload in payloads]
        assert len(ran) == len(set(ran))
        order: dict[tuple[str, str], list[int]] = defaultdict(list)
        for hashable, payloads in device.batches:
            key = str(hashable)
            assert len(payloads) <= images
            assert len(payloads) == 1 or len(payloads) * size_of[key] <= pixels
            for index in map(int, payloads):
                order[entries[index][0], key].append(index)
        # Within one client and key, first come, first served.
        assert all(indices == sorted(indices) for indices in order.values())

    asyncio.run(scenario())


class Image:
    """An object that a weak reference can watch."""


@pytest.mark.parametrize("pixels", [1, LITTLE + 1])
async def test_nothing_of_the_last_batch_is_held_while_the_next_is_awaited(pixels: int) -> None:
    held: list[weakref.ref[object]] = []

    async def run(key: Hashable, payloads: list[Image]) -> Sequence[Image | Exception]:
        results = [Image() for _ in payloads]
        held.extend(weakref.ref(each) for each in (key, *payloads, *results))
        return results

    batcher: Batcher[Image, Image] = Batcher(run, BatchLimits(images=4, pixels=PLENTY, delay_s=0.0))
    server = asyncio.create_task(batcher.serve())
    await batcher.submit(Image(), key=Image(), pixels=pixels, caller=Caller("client"))
    await asyncio.sleep(0)
    assert [each() for each in held] == [None, None, None]
    server.cancel()
