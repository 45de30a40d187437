# SPDX-License-Identifier: Apache-2.0
"""A caller that goes, in whatever stage its request is, frees what the request held: place, memory and process."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from latentwire_codec.images.writing import write_image
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub
from latentwire_server.app import Server, background
from latentwire_server.config import ServerConfig
from latentwire_server.engine.coding import coders
from latentwire_server.engine.coding.process import CodingProcess
from latentwire_server.engine.lane import Lane
from tests.waiting import until

FILE = write_image(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
ENCODE = pb.EncodeRequest(image_file=FILE)
TENSOR = pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[1, 4, 8, 8], data=bytes(4 * 4 * 64))
DECODE = pb.DecodeRequest(latents=pb.Latents(values=TENSOR), image_files=pb.ImageFileOutput())
# The rest of a client that is killed while it waits for an answer.
LOST = """
import sys, grpc
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub
method, target, hexed = sys.argv[1:]
request = {"Encode": pb.EncodeRequest, "Decode": pb.DecodeRequest}[method].FromString(bytes.fromhex(hexed))
getattr(LatentCodecServiceStub(grpc.insecure_channel(target)), method)(request)
"""


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    with background(ServerConfig(port=0, http_port=0, max_message_mib=1)) as server:
        yield server


def in_loop(server: Server, work: Callable[[], Any]) -> Any:
    """Run a coroutine function in the server's event loop."""
    return asyncio.run_coroutine_threadsafe(work(), server._engine._device._loop).result()


