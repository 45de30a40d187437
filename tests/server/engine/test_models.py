# SPDX-License-Identifier: Apache-2.0
"""Models come and go within the memory for them, and every request gets the weights that it asked for."""

import asyncio
import logging
import time
import weakref
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_core.errors import CheckpointError
from latentwire_server.config import MIB, ModelSource
from latentwire_server.engine import models
from latentwire_server.engine.jobs import Caller
from latentwire_server.engine.models import ModelStore
from latentwire_server.errors import DeadlineExceeded, ModelUnavailable, ServerError
from latentwire_server.telemetry.metrics import Metrics
from tests.server.specs import spec_with
from tests.waiting import until_async

CALLER = Caller("client")


@dataclass(eq=False)
class Weights:
    """The attributes of an autoencoder that the store reads."""

    name: str
    spec: AutoencoderSpec


class Disk:
    """Models with their sizes in MiB, and a list of their loads; a test ends the loads of `slow` models."""

    def __init__(self, budget_mib: int | None, **sizes_mib: int) -> None:
        self.sources = [ModelSource(name, f"/models/{name}") for name in sizes_mib]
        self.specs = {name: spec(name, mib) for name, mib in sizes_mib.items()}
        self.budget_mib = budget_mib
        self.loads: list[str] = []
        self.slow: dict[str, asyncio.Event] = {}
        self.broken: dict[str, Exception] = {}
        self.live: weakref.WeakSet[Weights] = weakref.WeakSet()
        self.metrics = Metrics()
        self.store = ModelStore(self.load, budget_mib and budget_mib * MIB, self.metrics)

    async def load(self, source: ModelSource) -> Autoencoder:
        name = source.name
        first = name not in self.loads
        self.loads.append(name)
        # The size of a model is not known before its first load: that load may exceed the budget.
        used = sum(self.store[weights.name].weights_bytes for weights in self.live)
        if self.budget_mib is not None and not first:
            assert used + self.store[name].weights_bytes <= self.budget_mib * MIB
        if name in self.slow:
            await self.slow[name].wait()
        if name in self.broken:
            raise self.broken[name]
        weights = Weights(name, self.specs[name])
        self.live.add(weights)
        return cast(Autoencoder, weights)

    async def open(self) -> ModelStore:
        await self.store.open(self.sources)
        return self.store

    async def use(self, name: str, caller: Caller = CALLER) -> None:
        """Ask for a model and give it back at once."""
        async with self.store.hold(name, caller) as held:
            assert cast(Any, held.model).name == name
            assert self.store[name].loaded

    def make_slow(self, name: str) -> asyncio.Event:
        self.slow[name] = asyncio.Event()
        return self.slow[name]

    @property
    def loaded(self) -> list[str]:
        return [name for name, model in self.store.items() if model.loaded]

    def metric(self, name: str, model: str) -> float:
        value = self.metrics.registry.get_sample_value(f"latentwire_model_{name}", {"model": model})
        assert value is not None
        return value


def spec(name: str, mib: int) -> AutoencoderSpec:
    return spec_with(latent_space=name, weights_digest=name * 64, parameters=mib * MIB // 4, weights_bytes=mib * MIB)


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("latentwire"), "propagate", True)
    caplog.set_level(logging.INFO, "latentwire")
    return caplog


# At the start


async def test_without_a_budget_every_model_is_loaded_at_the_start_and_stays() -> None:
    disk = Disk(None, a=900, b=900, c=900)
    await disk.open()
    for name in "abcabc":
        await disk.use(name)
    assert disk.loads == disk.loaded == ["a", "b", "c"]


async def test_models_beyond_the_budget_are_checked_at_the_start_and_not_kept() -> None:
    disk = Disk(8, a=3, b=6, c=5)
    store = await disk.open()
    assert disk.loads == ["a", "b", "c"]
    assert disk.loaded == ["a", "c"]
    assert [weights.name for weights in disk.live] != ["b"]
    assert {name: model.spec for name, model in store.items()} == disk.specs


