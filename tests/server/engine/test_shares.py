# SPDX-License-Identifier: Apache-2.0
"""Clients get places, wait for them, or are refused."""

import asyncio
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire_server.config import ServerConfig
from latentwire_server.engine.jobs import Caller
from latentwire_server.engine.shares import Shares, _Waiter, most_images
from latentwire_server.errors import DeadlineExceeded, QueueFull, RequestTooLarge


class Guests:
    """Requests that hold their places until `leave`."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self.inside: Counter[str] = Counter()
        self.entered: list[str] = []
        self.tasks_inside: set[asyncio.Task[None]] = set()
        self._leave: dict[asyncio.Task[None], asyncio.Event] = {}

    def enter(
        self, client: str, images: int = 1, *, patient: bool = False, deadline: float | None = None
    ) -> "asyncio.Task[None]":
        leave = asyncio.Event()

        async def stay() -> None:
            async with self.shares.hold(Caller(client, deadline, patient), images):
                self.inside[client] += images
                self.entered.append(client)
                self.tasks_inside.add(task)
                try:
                    await leave.wait()
                finally:
                    self.inside[client] -= images

        task = asyncio.create_task(stay())
        self._leave[task] = leave
        return task

    def leave(self, task: "asyncio.Task[None]") -> None:
        self._leave[task].set()

    async def close(self) -> list[BaseException | None]:
        for leave in self._leave.values():
            leave.set()
        results = await asyncio.gather(*self._leave, return_exceptions=True)
        assert self.shares.held == 0
        assert not self.inside.total()
        return results


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def fill(guests: Guests, client: str, images: int = 1) -> int:
    """Let a client take all the places it can get, and return how many it holds."""
    while True:
        task = guests.enter(client, images)
        await settle()
        if task.done():
            assert isinstance(task.exception(), QueueFull)
            return guests.inside[client]


@pytest.mark.parametrize("places", [1, 2, 3, 4, 7, 256])
async def test_one_client_alone_gets_at_most_three_quarters(places: int) -> None:
    guests = Guests(Shares(places))
    assert await fill(guests, "a") == max(1, places * 3 // 4) == guests.shares.largest
    await guests.close()


@pytest.mark.parametrize("places", [1, 2, 3, 4, 7, 256])
async def test_the_largest_request_fits_into_an_empty_queue(places: int) -> None:
    guests = Guests(Shares(places))
    guests.enter("a", guests.shares.largest)
    await settle()
    assert guests.shares.held == guests.shares.largest
    await guests.close()


@pytest.mark.parametrize("places", [2, 3, 4, 256])
async def test_a_newcomer_finds_a_place_however_much_another_asked_for(places: int) -> None:
    guests = Guests(Shares(places))
    await fill(guests, "greedy")
    newcomer = guests.enter("newcomer")
    await settle()
    assert guests.inside["newcomer"] == 1
    assert not newcomer.done()
    await guests.close()


async def test_every_place_is_given_to_newcomers_before_one_is_refused() -> None:
    guests = Guests(Shares(16))
    await fill(guests, "greedy")
    for n in range(4):
        guests.enter(f"newcomer {n}")
    await settle()
    assert guests.shares.held == 16
    late = guests.enter("late")
    await settle()
    assert isinstance(late.exception(), QueueFull)
    await guests.close()


@pytest.mark.parametrize("clients", [1, 2, 3, 5])
async def test_clients_that_come_alike_get_three_parts_of_3n_plus_1_each(clients: int) -> None:
    places = 160
    guests = Guests(Shares(places))
    for _ in range(places):
        for n in range(clients):
            guests.enter(f"{n}")
        await settle()
    share = places * 3 // (3 * clients + 1)
    assert all(share - 1 <= guests.inside[f"{n}"] <= share + 1 for n in range(clients))
    await guests.close()


async def test_places_that_are_left_come_back() -> None:
    guests = Guests(Shares(4))
    first = guests.enter("a", 3)
    await settle()
    guests.leave(first)
    await settle()
    assert guests.shares.held == 0
    guests.enter("a", 3)
    await settle()
    assert guests.inside["a"] == 3
    await guests.close()


async def test_a_failing_request_gives_its_places_back() -> None:
    shares = Shares(4)
    with pytest.raises(RuntimeError, match="broken"):
        async with shares.hold(Caller("a"), 2):
            raise RuntimeError("broken")
    assert shares.held == 0


async def test_queue_full_says_how_full_of_what_limit_and_which_flag() -> None:
    guests = Guests(Shares(8))
    guests.enter("a", 4)
    guests.enter("b", 2)
    await settle()
    with pytest.raises(QueueFull) as caught:
        async with guests.shares.hold(Caller("a"), 2):
            pass
    assert str(caught.value) == (
        "the queue is full: 6 of 8 places are taken (4 by this client), 2 more were asked for (serve --max-queue)"
    )
    await guests.close()


async def test_retry_after_grows_with_the_queue_and_the_time_of_an_image() -> None:
    guests = Guests(Shares(8))
    guests.enter("a", 6)
    await settle()
    for seconds_per_image, retry_after_s in ((2.0, 6.0), (0.0001, 0.1)):
        for _ in range(200):  # the running mean forgets what came before
            guests.shares.observe(seconds_per_image)
        with pytest.raises(QueueFull) as caught:
            async with guests.shares.hold(Caller("a"), 1):
                pass
        assert caught.value.retry_after_s == pytest.approx(retry_after_s)
    await guests.close()


async def test_retry_after_follows_a_running_mean_that_begins_with_a_tenth_of_a_second() -> None:
    shares = Shares(100)
    async with shares.hold(Caller("a"), 20):
        assert shares.retry_after_s == pytest.approx(20 * 0.1 / 2)
        shares.observe(1.1)
        assert shares.retry_after_s == pytest.approx(20 * 0.2 / 2)


@pytest.mark.parametrize(("max_batch", "max_queue", "expected"), [(8, 256, 8), (64, 16, 12)])
def test_a_request_has_at_most_the_images_of_a_batch_and_of_one_client(
    max_batch: int, max_queue: int, expected: int
) -> None:
    assert most_images(ServerConfig(max_batch=max_batch, max_queue=max_queue)) == expected


async def test_a_closed_claim_holds_no_place_and_gives_none_back_again() -> None:
    shares = Shares(8)
    with shares.claim(Caller("a")) as claim:
        assert claim.take_now(2)
        async with shares.hold(Caller("a"), 1):
            claim.close()
            assert (claim.held, shares.held) == (0, 1)
            claim.close()
            assert (claim.held, shares.held) == (0, 1)


@pytest.mark.parametrize("patient", [False, True])
async def test_more_than_a_client_can_ever_hold_is_too_large(patient: bool) -> None:
    shares = Shares(8)
    with pytest.raises(RequestTooLarge, match=r"7 images.* at most 6 .*--max-queue"):
        async with shares.hold(Caller("a", patient=patient), 7):
            pass
    assert shares.held == 0


async def test_a_passed_deadline_is_refused_even_if_there_is_a_place() -> None:
    with pytest.raises(DeadlineExceeded):
        async with Shares(8).hold(Caller("a", deadline=time.monotonic() - 1), 1):
            pass


async def test_the_patient_wait_in_line_and_are_let_in_as_places_come_free() -> None:
    guests = Guests(Shares(4))
    first = guests.enter("a", 3)
    await settle()
    waiting = [guests.enter("a", 1, patient=True) for _ in range(3)]
    await settle()
    assert guests.inside["a"] == 3
    guests.leave(first)
    await settle()
    assert guests.inside["a"] == 3
    assert not any(task.done() for task in waiting)
    assert await guests.close() == [None] * 4


async def test_a_small_request_does_not_overtake_its_own_clients_large_one() -> None:
    guests = Guests(Shares(8))
    first = guests.enter("a", 5)
    await settle()
    large = guests.enter("a", 6, patient=True)
    await settle()
    small = guests.enter("a", 1, patient=True)
    await settle()
    assert guests.inside["a"] == 5
    guests.leave(first)
    await settle()
    assert guests.inside["a"] == 6
    guests.leave(large)
    await settle()
    assert guests.inside["a"] == 1
    assert not small.done()
    await guests.close()


async def test_a_small_request_that_would_fit_waits_behind_its_own_clients_large_one() -> None:
    guests = Guests(Shares(8))
    first, second = guests.enter("a", 3), guests.enter("a", 2)
    await settle()
    guests.enter("a", 6, patient=True)
    await settle()
    guests.enter("a", 1, patient=True)
    guests.leave(second)
    await settle()
    assert guests.inside["a"] == 3
    guests.leave(first)
    await settle()
    assert guests.inside["a"] == 6
    await guests.close()


async def test_a_waiting_client_does_not_hold_back_another() -> None:
    guests = Guests(Shares(8))
    guests.enter("a", 6)
    await settle()
    guests.enter("a", 6, patient=True)
    guests.enter("b", 1, patient=True)
    await settle()
    assert guests.inside["b"] == 1
    await guests.close()


async def test_waiting_clients_are_let_in_first_come_first_served() -> None:
    guests = Guests(Shares(1))
    first = guests.enter("first")
    await settle()
    for client in ("b", "c", "d"):
        guests.enter(client, patient=True)
        await settle()
    tasks = {"first": first}
    assert guests.entered == ["first"]
    guests.leave(tasks["first"])
    await settle()
    assert guests.entered == ["first", "b"]
    await guests.close()
    assert guests.entered == ["first", "b", "c", "d"]


async def test_the_patient_wait_until_their_deadline_and_no_longer() -> None:
    guests = Guests(Shares(4))
    guests.enter("a", 3)
    await settle()
    late = guests.enter("a", patient=True, deadline=time.monotonic() + 0.02)
    with pytest.raises(DeadlineExceeded, match="waited for a place in the queue"):
        await late
    assert guests.shares.held == 3
    await guests.close()


async def test_who_gives_up_while_waiting_leaves_no_place_taken() -> None:
    guests = Guests(Shares(4))
    first = guests.enter("a", 3)
    await settle()
    waiting = guests.enter("a", 2, patient=True)
    await settle()
    waiting.cancel()
    await settle()
    guests.leave(first)
    await settle()
    assert guests.shares.held == 0
    await guests.close()


async def test_who_gives_up_in_the_moment_of_being_let_in_leaves_no_place_taken() -> None:
    guests = Guests(Shares(4))
    leave = asyncio.Event()

    async def leave_and_cancel_the_next() -> None:
        async with guests.shares.hold(Caller("a"), 3):
            await leave.wait()
        assert guests.shares.held == 2  # the places have a new holder, which has not run yet
        waiting.cancel()

    first = asyncio.create_task(leave_and_cancel_the_next())
    await settle()
    waiting = guests.enter("a", 2, patient=True)
    guests.enter("a", 3, patient=True)
    await settle()
    leave.set()
    await first
    await settle()
    assert waiting.cancelled()
    assert guests.inside["a"] == guests.shares.held == 3
    await guests.close()


async def test_when_a_large_request_gives_up_the_smaller_ones_behind_it_are_let_in() -> None:
    guests = Guests(Shares(8))
    guests.enter("a", 5)
    await settle()
    large = guests.enter("a", 6, patient=True)
    await settle()
    guests.enter("a", 1, patient=True)
    await settle()
    assert guests.inside["a"] == 5
    large.cancel()
    await settle()
    assert guests.inside["a"] == 6
    await guests.close()


async def test_clients_that_left_are_forgotten() -> None:
    shares = Shares(2)
    for n in range(10):
        async with shares.hold(Caller(f"{n}"), 1):
            pass
    holder, waiter = Caller("holder"), Caller("waiter", patient=True)

    async def wait() -> None:
        async with shares.hold(waiter, 1):
            pass

    async with shares.hold(holder, 1), shares.hold(Caller("other"), 1):
        task = asyncio.create_task(wait())
        await settle()
    task.cancel()  # it has got its place, and gives it back
    await asyncio.gather(task, return_exceptions=True)
    assert shares.held == 0
    assert not shares._held


steps = st.one_of(
    st.tuples(st.just("enter"), st.sampled_from("abc"), st.integers(1, 8), st.booleans(), st.booleans()),
    st.tuples(st.sampled_from(["leave", "cancel", "both"]), st.integers(0, 40), st.integers(0, 3)),
)


@settings(deadline=None, max_examples=150)
@given(places=st.integers(1, 12), sequence=st.lists(steps, max_size=40))
def test_whatever_happens_no_place_is_lost_and_nobody_waits_for_ever(
    places: int, sequence: list[tuple[object, ...]]
) -> None:
    async def scenario() -> None:
        shares = Shares(places)
        guests = Guests(shares)
        tasks: list[asyncio.Task[None]] = []
        for step in sequence:
            match step:
                case ("enter", str(client), int(images), bool(patient), bool(at_once)):
                    tasks.append(guests.enter(client, images, patient=patient))
                    if at_once:
                        continue
                    await asyncio.sleep(0)
                case (str(action), int(index), int(ticks)):
                    if tasks and action in ("leave", "both"):
                        guests.leave(tasks[index % len(tasks)])
                    for _ in range(ticks):
                        await asyncio.sleep(0)
                    if tasks and action in ("cancel", "both"):
                        tasks[index % len(tasks)].cancel()
            assert shares.held <= places
            assert all(held <= shares.largest for held in guests.inside.values())
        await settle()
        # The first waiting request of each client does not fit.
        heads: dict[str, _Waiter] = {}
        for waiter in shares._waiters:
            heads.setdefault(waiter.client, waiter)
        kept = shares._reservation.waiter if shares._reservation else None
        assert kept is None or not shares._has_come(kept)
        assert not any(shares._fits(one.client, one.number) for one in heads.values() if one is not kept)
        for result in await guests.close():
            allowed = (QueueFull, RequestTooLarge, asyncio.CancelledError)
            assert result is None or isinstance(result, allowed)
        assert not shares._waiters

    asyncio.run(scenario())


# A request for many places beside a flow of small ones


@pytest.mark.parametrize("patient", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("newcomers", [False, True], ids=["one client", "a client for each"])
async def test_a_request_for_many_places_does_not_starve_behind_a_flow_of_small_ones(
    newcomers: bool, patient: bool
) -> None:
    guests, number = Guests(Shares(16)), 0

    def small() -> "asyncio.Task[None]":
        nonlocal number
        number += 1
        return guests.enter(f"small {number}" if newcomers else "small", 1, patient=patient)

    flow = [small() for _ in range(8)]
    await settle()
    large = guests.enter("large", 10, patient=True)
    for _ in range(8):  # one of the small ones that were in leaves, and two more come
        guests.leave(flow.pop(0))
        flow += [small(), small()]
        await settle()
    assert guests.inside["large"] == 10
    guests.leave(large)
    await settle()
    assert await fill(guests, "other") > 0
    await guests.close()


async def test_while_places_are_kept_newcomers_have_what_is_left_and_are_told() -> None:
    guests = Guests(Shares(16))
    for _ in range(9):
        guests.enter("old")
    await settle()
    guests.enter("large", 10, patient=True)
    await settle()
    for number in range(5):
        guests.enter(f"newcomer {number}")
    late = guests.enter("late")
    await settle()
    assert guests.shares.held == 9 + 5
    problem = r"14 of 16 places are taken \(0 by this client\), places are kept for a request that waits, 1 more"
    with pytest.raises(QueueFull, match=problem):
        await late
    await guests.close()


async def test_no_place_is_kept_for_a_client_that_holds_more_than_its_share() -> None:
    guests = Guests(Shares(16))
    first = guests.enter("greedy", 9)
    await settle()
    guests.enter("greedy", 10, patient=True)
    await settle()
    assert await fill(guests, "other") == 5
    guests.leave(first)
    await settle()
    assert guests.inside["greedy"] == 10
    await guests.close()


async def test_who_gives_up_has_no_places_kept() -> None:
    guests = Guests(Shares(16))
    for _ in range(9):
        guests.enter("old")
    await settle()
    large = guests.enter("large", 10, patient=True)
    await settle()
    large.cancel()
    await settle()
    assert guests.shares._reservation is None
    guests.enter("new", 4)
    await settle()
    assert guests.inside["new"] == 4
    await guests.close()


@settings(deadline=None)
@given(
    places=st.integers(1, 24),
    ages=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    requests=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.integers(1, 24), st.booleans()), max_size=30
    ),
    flow=st.integers(0, 3),
)
def test_every_patient_request_is_let_in_whatever_flows_beside_it(
    places: int, ages: list[int], requests: list[tuple[int, str, int, bool]], flow: int
) -> None:
    """Each request that is let in stays for a bounded time; new small requests come for ever."""

    async def scenario() -> None:
        shares = Shares(places)
        guests = Guests(shares)
        staying: list[tuple[asyncio.Task[None], int]] = []
        asked: list[asyncio.Task[None]] = []
        patient_ones: list[asyncio.Task[None]] = []
        begun: set[asyncio.Task[None]] = set()
        coming = list(requests)
        # A request of the line waits for those before it, each for one stay after the ones that were in.
        for round_ in range(10 + 12 * (len(requests) + 1)):
            while coming and coming[0][0] <= round_:
                _, client, images, patient = coming.pop(0)
                task = guests.enter(client, min(images, shares.largest), patient=patient)
                asked.append(task)
                if patient:
                    patient_ones.append(task)
            for number in range(flow):
                asked.append(guests.enter(f"new {round_} {number}"))
            await settle()
            assert shares.held == guests.inside.total() <= places
            assert all(guests.inside[client] <= shares.largest for client in "abc")
            for task in asked:
                if task in guests.tasks_inside and task not in begun:
                    begun.add(task)
                    staying.append((task, round_ + ages[len(staying) % len(ages)]))
            for task, end in staying:
                if end <= round_:
                    guests.leave(task)
            await settle()
        assert all(task.done() and task.exception() is None for task in patient_ones)
        await guests.close()

    asyncio.run(scenario())


# Claims


async def test_a_claim_takes_places_at_once_or_says_that_it_cannot() -> None:
    shares = Shares(8)
    with shares.claim(Caller("a", patient=True)) as claim:
        assert claim.take_now(5)
        assert shares.held == 5
        assert not claim.take_now(2)
        assert shares.held == 5
        await claim.take(1)
        assert shares.held == 6
    assert shares.held == 0


async def test_a_claim_that_is_closed_takes_nothing_more() -> None:
    shares = Shares(8)
    with shares.claim(Caller("a")) as claim:
        pass
    assert not claim.take_now(1)
    assert shares.held == 0


async def test_a_claim_does_not_overtake_a_request_of_its_client_that_waits() -> None:
    guests = Guests(Shares(8))
    guests.enter("a", 3)
    await settle()
    guests.enter("a", 6, patient=True)
    await settle()
    with guests.shares.claim(Caller("a")) as claim, guests.shares.claim(Caller("b")) as other:
        assert not claim.take_now(1)
        assert other.take_now(1)
    await guests.close()
