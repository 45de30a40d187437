# SPDX-License-Identifier: Apache-2.0
"""Servers that are killed while they answer: the client says so or asks the next one; no item is lost or doubled."""

import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from subprocess import Popen

import numpy as np
import psutil
import pytest

from latentwire_client import Client, LatentwireError
from latentwire_client.config import Limits, Retry
from tests.waiting import until

StartServer = Callable[..., AbstractContextManager[tuple["Popen[str]", str]]]
IMAGES = [np.full((64, 64, 3), level, np.uint8) for level in range(60)]
PATIENT = Retry(reconnect_s=250)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_client_whose_server_is_killed_in_a_stream_is_told_and_has_what_was_answered(
    start_server: StartServer, tiny_kl: Path
) -> None:
    with start_server("--model", f"tiny={tiny_kl}") as (process, target):
        with Client(target, retry=Retry(attempts=1, reconnect_s=1), limits=Limits(in_flight=4)) as client:
            stream = client.encode_stream(IMAGES)
            seen = [next(stream).get() for _ in range(5)]
            process.kill()
            with pytest.raises(LatentwireError, match=target):
                seen += [item.get() for item in stream]
        assert 5 <= len(seen) < len(IMAGES)


def test_each_item_of_a_stream_is_answered_once_when_its_server_is_killed_and_another_takes_its_place(
    start_server: StartServer, tiny_kl: Path
) -> None:
    port = str(free_port())
    flags = ("--model", f"tiny={tiny_kl}", "--port", port)
    with ExitStack() as servers:
        process, target = servers.enter_context(start_server(*flags))
        with Client(target, retry=PATIENT, limits=Limits(in_flight=4)) as client:
            expected = [client.encode(image).values for image in IMAGES[:3]]
            stream = client.encode_stream(IMAGES)
            items = [next(stream) for _ in range(5)]
            process.kill()
            process.wait()
            thread = threading.Thread(target=lambda: servers.enter_context(start_server(*flags)))
            thread.start()
            items += stream
            thread.join()
    assert [item.error for item in items if item.error] == []
    assert sorted(item.index for item in items) == list(range(len(IMAGES)))
    for item in items:
        if item.index < len(expected):
            np.testing.assert_array_equal(item.get().values, expected[item.index])


def test_when_a_worker_is_killed_in_a_stream_the_stream_goes_on_and_other_connections_notice_nothing(
    start_server: StartServer, tiny_kl: Path
) -> None:
    with start_server("--model", f"tiny={tiny_kl}", "--workers", "2", "--device", "cpu") as (process, target):
        workers = psutil.Process(process.pid).children()
        before = [worker.cpu_times().user for worker in workers]
        with Client(target, retry=PATIENT, limits=Limits(in_flight=4)) as client:
            stream = client.encode_stream(IMAGES)
            items = [next(stream) for _ in range(20)]
            spent = [worker.cpu_times().user - was for worker, was in zip(workers, before, strict=True)]
            busy, other = sorted(range(2), key=lambda number: -spent[number])
            workers[busy].kill()
            for _ in range(10):  # a connection to the other worker, or to the one that takes the place
                with Client(target, retry=PATIENT) as neighbour:
                    neighbour.encode(IMAGES[0])
            items += stream
        assert [item.error for item in items if item.error] == []
        assert sorted(item.index for item in items) == list(range(len(IMAGES)))
        assert workers[other].is_running()
        until(lambda: len(psutil.Process(process.pid).children()) == 2)