async def test_a_model_larger_than_the_whole_budget_is_refused_with_both_numbers_and_the_remedy() -> None:
    disk = Disk(4, a=3, b=5)
    with pytest.raises(ServerError) as caught:
        await disk.open()
    assert str(caught.value) == (
        "the weights of model 'b' take 5 MiB; all models together may take 4: raise --model-memory, or leave the "
        "model out"
    )


async def test_a_model_that_cannot_be_loaded_at_the_start_ends_it() -> None:
    disk = Disk(None, a=1)
    disk.broken["a"] = CheckpointError("no weights")
    with pytest.raises(CheckpointError, match="no weights"):
        await disk.open()


# On demand


async def test_the_model_used_longest_ago_makes_room() -> None:
    disk = Disk(2, a=1, b=1, c=1)
    await disk.open()
    await disk.use("a")
    await disk.use("c")
    assert disk.loaded == ["a", "c"]
    await disk.use("b")
    assert disk.loaded == ["b", "c"]
    await disk.use("c")
    await disk.use("a")
    assert disk.loaded == ["a", "c"]
    assert disk.loads == [*"abc", *"cba"]
    assert sorted(weights.name for weights in disk.live) == ["a", "c"]


async def test_as_many_models_go_as_are_needed_and_no_more() -> None:
    disk = Disk(4, a=1, b=1, c=2, d=2)
    await disk.open()
    await disk.use("d")
    assert disk.loaded == ["c", "d"]
    await disk.use("a")
    assert disk.loaded == ["a", "d"]


async def test_requests_for_a_model_that_is_being_loaded_wait_for_one_load() -> None:
    disk = Disk(1, a=1, b=1)
    await disk.open()
    go_on = disk.make_slow("b")
    waiting = [asyncio.create_task(disk.use("b")) for _ in range(5)]
    await settled()
    assert not any(task.done() for task in waiting)
    assert disk.loaded == []
    go_on.set()
    await asyncio.gather(*waiting)
    assert disk.loads == ["a", "b", "b"]


async def test_a_load_keeps_no_request_for_a_loaded_model_waiting() -> None:
    disk = Disk(3, a=1, b=1, c=1, d=1)
    await disk.open()
    go_on = disk.make_slow("d")
    waiting = asyncio.create_task(disk.use("d"))
    await settled()
    await disk.use("b")
    await disk.use("c")
    assert not waiting.done()
    go_on.set()
    await waiting


async def test_a_request_under_way_keeps_its_model_and_the_other_waits_for_it() -> None:
    disk = Disk(1, a=1, b=1)
    await disk.open()
    async with disk.store.hold("a", CALLER) as held:
        waiting = asyncio.create_task(disk.use("b"))
        await settled()
        assert not waiting.done()
        assert cast(Any, held.model).name == "a"
        assert disk.loads == ["a", "b"]
    del held
    await waiting
    assert disk.loaded == ["b"]


async def test_a_batch_that_its_request_left_behind_keeps_its_model() -> None:
    disk = Disk(1, a=1, b=1)
    await disk.open()
    async with AsyncExitStack() as batch:
        async with disk.store.hold("a", CALLER) as held:
            batch.enter_context(disk.store.at_work(held.model))
        del held
        waiting = asyncio.create_task(disk.use("b"))
        await settled()
        assert disk.loads == ["a", "b"]
    await waiting
    assert disk.loaded == ["b"]


async def test_a_model_in_constant_use_keeps_no_other_out() -> None:
    disk = Disk(1, a=1, b=1)
    await disk.open()
    async with AsyncExitStack() as first:
        await first.enter_async_context(disk.store.hold("a", CALLER))
        other = asyncio.create_task(disk.use("b"))
        await settled()
        # New requests for the model do not join the evicted weights: their turn comes after the other model's.
        late = asyncio.create_task(disk.use("a"))
        await settled()
        assert not other.done()
        assert not late.done()
    await asyncio.gather(other, late)
    assert disk.loads == [*"ab", *"ba"]


