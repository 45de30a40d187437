# SPDX-License-Identifier: Apache-2.0
"""Which entries share the next batch, and how long it waits for company."""

import asyncio
import time
from collections.abc import Hashable
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

from latentwire_server.engine.jobs import Caller
from latentwire_server.engine.lane import BatchLimits, Entry, Lane
from latentwire_server.errors import DeadlineExceeded

LONG_S = 1e6


def entry(
    payload: str, *, client: str = "client", key: Hashable = "key", pixels: int = 1, deadline: float | None = None
) -> Entry[str, str]:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    return Entry(payload, key, pixels, Caller(client, deadline), future)


def lane_of(*entries: Entry[str, str], images: int = 4, pixels: int = 10, delay_s: float = LONG_S) -> Lane[str, str]:
    lane: Lane[str, str] = Lane(BatchLimits(images, pixels, delay_s))
    for each in entries:
        lane.add(each)
    return lane


def names(batch: list[Entry[str, str]]) -> list[str]:
    return [each.payload for each in batch]


@pytest.mark.parametrize(("pixels", "expected"), [((5, 5), ["a", "b"]), ((5, 6), ["a"]), ((4, 6, 1), ["a", "b"])])
async def test_a_batch_holds_exactly_its_pixels_and_not_one_more(pixels: tuple[int, ...], expected: list[str]) -> None:
    lane = lane_of(*(entry(name, pixels=each) for name, each in zip("abc", pixels, strict=False)))
    assert names(lane.plan()) == expected


async def test_an_entry_beyond_the_pixels_goes_alone() -> None:
    assert names(lane_of(entry("large", pixels=11), entry("b")).plan()) == ["large"]


@pytest.mark.parametrize(("pixels", "waits"), [(5, True), (6, False), (10, False), (11, False)])
async def test_a_batch_waits_for_the_entry_that_would_fit_exactly(pixels: int, waits: bool) -> None:
    lane = lane_of(entry("a", pixels=pixels))
    assert (lane.wait_s(lane.plan()) > 0) is waits


@pytest.mark.parametrize(("count", "waits"), [(3, True), (4, False), (5, False)])
async def test_a_batch_waits_until_it_has_its_images(count: int, waits: bool) -> None:
    lane = lane_of(*(entry(name) for name in "abcde"[:count]))
    assert (lane.wait_s(lane.plan()) > 0) is waits


async def test_a_batch_waits_no_longer_than_its_oldest_entry_may() -> None:
    old, new = entry("old"), entry("new")
    old.enqueued_s = time.monotonic() - 100
    assert lane_of(old, new, delay_s=50).wait_s([old, new]) < 0
    assert 0 < lane_of(old, new, delay_s=150).wait_s([old, new]) <= 50


async def test_without_entries_there_is_nothing_to_wait_for() -> None:
    lane = lane_of()
    assert lane.plan() == []
    assert lane.wait_s([]) == float("inf")
    assert not lane
    assert len(lane) == 0


async def test_clients_take_turns_within_a_batch_and_for_its_head() -> None:
    lane = lane_of(*(entry(f"a{n}", client="a") for n in range(4)), entry("b0", client="b"), images=3)
    batch = lane.plan()
    assert names(batch) == ["a0", "b0", "a1"]
    lane.add(entry("b1", client="b"))
    lane.take(batch)
    assert names(lane.plan())[0] == "b1"


async def test_each_of_three_clients_has_one_entry_of_each_round() -> None:
    lane = lane_of(*(entry(f"{name}{n}", client=name) for name in "abc" for n in range(3)), images=6)
    assert names(lane.plan()) == ["a0", "b0", "c0", "a1", "b1", "c1"]


async def test_entries_are_told_apart_without_a_look_at_their_payloads() -> None:
    lane: Lane[Any, str] = Lane(BatchLimits(4, 10, LONG_S))
    first, second = (
        Entry[Any, str](np.zeros(2), "key", 1, Caller("client"), asyncio.get_running_loop().create_future())
        for _ in range(2)
    )
    lane.add(first)
    lane.add(second)
    lane.discard(second)
    assert lane.plan()[0] is first
    assert len(lane) == 1


def test_limits_stay_as_they_are() -> None:
    with pytest.raises(FrozenInstanceError):
        BatchLimits(4, 10, LONG_S).images = 5  # type: ignore[misc]


async def test_only_equal_keys_share_a_batch_in_the_order_in_which_they_came() -> None:
    lane = lane_of(*(entry(name, key=key) for name, key in zip("abcd", "xyxy", strict=True)))
    assert names(lane.plan()) == ["a", "c"]


async def test_planning_leaves_the_entries_and_taking_removes_them() -> None:
    lane = lane_of(entry("a"), entry("b"))
    batch = lane.plan()
    assert len(lane) == 2
    lane.take(batch)
    assert not lane
    lane.discard(batch[0])  # taken already


async def test_an_entry_whose_deadline_passed_is_told_and_does_not_run() -> None:
    late, last = entry("late", deadline=time.monotonic() - 1), entry("last")
    lane = lane_of(late, last)
    assert names(lane.plan()) == ["last"]
    assert isinstance(late.future.exception(), DeadlineExceeded)
