# SPDX-License-Identifier: Apache-2.0
"""More requests than the server has room for, and the end of the server under load."""

import asyncio
import gc
import signal
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from subprocess import Popen
from typing import Any

import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from latentwire_client import AsyncClient, Client, LatentwireError, Limits, Overloaded, Retry, Unavailable
from latentwire_server.app import background
from latentwire_server.config import ModelSource, ServerConfig
from tests.waiting import gate, until, until_async

StartServer = Callable[..., AbstractContextManager[tuple["Popen[str]", str]]]
ONCE = Retry(attempts=1)


def image(side: int) -> "np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]":
    return np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def accepted_encodes(port: int) -> float:
    """Return how many images are in the queue, at work or answered."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        samples = [s for family in text_string_to_metric_families(page.read().decode()) for s in family.samples]
    answered = {"method": "Encode", "code": "OK"}
    return sum(s.value for s in samples if s.name == "latentwire_queue_images" or s.labels == answered)


def test_256_concurrent_requests_against_a_queue_of_32_end_as_ok_or_exhausted_and_memory_returns(
    start_server: StartServer,
) -> None:
    async def burst(target: str, count: int) -> Counter[str]:
        async with AsyncClient(target, retry=ONCE) as client:
            outcomes = await asyncio.gather(*(client.encode(image(256)) for _ in range(count)), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Overloaded):
                assert outcome.retry_after_s > 0
                assert "--max-queue" in outcome.details
        return Counter(type(outcome).__name__ for outcome in outcomes)

    with start_server("--max-queue", "32") as (process, target):
        memory = psutil.Process(process.pid).memory_info
        asyncio.run(burst(target, 256))  # allocates what the server keeps
        before = memory().rss
        for _ in range(3):
            outcomes = asyncio.run(burst(target, 256))
            assert set(outcomes) == {"Latents", "Overloaded"}
            assert outcomes["Latents"] >= 24  # the places that one client may hold
        # The images of one burst take 50 MB; a leak would show three times.
        assert memory().rss - before < 50 * 2**20
        with Client(target) as client:
            assert client.is_healthy()


def test_one_client_s_flood_leaves_a_place_for_another(tiny_kl: Path) -> None:
    config = ServerConfig(models=(ModelSource("tiny", str(tiny_kl)),), port=0, max_queue=16)
    with background(config) as server:
        target = f"127.0.0.1:{server.port}"
        stop = threading.Event()

        def flood() -> None:
            async def run() -> None:
                async with AsyncClient(target, retry=ONCE) as client:
                    while not stop.is_set():
                        await asyncio.gather(*(client.encode(image(128)) for _ in range(64)), return_exceptions=True)

            asyncio.run(run())

        flooder = threading.Thread(target=flood)
        flooder.start()
        try:
            with Client(target, retry=ONCE) as client:
                for _ in range(10):  # never Overloaded
                    assert len(client.encode(image(64))) == 1
        finally:
            stop.set()
            flooder.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_no_accepted_request_and_exits_0(
    start_server: StartServer, number: signal.Signals
) -> None:
    port = free_port()
    with start_server("--max-queue", "64", "--metrics-port", str(port)) as (process, target):

        async def load() -> list[object]:
            async with AsyncClient(target, retry=ONCE) as client:
                requests = [asyncio.create_task(client.encode(image(256))) for _ in range(24)]
                await asyncio.to_thread(until, lambda: accepted_encodes(port) >= len(requests))
                process.send_signal(number)
                late: list[object] = []
                while process.poll() is None:
                    try:
                        late.append(await client.encode(image(64)))
                    except LatentwireError as error:
                        late.append(error)
                    await asyncio.sleep(0.02)
                accepted = await asyncio.gather(*requests)
                assert len(accepted) == 24  # gather would have raised
                return late

        late = asyncio.run(load())
        assert process.wait() == 0
        assert any(isinstance(outcome, Unavailable) for outcome in late)
        assert [
            outcome for outcome in late if isinstance(outcome, Exception) and type(outcome) is not Unavailable
        ] == []


def test_a_drain_that_takes_too_long_ends_the_process_with_1(start_server: StartServer) -> None:
    port = free_port()
    with start_server("--drain-timeout-s", "0.1", "--metrics-port", str(port)) as (process, target):
        # Seconds of work.
        pixels = np.zeros((2048, 2048, 3), np.uint8)

        async def load() -> object:
            async with AsyncClient(target, retry=ONCE) as client:
                accepted = asyncio.create_task(client.encode(pixels))
                await asyncio.to_thread(until, lambda: accepted_encodes(port))
                process.send_signal(signal.SIGTERM)
                return (await asyncio.gather(accepted, return_exceptions=True))[0]

        outcome = asyncio.run(load())
        assert process.wait() == 1
        assert isinstance(outcome, LatentwireError)


def test_items_that_a_stream_had_sent_when_the_server_went_away_are_answered_by_the_next_server(
    tiny_kl: Path,
) -> None:
    config = ServerConfig(models=(ModelSource("tiny", str(tiny_kl)),), port=0)
    retry = Retry(attempts=5, initial_backoff_s=5, max_backoff_s=5)
    first, second = ExitStack(), ExitStack()
    server = first.enter_context(background(config))
    port = server.port

    def restart() -> None:
        first.close()
        second.enter_context(background(replace(config, port=port)))

    with Client(f"127.0.0.1:{port}", retry=retry, limits=Limits(in_flight=4)) as client:
        stream = client.encode_stream([image(128)] * 60)
        seen = [next(stream).get() and index for index in range(5)]
        thread = threading.Thread(target=restart)
        thread.start()
        rest = list(stream)
        thread.join()
    second.close()
    assert [item.error for item in rest if item.error] == []
    assert len(seen) + len(rest) == 60
    assert len({item.index for item in rest}) == len(rest)


def test_a_request_whose_client_gives_up_leaves_the_queue(tiny_kl: Path) -> None:
    config = ServerConfig(models=(ModelSource("tiny", str(tiny_kl)),), port=0, max_queue=64)
    batches: list[int] = []
    with background(config) as server, gate() as go_on:
        places, batcher = server._engine.places, server._engine._batcher
        run = batcher._run

        async def run_later(key: Any, payloads: Any) -> Any:
            batches.append(len(payloads))
            await asyncio.to_thread(go_on.wait)
            return await run(key, payloads)

        batcher._run = run_later

        async def give_up() -> None:
            async with AsyncClient(f"127.0.0.1:{server.port}", retry=ONCE) as client:
                requests = [asyncio.create_task(client.encode(image(512))) for _ in range(32)]
                await until_async(lambda: places.held == 32 and batches)
                for request in requests:
                    request.cancel()
                await asyncio.gather(*requests, return_exceptions=True)
                await until_async(lambda: places.held == 0)
                last = asyncio.create_task(client.encode(image(8)))
                await until_async(lambda: places.held == 1)
                go_on.set()
                await last

        asyncio.run(give_up())
        until(lambda: places.held == 0)
        assert len(batcher) == 0
        # The batch at work when the others were given up, and the last request.
        assert len(batches) == 2
    gc.collect()
