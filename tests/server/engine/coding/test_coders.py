# SPDX-License-Identifier: Apache-2.0
"""Image files become pixels, and pixels files, in processes: what each costs stays with its own caller."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from latentwire_codec.images.files import ImageLimits, read_image
from latentwire_codec.images.writing import write_image
from latentwire_core.errors import ImageError
from latentwire_core.formats import ImageFormat
from latentwire_server.engine.coding import coders as coders_module
from latentwire_server.engine.coding import process as process_module
from latentwire_server.engine.coding.clock import Clock
from latentwire_server.engine.coding.coders import Coders, Reading
from latentwire_server.engine.coding.process import CodingProcess, Crashed
from latentwire_server.engine.jobs import Caller, FileOutput
from latentwire_server.errors import DeadlineExceeded, ServerError
from tests.waiting import until_async

LIMITS = ImageLimits()
CALLER, OTHER = Caller("client"), Caller("other")
PNG = FileOutput(ImageFormat.PNG)


def picture(height: int, width: int) -> Any:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


SMALL, LARGE = picture(5, 7), picture(1024, 1025)
FILE, LARGE_FILE = write_image(SMALL), write_image(LARGE, ImageFormat.JPEG)


def reading(file: bytes = FILE, admit: Any = lambda width, height: True) -> Reading:
    return Reading(file, LIMITS, None, admit)


@asynccontextmanager
async def coding(workers: int = 1, most_pixels: int = LIMITS.max_pixels) -> AsyncIterator[Coders]:
    coders = Coders(workers, most_pixels)
    try:
        yield coders
    finally:
        await coders.close()


def at_work(coders: Coders) -> list[int]:
    return [process._process.pid for process in coders._busy]


class Stuck:
    """Stops each process in the moment in which it is asked to do something: its answer never comes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, do: str) -> None:
        self.pids: list[int] = []
        ask = CodingProcess.ask

        async def watched(process: CodingProcess, head: dict[str, Any], *given: Any) -> Any:
            if head["do"] == do:
                self.pids.append(process._process.pid)
                os.kill(process._process.pid, signal.SIGSTOP)
            return await ask(process, head, *given)

        monkeypatch.setattr(CodingProcess, "ask", watched)


async def gone(pid: int) -> None:
    await until_async(lambda: not os.path.exists(f"/proc/{pid}") or _is_zombie(pid))


def _is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("file", [FILE, LARGE_FILE], ids=["small", "large"])
async def test_a_file_becomes_its_pixels(file: bytes) -> None:
    sizes: list[tuple[int, int]] = []

    def admit(width: int, height: int) -> bool:
        sizes.append((width, height))
        return True

    clock = Clock()
    async with coding() as coders:
        pixels = await coders.read(reading(file, admit), CALLER, clock)
    expected = read_image(file)
    assert pixels is not None
    assert np.array_equal(pixels, expected)
    assert pixels.flags.writeable
    assert sizes == [expected.shape[1::-1]]
    assert clock.worked_ns > 0


@pytest.mark.parametrize("pixels", [SMALL, LARGE], ids=["small", "large"])
async def test_pixels_become_a_file_of_their_top_left_part(pixels: Any) -> None:
    async with coding() as coders:
        file = await coders.write(pixels, (4, 5), PNG, CALLER, Clock())
    assert np.array_equal(read_image(file), pixels[:4, :5])


async def test_a_file_without_memory_for_its_pixels_leaves_the_process_to_others() -> None:
    async with coding() as coders:
        assert await coders.read(reading(admit=lambda width, height: False), CALLER, Clock()) is None
        (idle,) = coders._small.idle
        assert not (await idle).holds_image
        assert await coders.read(reading(), OTHER, Clock()) is not None
        assert coders._small.idle[0].result() is idle.result()


async def test_a_refused_file_costs_no_process() -> None:
    def refuse(width: int, height: int) -> bool:
        raise ValueError("too large")

    async with coding() as coders:
        with pytest.raises(ImageError, match="not an image"):
            await coders.read(reading(b"no file"), CALLER, Clock())
        (first,) = coders._small.idle
        with pytest.raises(ValueError, match="too large"):
            await coders.read(reading(admit=refuse), CALLER, Clock())
        (second,) = coders._small.idle
        assert first.result() is second.result()
        assert await coders.read(reading(), CALLER, Clock()) is not None