async def test_the_wait_for_the_weights_is_told() -> None:
    disk = Disk(1, a=1, b=1)
    await disk.open()
    go_on = disk.make_slow("b")

    async def waited_ns() -> int:
        async with disk.store.hold("b", CALLER) as held:
            return held.waited_ns

    began_ns = time.monotonic_ns()
    waiting = asyncio.create_task(waited_ns())
    await settled()
    seen_ns = time.monotonic_ns() - began_ns
    go_on.set()
    assert await waiting >= seen_ns / 2
    assert await waited_ns() < time.monotonic_ns() - began_ns


async def test_an_unknown_name_loads_nothing() -> None:
    disk = Disk(None, a=1)
    store = await disk.open()
    for name in ("b", "/models/a", "../a", ""):
        with pytest.raises(KeyError):
            await disk.use(name)
    assert (list(store), len(store), disk.loads) == (["a"], 1, ["a"])


# Deadlines and failures


async def test_a_deadline_that_passes_during_a_load_ends_the_wait_and_not_the_load() -> None:
    disk = Disk(1, a=1, b=1)
    await disk.open()
    go_on = disk.make_slow("b")
    hurried = Caller("hurried", deadline=time.monotonic() + 0.01)
    with pytest.raises(DeadlineExceeded, match="while model 'b' was being loaded"):
        await disk.use("b", hurried)
    go_on.set()
    await settled()
    assert disk.loaded == ["b"]
    await disk.use("a")
    assert disk.loads == [*"ab", *"ba"]


async def test_a_caller_who_gives_up_leaves_the_model_free_to_go() -> None:
    disk = Disk(1, a=1, b=1)
    await disk.open()
    go_on = disk.make_slow("b")
    waiting = asyncio.create_task(disk.use("b"))
    await settled()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    go_on.set()
    await disk.use("a")
    assert disk.loaded == ["a"]


async def test_a_load_that_nobody_waits_for_any_more_evicts_nothing() -> None:
    disk = Disk(1, a=1, b=1)
    store = await disk.open()
    async with store.hold("a", CALLER):
        waiting = asyncio.create_task(disk.use("b"))
        await settled()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await settled()
        await disk.use("a")
    await settled()
    assert disk.loaded == ["a"]
    assert disk.loads == [*"ab"]  # the loads at the start
    await disk.use("b")
    assert disk.loads == [*"ab", "b"]


@pytest.mark.parametrize("error", [CheckpointError("/models/b is gone"), MemoryError("none left")])
async def test_a_load_that_fails_is_told_to_all_who_wait_and_logged_with_its_reason(
    error: Exception, log: pytest.LogCaptureFixture
) -> None:
    disk = Disk(1, a=1, b=1)
    await disk.open()
    disk.broken["b"] = error
    results = await asyncio.gather(*(disk.use("b") for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ModelUnavailable] * 3
    assert str(results[0]).startswith("model 'b' cannot be loaded now; the server's log says why.")
    assert "/models" not in str(results[0])
    assert disk.loads == [*"ab", "b"]
    (record,) = [record for record in log.records if record.levelno == logging.ERROR]
    assert record.getMessage() == f"b cannot be loaded: {error}"
    assert bool(record.exc_info) == isinstance(error, MemoryError)
    assert disk.metric("load_failures_total", "b") == 1


async def test_a_load_that_failed_stands_for_a_while_and_is_tried_again_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "REST_S", 0.05)
    disk = Disk(1, a=1, b=1)
    await disk.open()
    disk.broken["b"] = CheckpointError("for a moment")
    for _ in range(3):
        with pytest.raises(ModelUnavailable):
            await disk.use("b")
    assert disk.loads == [*"ab", "b"]
    await disk.use("a")
    disk.broken.clear()
    await until_async(lambda: disk.store["b"].residency is None)
    await disk.use("b")
    assert disk.loaded == ["b"]


