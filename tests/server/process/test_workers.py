# SPDX-License-Identifier: Apache-2.0
"""Workers are started, watched and restarted; the tests run small scripts in their place."""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from latentwire_core.errors import CheckpointError
from latentwire_server.config import ServerConfig
from latentwire_server.errors import ServerError
from latentwire_server.process import workers
from latentwire_server.process.ports import Ports, check_free, reserve
from latentwire_server.process.workers import Assignment, Worker, run_workers
from tests.waiting import until, until_async

# Stands in for the worker's `main`: `answer` writes to the parent, and `end` returns when the parent closes the pipe.
STAND_IN = """
import os, pickle, sys
from pathlib import Path
from latentwire_core.errors import CheckpointError
from latentwire_server.process.ports import Ports
assignment = pickle.load(sys.stdin.buffer)
config = assignment.config
starts = Path({folder!r}) / "starts"
with starts.open("a") as file:
    file.write(f"{{config.device}} {{config.port}} {{config.metrics_port}}\\n")
start = len(starts.read_text().splitlines())
def answer(outcome):
    sys.stdout.buffer.write(pickle.dumps(outcome))
    os.close(1)
end = sys.stdin.buffer.read
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Path]:
    """Let workers run a script; give the file in which each start is a line: device, port, metrics port."""

    def stand_in(script: str) -> Path:
        monkeypatch.setattr(workers, "MAIN", STAND_IN.format(folder=str(tmp_path)) + script)
        monkeypatch.setattr(workers, "FIRST_PAUSE_S", 0.01)
        return tmp_path / "starts"

    return stand_in


def worker(config: ServerConfig | None = None) -> Worker:
    return Worker(Assignment(number=0, workers=1, config=config or ServerConfig(), log_format="text"))


async def test_a_worker_says_where_it_listens_and_ends_when_it_is_asked_to(stand_in: Callable[[str], Path]) -> None:
    stand_in("answer(Ports(config.port, 0, ())); end(); raise SystemExit(7)")
    one = worker(ServerConfig(port=4321))
    assert await one.start() == Ports(4321, 0, ())
    one.stop()
    assert await one.ended() == 7


async def test_why_a_worker_cannot_start_is_what_it_says(stand_in: Callable[[str], Path]) -> None:
    stand_in("answer(CheckpointError('no such weights'))")
    with pytest.raises(CheckpointError, match="no such weights"):
        await worker().start()


async def test_a_worker_that_ends_without_a_word_is_told_of_by_its_status(stand_in: Callable[[str], Path]) -> None:
    stand_in("raise SystemExit(3)")
    with pytest.raises(ServerError, match="worker 0 ended with status 3 before it was ready"):
        await worker().start()


async def test_a_worker_that_dies_is_started_again_on_the_same_ports_after_pauses_that_grow(
    stand_in: Callable[[str], Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("latentwire"), "propagate", True)
    starts = stand_in(
        "if start == 3: answer(CheckpointError('gone'))\n"
        "else:\n"
        "    answer(Ports(1, 0, (4242,)))\n"
        "    if start < 4: os.kill(os.getpid(), 9)\n"
        "    end()"
    )
    one = worker(ServerConfig(metrics_port=0))
    await one.start()
    keeping = asyncio.create_task(one.keep())
    await until_async(lambda: len(starts.read_text().splitlines()) == 4)
    one.stop()
    assert await keeping == 0
    assert starts.read_text().splitlines() == ["auto 50051 0", *["auto 50051 4242"] * 3]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == [
        "worker 0 was ended by signal 9; it is started again in 0.01 s",
        "worker 0 was ended by signal 9; it is started again in 0.02 s",
        "worker 0 cannot start: gone",
        "worker 0 ended with status 0; it is started again in 0.04 s",
    ]


async def test_a_worker_that_is_to_end_while_it_starts_ends(stand_in: Callable[[str], Path]) -> None:
    starts = stand_in("end()")
    one = worker()
    starting = asyncio.create_task(one.start())
    await until_async(starts.exists)
    one.stop()
    with pytest.raises(ServerError, match="ended with status 0"):
        await starting


def serve(config: ServerConfig, at_ready: Callable[[Ports], None]) -> int:
    try:
        return run_workers(config, "text", at_ready)
    finally:
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # the loop took its handlers with it


def test_each_worker_gets_its_device_the_ports_and_a_metrics_port_of_its_own(stand_in: Callable[[str], Path]) -> None:
    starts = stand_in("answer(Ports(config.port, config.http_port, (config.metrics_port,))); end()")
    said: list[Ports] = []

    def at_ready(ports: Ports) -> None:
        said.append(ports)
        signal.raise_signal(signal.SIGTERM)

    config = ServerConfig(device="cuda:0,cuda:1", port=0, http_port=0, metrics_port=9100)
    assert serve(config, at_ready) == 0
    (ports,) = said
    assert ports.metrics == (9100, 9101)
    assert min(ports.grpc, ports.http) > 0
    assert set(starts.read_text().splitlines()) == {f"cuda:0 {ports.grpc} 9100", f"cuda:1 {ports.grpc} 9101"}


def test_a_worker_that_ends_with_requests_unanswered_makes_the_status_1(stand_in: Callable[[str], Path]) -> None:
    stand_in("answer(Ports(1, 0, ())); end(); raise SystemExit(assignment.number)")
    config = ServerConfig(workers=2, port=0)
    assert serve(config, lambda ports: signal.raise_signal(signal.SIGINT)) == 1


def test_a_signal_before_the_workers_are_ready_is_no_error(
    stand_in: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    stand_in("os.kill(os.getppid(), 15) if assignment.number else None; end()")
    assert serve(ServerConfig(workers=2, port=0), lambda ports: pytest.fail("it was never ready")) == 0
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_when_one_worker_cannot_start_the_others_end_and_its_reason_is_raised(stand_in: Callable[[str], Path]) -> None:
    stand_in("answer(CheckpointError('no such weights')) if assignment.number == 1 else end()")
    with pytest.raises(CheckpointError, match="no such weights"):
        serve(ServerConfig(workers=2, port=0), lambda ports: None)


def test_a_port_that_is_taken_is_told_before_any_worker_starts(stand_in: Callable[[str], Path]) -> None:
    starts = stand_in("")
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=rf"cannot listen on 127.0.0.1:{port}: .* choose another with --port"):
            serve(ServerConfig(workers=2, port=port), lambda ports: None)
        with pytest.raises(ServerError, match=rf"127.0.0.1:{port}: .* another with --http-port"):
            serve(ServerConfig(workers=2, port=0, http_port=port), lambda ports: None)
    assert not starts.exists()


def test_a_reserved_port_takes_no_connection_and_can_be_shared_and_by_no_other_server() -> None:
    with reserve("127.0.0.1", 0) as reserved:
        port = reserved.getsockname()[1]
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            pass
        listeners = [socket.create_server(("127.0.0.1", port), reuse_port=True) for _ in range(2)]
        with pytest.raises(ServerError, match="cannot listen on"):
            check_free("127.0.0.1", port)
        with pytest.raises(ServerError, match="cannot listen on"):
            reserve("127.0.0.1", port)
        for listener in listeners:
            listener.close()


@contextmanager
def parent() -> Iterator["subprocess.Popen[bytes]"]:
    """A parent in a process of its own, when its two workers are ready."""
    script = (
        "from latentwire_server.process import workers; from latentwire_server.config import ServerConfig\n"
        f"workers.MAIN = {workers.MAIN!r}\n"
        "workers.run_workers(ServerConfig(workers=2, port=0), 'text', lambda ports: print(ports, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_when_the_parent_is_killed_its_workers_end(stand_in: Callable[[str], Path], tmp_path: Path) -> None:
    stand_in("answer(Ports(1, 0, ())); end(); (starts.parent / f'ended {assignment.number}').touch()")
    with parent() as process:
        process.kill()
    ended = [tmp_path / f"ended {number}" for number in range(2)]
    until(lambda: all(path.exists() for path in ended))


def test_a_second_signal_kills_the_workers(stand_in: Callable[[str], Path], tmp_path: Path) -> None:
    stand_in("answer(Ports(1, 0, ())); end(); (starts.parent / 'asked').touch(); __import__('time').sleep(600)")
    with parent() as process:
        children = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGTERM)
        until((tmp_path / "asked").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
    assert psutil.wait_procs(children)[1] == []
