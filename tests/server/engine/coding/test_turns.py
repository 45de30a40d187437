# SPDX-License-Identifier: Apache-2.0
"""Workers go from client to client: nobody has all of them, and nobody waits for ever."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentwire_server.engine.coding.turns import Turns


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def enter(turns: Turns, client: str, story: list[str]) -> None:
    await turns.enter(client)
    story.append(client)


async def test_one_client_never_has_the_last_worker() -> None:
    turns, story = Turns(3), list[str]()
    tasks = [asyncio.create_task(enter(turns, "greedy", story)) for _ in range(5)]
    await settle()
    assert story == ["greedy"] * 2
    await enter(turns, "other", story)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_worker_serves_everybody() -> None:
    turns, story = Turns(1), list[str]()
    await enter(turns, "a", story)
    waiting = asyncio.create_task(enter(turns, "b", story))
    await settle()
    assert not waiting.done()
    turns.leave("a")
    await waiting
    assert story == ["a", "b"]


async def test_a_worker_that_comes_free_goes_to_the_client_with_the_fewest_and_then_in_turn() -> None:
    turns, story = Turns(3), list[str]()
    for client in ("a", "a", "b"):
        await enter(turns, client, story)
    tasks = [asyncio.create_task(enter(turns, client, story)) for client in ("a", "a", "b", "b", "c", "d")]
    await settle()
    story.clear()
    for client in ("a", "a", "b"):
        turns.leave(client)
        await settle()
    # At first c and d have nothing; then a has nothing either, and at last b: all of them came before d.
    assert story == ["c", "a", "b"]
    for client in ("c", "a", "b"):
        turns.leave(client)
        await settle()
    assert story[3:] == ["d", "a", "b"]
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("moment", ["in line", "as the turn comes"])
async def test_who_goes_leaves_the_line(moment: str) -> None:
    turns, story = Turns(1), list[str]()
    await enter(turns, "a", story)
    gone = asyncio.create_task(enter(turns, "b", story))
    await settle()
    if moment == "in line":
        gone.cancel()
        await settle()
        turns.leave("a")
    else:
        turns.leave("a")
        gone.cancel()
    await settle()
    assert gone.cancelled()
    async with asyncio.timeout(None):
        await enter(turns, "c", story)
    assert story == ["a", "c"]


@given(
    workers=st.integers(1, 5),
    steps=st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["enter", "leave", "cancel"]), st.integers(0, 9)),
        max_size=60,
    ),
)
def test_nobody_starves_and_the_workers_are_never_more_than_there_are(
    workers: int, steps: list[tuple[str, str, int]]
) -> None:
    async def simulate() -> None:
        turns = Turns(workers)
        held: Counter[str] = Counter()
        waiting: list[tuple[str, asyncio.Task[None]]] = []

        async def ask(client: str) -> None:
            await turns.enter(client)
            held[client] += 1

        def check() -> None:
            assert held.total() <= workers
            assert all(count <= max(1, workers - 1) for count in held.values())
            # A free worker and a client below its share never wait for each other.
            if held.total() < workers:
                assert all(held[client] >= max(1, workers - 1) for client, task in waiting if not task.done())

        for client, action, which in steps:
            if action == "enter":
                waiting.append((client, asyncio.create_task(ask(client))))
            elif action == "leave" and held[client]:
                held[client] -= 1
                turns.leave(client)
            elif action == "cancel" and waiting:
                waiting.pop(which % len(waiting))[1].cancel()
            await settle()
            check()
        # Whatever happened, everybody who still waits is served as the others leave.
        while any(not task.done() for _, task in waiting):
            client = next(iter(+held))
            held[client] -= 1
            turns.leave(client)
            await settle()
            check()

    asyncio.run(simulate())


async def test_a_worker_is_not_lost_to_a_caller_that_is_cancelled_in_the_same_moment() -> None:
    turns = Turns(1)
    await turns.enter("first")
    going, staying = (asyncio.create_task(turns.enter(client)) for client in ("going", "staying"))
    await asyncio.sleep(0)
    going.cancel()
    turns.leave("first")  # before the cancelled task has run
    await staying
    turns.leave("staying")
    with pytest.raises(asyncio.CancelledError):
        await going
    await turns.enter("next")