async def test_a_model_that_changed_on_disk_is_refused_and_what_changed_is_logged(
    log: pytest.LogCaptureFixture,
) -> None:
    disk = Disk(1, a=1, b=1)
    await disk.open()
    disk.specs["b"] = replace(disk.specs["b"], weights_digest="f" * 64, scale=(2.0,))
    with pytest.raises(ModelUnavailable):
        await disk.use("b")
    assert not disk.store["b"].loaded
    (record,) = [record for record in log.records if record.levelno == logging.ERROR]
    assert record.getMessage() == (
        "b cannot be loaded: /models/b changed since the server started (its weights_digest, scale; the weights were "
        "bbbbbbbbbbbb, are ffffffffffff); put it back, or restart the server"
    )


async def test_closing_begins_no_further_load_and_waits_for_none() -> None:
    disk = Disk(1, a=1, b=1, c=1)
    store = await disk.open()
    disk.make_slow("b")
    waiting = [asyncio.create_task(disk.use(name)) for name in "bc"]
    await settled()
    await store.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [ModelUnavailable] * 2
    assert disk.loads == [*"abc", "b"]


# What an operator sees


async def test_metrics_show_what_is_in_memory_and_what_came_and_went() -> None:
    disk = Disk(1, a=1, b=1)
    await disk.open()
    assert [disk.metric("loaded", name) for name in "ab"] == [1, 0]
    assert [disk.metric("weights_bytes", name) for name in "ab"] == [MIB, 0]
    assert [disk.metric("load_seconds_count", name) for name in "ab"] == [1, 0]
    for name in "bab":
        await disk.use(name)
    assert [disk.metric("loaded", name) for name in "ab"] == [0, 1]
    assert [disk.metric("weights_bytes", name) for name in "ab"] == [0, MIB]
    assert [disk.metric("load_seconds_count", name) for name in "ab"] == [2, 2]
    assert [disk.metric("evictions_total", name) for name in "ab"] == [2, 1]
    assert [disk.metric("load_failures_total", name) for name in "ab"] == [0, 0]


async def test_the_log_says_what_is_being_loaded_and_loaded_checked_and_evicted(log: pytest.LogCaptureFixture) -> None:
    disk = Disk(1, a=1, b=1)
    await disk.open()
    await disk.use("b")
    lines = [record.getMessage() for record in log.records]
    assert [line.split(":")[0].split(",")[0] for line in lines] == [
        "loading a from /models/a", "loaded a", "loading b from /models/b", "checked b",
        "evicted a", "loading b from /models/b", "loaded b",
    ]  # fmt: skip
    assert lines[3] == (
        "checked b: AutoencoderKL, weights bbbbbbbbbbbb, 1 MiB, float32 on cpu; it is loaded when it is asked for, in "
        "the place of another"
    )


# Whatever is asked for


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    budget=st.integers(4, 10),
    requests=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 6)), max_size=30),
)
def test_all_requests_are_served_and_the_budget_is_kept(
    sizes: list[int], budget: int, requests: list[tuple[int, int, int]]
) -> None:
    async def run() -> None:
        # `Disk.load` asserts the budget.
        disk = Disk(budget, **{"abcde"[index]: size for index, size in enumerate(sizes)})
        await disk.open()

        async def request(index: int, begins: int, lasts: int) -> None:
            for _ in range(begins):
                await asyncio.sleep(0)
            name = "abcde"[index % len(sizes)]
            async with disk.store.hold(name, CALLER) as held:
                for _ in range(lasts):
                    await asyncio.sleep(0)
                    assert cast(Any, held.model) in disk.live
                    assert cast(Any, held.model).name == name

        await asyncio.gather(*(request(*each) for each in requests))
        assert sum(disk.store[weights.name].weights_bytes for weights in disk.live) <= budget * MIB

    asyncio.run(run())