@pytest.mark.parametrize("ending", ["cancelled", "deadline"])
@pytest.mark.parametrize("do", ["open", "read", "write"])
async def test_a_caller_that_goes_ends_the_process_and_the_next_has_another(
    monkeypatch: pytest.MonkeyPatch, do: str, ending: str
) -> None:
    stuck = Stuck(monkeypatch, do)
    monkeypatch.setattr(coders_module, "SMALL_S", None)
    async with coding() as coders:
        caller = CALLER.within(0.2) if ending == "deadline" else CALLER
        if do == "write":
            work: asyncio.Future[Any] = asyncio.ensure_future(coders.write(SMALL, (4, 5), PNG, caller, Clock()))
        else:
            work = asyncio.ensure_future(coders.read(reading(), caller, Clock()))
        if ending == "cancelled":
            await until_async(lambda: stuck.pids)
            work.cancel()
        error: object = (await asyncio.gather(work, return_exceptions=True))[0]
        assert isinstance(error, DeadlineExceeded if ending == "deadline" else asyncio.CancelledError)
        for pid in stuck.pids:
            await gone(pid)
        assert not coders._busy
        monkeypatch.undo()
        assert await coders.read(reading(), CALLER, Clock()) is not None


async def test_a_caller_that_goes_while_its_process_starts_leaves_it_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts: list[tuple[int, ...]] = []
    start = CodingProcess.start

    async def counted(*given: int) -> CodingProcess:
        starts.append(given)
        return await start(*given)

    monkeypatch.setattr(CodingProcess, "start", counted)
    async with coding() as coders:
        for _ in range(20):
            work = asyncio.ensure_future(coders.read(reading(), CALLER, Clock()))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        assert await coders.read(reading(), CALLER, Clock()) is not None
    assert len(starts) == 1


async def test_a_small_image_waits_for_no_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with coding(workers=2) as coders:
        stuck = Stuck(monkeypatch, "open")
        large = [
            asyncio.ensure_future(coders.read(reading(LARGE_FILE + bytes(2**23)), Caller(f"{n}"), Clock()))
            for n in range(4)
        ]
        await until_async(lambda: len(stuck.pids) == 2)
        monkeypatch.undo()
        assert await coders.read(reading(), CALLER, Clock()) is not None
        for task in large:
            task.cancel()
        await asyncio.gather(*large, return_exceptions=True)


@pytest.mark.parametrize("do", ["read", "write"])
async def test_a_small_image_that_takes_long_begins_anew_among_the_large_ones(
    monkeypatch: pytest.MonkeyPatch, do: str
) -> None:
    asked: list[str] = []
    ask = CodingProcess.ask

    async def slow_at_first(process: CodingProcess, head: dict[str, Any], *given: Any) -> Any:
        asked.append(head["do"])
        if asked.count(do) == 1 and head["do"] == do:
            os.kill(process._process.pid, signal.SIGSTOP)
        return await ask(process, head, *given)

    monkeypatch.setattr(CodingProcess, "ask", slow_at_first)
    monkeypatch.setattr(coders_module, "SMALL_S", 0.05)
    async with coding() as coders:
        if do == "write":
            assert await coders.write(SMALL, (5, 7), PNG, CALLER, Clock()) == write_image(SMALL)
        else:
            assert np.array_equal(await coders.read(reading(), CALLER, Clock()), SMALL)  # type: ignore[arg-type]
        assert not coders._small.idle
        assert len(coders._large.idle) == 1


async def test_a_client_with_slow_files_leaves_a_process_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async with coding(workers=2) as coders:
        stuck = Stuck(monkeypatch, "open")
        monkeypatch.setattr(coders_module, "SMALL_S", None)
        slow = [asyncio.ensure_future(coders.read(reading(), CALLER, Clock())) for _ in range(6)]
        await until_async(lambda: len(stuck.pids) == 2)
        monkeypatch.undo()
        assert await coders.read(reading(), OTHER, Clock()) is not None
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)