class Stage:
    """Holds up the requests of a server in one stage while the context lasts; counts those that have come there."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.engine = server._engine
        self.arrived = 0
        self.pids: list[int] = []
        self._held_by_others = 0
        self._monkeypatch = monkeypatch

    @contextmanager
    def hold(self, stage: str) -> Iterator[None]:
        with ExitStack() as stack:
            getattr(self, f"_{stage}", lambda _: self._asked(stage))(stack)
            try:
                yield
            finally:
                self._monkeypatch.undo()

    def _asked(self, do: str) -> None:
        """Stop the process that is asked to do something: it never answers."""
        ask = CodingProcess.ask

        async def stopped(process: CodingProcess, head: dict[str, Any], *given: Any) -> Any:
            if head["do"] == do:
                self.pids.append(process._process.pid)
                os.kill(process._process.pid, signal.SIGSTOP)
                self.arrived += 1
            return await ask(process, head, *given)

        self._monkeypatch.setattr(CodingProcess, "ask", stopped)
        self._monkeypatch.setattr(coders, "SMALL_S", None)

    def _turn(self, stack: ExitStack) -> None:
        turns, workers = self.engine._coders._small.turns, self.engine._coders._small.turns._free

        async def take() -> None:
            for number in range(workers):
                await turns.enter(f"{number}")

        async def give_back() -> None:
            for number in range(workers):
                turns.leave(f"{number}")

        in_loop(self.server, take)
        stack.callback(in_loop, self.server, give_back)
        self._count(turns, "enter")

    def _memory(self, stack: ExitStack) -> None:
        memory = self.engine.work._memory
        names = [f"{number}" for number in range(memory.places)]
        assert all(memory._fits(name, 1) and not memory._take(name, 1) for name in names)

        async def give_back() -> None:
            for name in names:
                memory._give_back(name, 1, None)

        stack.callback(in_loop, self.server, give_back)
        self._held_by_others = memory.held
        self._count(memory, "_wait")

    def _queue(self, stack: ExitStack) -> None:
        self._monkeypatch.setattr(Lane, "plan", lambda lane: [])
        self._count(self.engine._batcher, "submit")

    def _device(self, stack: ExitStack) -> None:
        go_on = stack.enter_context(_in_loop_event(self.server))
        run = self.engine._batcher._run

        async def later(*given: Any) -> Any:
            self.arrived += 1
            await go_on.wait()
            return await run(*given)

        self._monkeypatch.setattr(self.engine._batcher, "_run", later)

    def _count(self, owner: object, name: str) -> None:
        original = getattr(owner, name)

        async def counted(*given: Any, **named: Any) -> Any:
            self.arrived += 1
            return await original(*given, **named)

        self._monkeypatch.setattr(owner, name, counted)

    def is_empty(self) -> bool:
        engine, memory = self.engine, self.engine.work._memory
        others = memory.held - self._held_by_others
        return not (engine.places.held or others or memory._waiters or engine._coders._busy or len(engine._batcher))


@contextmanager
def _in_loop_event(server: Server) -> Iterator[asyncio.Event]:
    event = asyncio.Event()
    try:
        yield event
    finally:
        server._engine._device._loop.call_soon_threadsafe(event.set)


@pytest.fixture
def stage(own_server: Server, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(own_server, monkeypatch)


def frees_everything(stage: Stage) -> None:
    until(stage.is_empty)
    for pid in stage.pids:
        until(partial(_is_gone, pid))


def _is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


STAGES = ["turn", "open", "read", "memory", "queue", "device", "write"]


def call(target: str, stage: str, timeout_s: float | None = None) -> tuple[grpc.Channel, Any]:
    channel = grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)])
    stub = LatentCodecServiceStub(channel)
    if stage == "write":
        return channel, stub.Decode.future(DECODE, timeout=timeout_s)
    return channel, stub.Encode.future(ENCODE, timeout=timeout_s)


@pytest.mark.parametrize("way", ["deadline", "cancel", "closed channel", "killed client"])
@pytest.mark.parametrize("name", STAGES)
def test_a_grpc_client_that_goes_frees_what_it_held(stage: Stage, name: str, way: str) -> None:
    target = f"127.0.0.1:{stage.server.port}"
    with stage.hold(name):
        if way == "killed client":
            method, request = ("Decode", DECODE) if name == "write" else ("Encode", ENCODE)
            arguments = [method, target, request.SerializeToString().hex()]
            with subprocess.Popen([sys.executable, "-c", LOST, *arguments]) as client:
                until(lambda: stage.arrived)
                client.kill()
        else:
            channel, answer = call(target, name, 1.0 if way == "deadline" else None)
            with channel:
                until(lambda: stage.arrived)
                if way == "cancel":
                    answer.cancel()
                elif way == "closed channel":
                    channel.close()
                with suppress(grpc.FutureCancelledError):
                    expected = grpc.StatusCode.DEADLINE_EXCEEDED if way == "deadline" else grpc.StatusCode.CANCELLED
                    assert answer.code() is expected
        frees_everything(stage)
    with grpc.insecure_channel(target) as channel:
        LatentCodecServiceStub(channel).Encode(ENCODE)


@pytest.mark.parametrize("name", STAGES)
def test_an_http_client_that_goes_frees_what_it_held(stage: Stage, name: str) -> None:
    if name == "write":
        path, body, kind = "/decode?shape=1&shape=4&shape=8&shape=8&dtype=float32", bytes(1024), "tensor/binary"
    else:
        path, body, kind = "/encode", FILE, "image/png"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    with stage.hold(name):
        with socket.create_connection(("127.0.0.1", stage.server.http_port)) as connection:
            connection.sendall(head.encode() + body)
            until(lambda: stage.arrived)
        frees_everything(stage)


def test_a_stream_item_that_passes_its_deadline_frees_what_it_held_and_the_stream_goes_on(stage: Stage) -> None:
    late = pb.EncodeStreamRequest(id=1, request=ENCODE, timeout_ns=300_000_000)
    with grpc.insecure_channel(f"127.0.0.1:{stage.server.port}") as channel, stage.hold("read"):
        (answer,) = LatentCodecServiceStub(channel).EncodeStream(iter([late]))
        assert answer.error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
        frees_everything(stage)