async def test_a_decoder_that_crashes_costs_its_own_file_only(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = CodingProcess.ask

    async def crashing(process: CodingProcess, head: dict[str, Any], *given: Any) -> Any:
        if head["do"] == "read":
            os.kill(process._process.pid, signal.SIGSEGV)
        return await ask(process, head, *given)

    async with coding() as coders:
        monkeypatch.setattr(CodingProcess, "ask", crashing)
        with pytest.raises(ImageError, match=f"image file of {len(FILE)} bytes .* was ended by signal 11; save"):
            await coders.read(reading(), CALLER, Clock())
        monkeypatch.undo()
        assert await coders.read(reading(), CALLER, Clock()) is not None


async def test_a_process_that_ended_while_nobody_used_it_is_replaced() -> None:
    async with coding() as coders:
        await coders.start()
        process = coders._small.idle[0].result()
        os.kill(process._process.pid, signal.SIGKILL)
        await until_async(lambda: not process.is_ready)
        assert await coders.read(reading(), CALLER, Clock()) is not None


@pytest.mark.parametrize("do", ["read", "write"])
async def test_a_process_killed_an_instant_before_its_use_costs_no_file(
    monkeypatch: pytest.MonkeyPatch, do: str
) -> None:
    ask = CodingProcess.ask
    killed: list[CodingProcess] = []

    async def killed_before(process: CodingProcess, *given: Any) -> Any:
        if process in idle:
            killed.append(process)
            os.kill(process._process.pid, signal.SIGKILL)
        return await ask(process, *given)

    async with coding(workers=2) as coders:
        async with coders._process(coders._small), coders._process(coders._small):
            pass
        idle = [each.result() for each in coders._small.idle]
        assert len(idle) == 2  # the second attempt takes neither
        monkeypatch.setattr(CodingProcess, "ask", killed_before)
        if do == "read":
            assert np.array_equal(await coders.read(reading(), CALLER, Clock()), SMALL)  # type: ignore[arg-type]
        else:
            assert await coders.write(SMALL, (5, 7), PNG, CALLER, Clock()) == write_image(SMALL)
        assert len(killed) == 1


@pytest.mark.parametrize(("do", "processes"), [("open", 2), ("read", 1)])
async def test_a_file_that_crashes_every_decoder_is_refused(
    monkeypatch: pytest.MonkeyPatch, do: str, processes: int
) -> None:
    ask = CodingProcess.ask
    crashed: list[CodingProcess] = []

    async def crashing(process: CodingProcess, head: dict[str, Any], *given: Any) -> Any:
        if head["do"] == do:
            crashed.append(process)
            os.kill(process._process.pid, signal.SIGSEGV)
        return await ask(process, head, *given)

    monkeypatch.setattr(CodingProcess, "ask", crashing)
    async with coding() as coders:
        with pytest.raises(ImageError, match="crashed its decoder, whose process was ended by signal 11"):
            await coders.read(reading(), CALLER, Clock())
        assert len(crashed) == processes


async def test_a_process_that_dies_while_it_drops_an_image_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = CodingProcess.ask

    async def killed_at_drop(process: CodingProcess, head: dict[str, Any], *given: Any) -> Any:
        if head["do"] == "drop":
            os.kill(process._process.pid, signal.SIGKILL)
        return await ask(process, head, *given)

    monkeypatch.setattr(CodingProcess, "ask", killed_at_drop)
    async with coding() as coders:
        assert await coders.read(reading(admit=lambda width, height: False), CALLER, Clock()) is None
        assert not coders._small.idle


async def test_large_images_yield_to_the_model_and_small_ones_do_not() -> None:
    async with coding() as coders:
        for lane, yields in ((coders._small, 0), (coders._large, 10)):
            async with coders._process(lane) as process:
                assert os.getpriority(os.PRIO_PROCESS, process._process.pid) == min(19, os.nice(0) + yields)


async def test_an_encoder_that_crashes_is_a_fault_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async with coding() as coders:
        await coders.start()
        ask = CodingProcess.ask

        async def crashing(process: CodingProcess, *given: Any) -> Any:
            os.kill(process._process.pid, signal.SIGKILL)
            return await ask(process, *given)

        monkeypatch.setattr(CodingProcess, "ask", crashing)
        with pytest.raises(Crashed, match="was ended by signal 9"):
            await coders.write(SMALL, (5, 7), PNG, CALLER, Clock())


async def test_a_file_that_takes_more_memory_than_an_image_may_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coders_module, "PROCESS_BYTES", 300 << 20)
    monkeypatch.setattr(coders_module, "CORE_BYTES", 0)
    huge = write_image(np.zeros((8192, 8192, 3), np.uint8), ImageFormat.JPEG)
    async with coding(most_pixels=1) as coders:
        with pytest.raises(ImageError, match="takes more than the 300 MiB of memory"):
            await coders.read(Reading(huge, ImageLimits(8192, 2**26), None, lambda *_: True), CALLER, Clock())


async def test_a_process_that_cannot_start_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async with coding() as coders:
        monkeypatch.setattr(process_module, "MAIN", "raise SystemExit(3)")
        with pytest.raises(ServerError, match="ended with status 3 before it was ready"):
            await coders.start()
        monkeypatch.setattr(sys, "executable", "/no/such/program")
        with pytest.raises(ServerError, match="No such file"):
            await coders.start()


@pytest.mark.parametrize("do", ["open", "nothing"])
async def test_the_end_waits_for_nobodys_decoding(monkeypatch: pytest.MonkeyPatch, do: str) -> None:
    coders = Coders(1, LIMITS.max_pixels)
    await coders.start()
    pids = [coders._small.idle[0].result()._process.pid]
    stuck = Stuck(monkeypatch, do)
    monkeypatch.setattr(coders_module, "SMALL_S", None)
    work = asyncio.ensure_future(coders.read(reading(), CALLER, Clock()))
    if do == "open":
        await until_async(lambda: stuck.pids)
    else:
        await work
    await coders.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    # Whoever still waits is told: nobody waits for ever.
    (outcome,) = await asyncio.gather(work, return_exceptions=True)
    assert isinstance(outcome, ImageError) == (do == "open")
