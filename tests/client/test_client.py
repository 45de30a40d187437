# SPDX-License-Identifier: Apache-2.0
"""Both clients against a server that misbehaves on request: what they send, wait for and leave behind."""

import asyncio
import gc
import pickle
import shutil
import subprocess
import threading
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf.message import Message
from PIL import Image

from latentwire_client import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    Execution,
    InvalidRequest,
    Latents,
    LatentwireError,
    Limits,
    Retry,
    ServerFault,
    Timeout,
    TooLarge,
    Unavailable,
)
from latentwire_client._channels import AsyncConnections
from latentwire_client._settings import Address, Settings
from latentwire_client._waiting import Waiting
from latentwire_client.testing import FakeServer
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_server.app import background
from latentwire_server.config import ModelSource, ServerConfig
from tests.conftest import left_to_the_collector
from tests.waiting import until_async

FAST = Retry(initial_backoff_s=0.01, max_backoff_s=0.02)
PATIENCE_S = 280.0  # the suite ends a test after 300 s


class Watched(FakeServer):
    """A fake server that notes the metadata of each call and when a stream has ended for it."""

    def __init__(self) -> None:
        super().__init__()
        self.metadata: list[dict[str, str]] = []
        self.ended = threading.Event()

    def _count(self, method: str, context: Any) -> None:
        self.metadata.append(dict(context.invocation_metadata()))
        if method.endswith("Stream"):
            context.add_callback(self.ended.set)
        super()._count(method, context)


class Moody(Watched):
    """A server whose first streams behave as the class says; the later ones are good."""

    moods = 1

    def EncodeStream(
        self, request_iterator: Iterator[pb.EncodeStreamRequest], context: Any
    ) -> Iterator[pb.EncodeStreamResponse]:
        answers = super().EncodeStream(request_iterator, context)
        if self.moods > 0:
            self.moods -= 1
            yield from self.misbehave(answers, context)
        else:
            yield from answers

    def misbehave(self, answers: Iterator[pb.EncodeStreamResponse], context: Any) -> Iterator[pb.EncodeStreamResponse]:
        raise NotImplementedError


class Vanishing(Moody):
    def misbehave(self, answers: Iterator[pb.EncodeStreamResponse], context: Any) -> Iterator[pb.EncodeStreamResponse]:
        yield next(answers)
        yield next(answers)
        context.abort(grpc.StatusCode.UNAVAILABLE, "draining")


class Leaving(Moody):
    def misbehave(self, answers: Iterator[pb.EncodeStreamResponse], context: Any) -> Iterator[pb.EncodeStreamResponse]:
        yield next(answers)


class Confused(Moody):
    def misbehave(self, answers: Iterator[pb.EncodeStreamResponse], context: Any) -> Iterator[pb.EncodeStreamResponse]:
        yield pb.EncodeStreamResponse(id=99, result=next(answers).result)


class Mute(Moody):
    def misbehave(self, answers: Iterator[pb.EncodeStreamResponse], context: Any) -> Iterator[pb.EncodeStreamResponse]:
        for answer in answers:
            yield pb.EncodeStreamResponse(id=answer.id)


class Backwards(Moody):
    """Answers three by three, the last one first."""

    moods = 99

    def misbehave(self, answers: Iterator[pb.EncodeStreamResponse], context: Any) -> Iterator[pb.EncodeStreamResponse]:
        while three := list(islice(answers, 3)):
            yield from reversed(three)


class Stuck(Watched):
    """Answers no single call until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.release = threading.Event(), threading.Event()

    def Encode(self, request: pb.EncodeRequest, context: Any) -> pb.EncodeResponse:
        self.entered.set()
        self.release.wait(PATIENCE_S)
        return super().Encode(request, context)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What ends must end without the garbage collector's help."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def image(n: int = 1) -> npt.NDArray[np.uint8]:
    """An image whose latents have n rows."""
    return np.zeros((8 * n, 8, 3), np.uint8)


def endless() -> Iterator[npt.NDArray[np.uint8]]:
    while True:
        yield image()


def client_threads() -> set[threading.Thread]:
    """The threads of this process but those of fake servers and of event loops' pools."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith(("latentwire-fake", "asyncio_"))}


def assert_ended(before: set[threading.Thread]) -> None:
    for thread in client_threads() - before:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), thread.name


async def assert_no_tasks() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, pending = await asyncio.wait(others, timeout=PATIENCE_S)
        assert not pending


# --- calls: retries, timeouts, what is sent ---------------------------------------------------------------------------


# gRPC's server answers CANCELLED to a call that meets its last moment.
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_a_call_is_tried_as_often_as_it_says(attempts: int, code: grpc.StatusCode) -> None:
    retry = Retry(attempts, 0.01, 0.02)
    with FakeServer() as server, Client(server.target, retry=retry) as client:
        server.fail_next(code, times=attempts)
        with pytest.raises(Unavailable, match="told to fail"):
            client.encode(image())
        assert server.calls["Encode"] == attempts
        server.fail_next(code, times=attempts)
        with pytest.raises(Unavailable, match="told to fail"):
            list(client.encode_stream([image()]))
        assert server.calls["EncodeStream"] == attempts
        async with AsyncClient(server.target, retry=retry) as other:
            server.fail_next(code, times=attempts)
            with pytest.raises(Unavailable):
                await other.info()
            assert server.calls["GetServerInfo"] == attempts
            server.fail_next(code, times=attempts)
            with pytest.raises(Unavailable):
                await other.decode([(await other.encode(image(), dtype="float32"))])


def test_the_shortest_backoff_works() -> None:
    with FakeServer() as server, Client(server.target, retry=Retry(3, 0.01, 0.01)) as client:
        server.fail_next(grpc.StatusCode.UNAVAILABLE, times=2)
        client.info()
        assert server.calls["GetServerInfo"] == 3


async def test_a_call_that_takes_too_long_ends() -> None:
    with Stuck() as server, Client(server.target, timeout=Timeout(call_s=0.2)) as client:
        try:
            with pytest.raises(DeadlineExceeded, match=server.target):
                client.encode(image())
            async with AsyncClient(server.target, timeout=Timeout(call_s=0.2)) as other:
                with pytest.raises(DeadlineExceeded, match=server.target):
                    await other.encode(image())
        finally:
            server.release.set()


def test_the_time_for_a_stream_s_item_travels_with_it() -> None:
    seen: list[int] = []

    class Noting(FakeServer):
        def EncodeStream(
            self, request_iterator: Iterator[pb.EncodeStreamRequest], context: Any
        ) -> Iterator[pb.EncodeStreamResponse]:
            def noted() -> Iterator[pb.EncodeStreamRequest]:
                for item in request_iterator:
                    seen.append(item.timeout_ns)
                    yield item

            yield from super().EncodeStream(noted(), context)

    with Noting() as server:
        for seconds in (None, 1.5, 1e-12):
            with Client(server.target, timeout=Timeout(stream_item_s=seconds)) as client:
                client.encode([image()])
    assert seen == [0, 1_500_000_000, 1]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Timeout(call_s=0), "call_s is 0; it must be positive and finite, or None to wait for ever"),
        (lambda: Timeout(stream_item_s=float("inf")), "stream_item_s is inf"),
        (lambda: Timeout(call_s=float("nan")), "call_s is nan"),
        (lambda: Retry(attempts=0), r"attempts is 0; it must be in 1\.\.5"),
        (lambda: Retry(attempts=6), "attempts is 6"),
        (lambda: Retry(initial_backoff_s=0), "backoff is 0 to 2.0 s"),
        (lambda: Retry(initial_backoff_s=0.001), r"backoff is 0.001 to 2.0 s; both must be finite and at least 0\.01"),
        (lambda: Retry(initial_backoff_s=3, max_backoff_s=2), "in this order"),
        (lambda: Retry(max_backoff_s=float("inf")), "finite"),
        (lambda: Retry(reconnect_s=-1), "reconnect_s is -1; it must be finite and at least 0"),
        (lambda: Retry(full_queue_s=float("inf")), "full_queue_s is inf; it must be finite and at least 0"),
        (lambda: Limits(max_message_bytes=0), "max_message_bytes is 0"),
        (lambda: Limits(max_message_bytes=2**31), r"it must be in 1\.\.2\^31-1"),
        (lambda: Limits(in_flight=0), "in_flight is 0; it must be at least 1"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_when_it_is_made(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_stream_that_fails_leaves_nothing_to_the_garbage_collector() -> None:
    def fail() -> None:
        with Client("127.0.0.1:1", retry=FAST) as client, pytest.raises(Unavailable):
            list(client.encode_stream([image()] * 3))

    fail()  # what is made once
    with left_to_the_collector() as left:
        fail()
    assert not [each for each in left if isinstance(each, Message)]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timeout": 5}, r"timeout is 5; it must be a Timeout, such as Timeout\(call_s=\.\.\.\)"),
        ({"retry": 3}, r"retry is 3; it must be a Retry, such as Retry\(attempts=\.\.\.\)"),
        ({"limits": None}, "limits is None; it must be a Limits"),
    ],
)
def test_a_setting_of_another_type_is_refused_before_any_call(kind: Any, settings: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        kind(**settings)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("target", "remedy"),
    [
        ("http://localhost:50051", "give 'localhost:50051'"),
        ("https://vae.example:443/", "give 'vae.example:443', and tls=True or --tls"),
    ],
)
def test_an_url_is_refused_with_the_address_to_give(kind: Any, target: str, remedy: str) -> None:
    with pytest.raises(ValueError, match="gRPC takes HOST:PORT") as caught:
        kind(target)
    assert str(caught.value).endswith(remedy)


@pytest.mark.parametrize(
    ("target", "whole"),
    [
        ("localhost", "localhost:50051"),
        ("vae.example", "vae.example:50051"),
        ("vae.example:7", "vae.example:7"),
        ("[::1]", "[::1]:50051"),
        ("::1", "[::1]:50051"),
        ("[::1]:7", "[::1]:7"),
        ("dns:///vae.example", "dns:///vae.example:50051"),
        ("unix:/run/latentwire.sock", "unix:/run/latentwire.sock"),
        ("ipv4:127.0.0.1:7", "ipv4:127.0.0.1:7"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_server_without_a_port_gets_the_default_one(kind: Any, target: str, whole: str) -> None:
    assert kind(target).target == whole


@pytest.mark.parametrize(
    "target", ["localhost:99999", "localhost:0", "localhost:", "localhost:x", "dns:///a:-1", "[::1]:٣"]
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_port_that_is_no_port_is_refused(kind: Any, target: str) -> None:
    with pytest.raises(ValueError, match=r"its port is '.*', and must be a number in 1\.\.65535"):
        kind(target)


DEAD_PROXY = "http://127.0.0.1:9"


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"])
async def test_a_server_on_this_machine_is_reached_past_a_proxy(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, DEAD_PROXY)
    with Watched() as server:
        port = server.target.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost"):
            with Client(f"{host}:{port}") as client:
                assert client.info()
            async with AsyncClient(f"{host}:{port}") as other:
                assert await other.info()


PROXIES: list[tuple[str, dict[str, str], str]] = [
    ("vae.example", {"http_proxy": DEAD_PROXY}, "http_proxy"),
    ("vae.example", {"http_proxy": DEAD_PROXY, "grpc_proxy": DEAD_PROXY}, "grpc_proxy"),
    ("vae.example", {"http_proxy": DEAD_PROXY, "no_proxy": "other, .example"}, ""),
    ("vae.example", {"http_proxy": DEAD_PROXY, "no_proxy": "vae.example", "no_grpc_proxy": "other"}, "http_proxy"),
    ("10.1.2.3", {"http_proxy": DEAD_PROXY, "no_proxy": "10.0.0.0/8"}, ""),
    ("11.1.2.3", {"http_proxy": DEAD_PROXY, "no_proxy": "10.0.0.0/8"}, "http_proxy"),
    ("[::1]", {"http_proxy": DEAD_PROXY}, ""),
    ("unix:/run/latentwire.sock", {"http_proxy": DEAD_PROXY}, ""),
    ("vae.example", {}, ""),
]


@pytest.mark.parametrize(("target", "environment", "variable"), PROXIES)
def test_the_proxy_in_force_is_known(
    monkeypatch: pytest.MonkeyPatch, target: str, environment: dict[str, str], variable: str
) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Address(target, None, False).proxy == variable


async def test_where_a_proxy_stands_in_the_way_the_message_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:9")
    with Client("192.0.2.1", retry=Retry(attempts=1)) as client, pytest.raises(Unavailable) as caught:
        client.info()
    assert "through the proxy of $http_proxy: name the host in no_proxy" in str(caught.value)
    assert "secret" not in str(caught.value)
    async with AsyncClient("192.0.2.1", retry=Retry(attempts=1)) as other:
        with pytest.raises(Unavailable, match=r"through the proxy of \$http_proxy"):
            await other.info()


async def test_a_missing_server_shows_nothing_of_grpc_s_own_traceback() -> None:
    for failed in (lambda client: client.info(), lambda client: list(client.encode_stream([image()]))):
        with Client("127.0.0.1:1", retry=Retry(attempts=1)) as client, pytest.raises(Unavailable) as caught:
            failed(client)
        assert "grpc._channel" not in "".join(traceback.format_exception(caught.value))
    async with AsyncClient("127.0.0.1:1", retry=Retry(attempts=1)) as other:
        with pytest.raises(Unavailable) as caught:
            await other.info()
    assert "AioRpcError" not in "".join(traceback.format_exception(caught.value))


def test_waits_grow_up_to_their_limit() -> None:
    assert [Retry(initial_backoff_s=0.5, max_backoff_s=3.0).backoff_s(n) for n in range(1, 6)] == [0.5, 1, 2, 3, 3]


def test_the_address_and_the_token_come_from_the_environment_where_none_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Client().target == AsyncClient().target == "localhost:50051"
    with Watched() as server:
        monkeypatch.setenv("LATENTWIRE_SERVER", server.target)
        monkeypatch.setenv("LATENTWIRE_TOKEN", "from-the-environment")
        with Client() as client:
            assert client.target == server.target
            client.info()
        with Client(server.target, token="given") as client:
            client.info()
        tokens = [metadata["authorization"] for metadata in server.metadata]
        assert tokens == ["Bearer from-the-environment", "Bearer given"]
        monkeypatch.setenv("LATENTWIRE_TOKEN", "")
        with Client() as client:
            client.info()
        assert "authorization" not in server.metadata[-1]
        assert Client("other:1").target == "other:1"


async def test_the_token_goes_with_every_call_and_stream() -> None:
    with Watched() as server:
        with Client(server.target, token="t1") as client:
            latents = client.encode(image())
            client.info()
            client.decode(latents)
            client.encode([image()])
            client.decode([latents])
        async with AsyncClient(server.target, token="t1") as other:
            await other.encode(image())
            await other.encode([image()])
            await other.decode([latents])
        assert [metadata["authorization"] for metadata in server.metadata] == ["Bearer t1"] * 8


@pytest.mark.parametrize("token", ["line\n", "päss", "tab\tbed", "nul\0"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(token: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="printable ASCII") as caught:
            kind("host:1", token=token)
        assert token not in str(caught.value)


async def test_each_answer_is_reported_once() -> None:
    executions: list[Execution] = []
    with FakeServer() as server:
        with Client(server.target, on_execution=executions.append) as client:
            latents = client.encode(image())
            client.decode(latents)
            client.decode_array(latents)
            client.decode_files(latents)
            assert len(executions) == 4
            client.info()
            assert len(executions) == 4
            client.encode([image()] * 20)
            client.decode([latents] * 5)
            assert len(executions) == 29
            list(client.encode_stream([b"broken", "missing.png", image()]))
            assert len(executions) == 30
        async with AsyncClient(server.target, on_execution=executions.append) as other:
            await other.encode([image()] * 3)
            await other.decode_files(latents)
            assert len(executions) == 34
    assert {(execution.model, execution.batch_size) for execution in executions} == {("fake", 1)}


def test_the_model_is_the_call_s_or_else_the_client_s() -> None:
    models: list[str] = []

    class Noting(FakeServer):
        def Encode(self, request: pb.EncodeRequest, context: Any) -> pb.EncodeResponse:
            models.append(request.model)
            return super().Encode(request, context)

        def Decode(self, request: pb.DecodeRequest, context: Any) -> pb.DecodeResponse:
            models.append(request.model)
            return super().Decode(request, context)

    with Noting() as server, Client(server.target, model="mine") as client:
        latents = client.encode(image())
        client.encode(image(), model="other")
        client.decode(latents)
        client.decode_array(latents, model="other")
        client.decode_files(latents)
    assert models == ["mine", "other", "mine", "other", "mine"]


async def test_a_misspelt_option_is_refused_and_nothing_is_sent() -> None:
    with FakeServer() as server, Client(server.target) as client:
        for wrong in (image(), [image()]):
            with pytest.raises(TypeError, match="no option 'seed'"):
                client.encode(wrong, seed=[1])  # type: ignore[call-overload]
        async with AsyncClient(server.target) as other:
            with pytest.raises(TypeError, match="no option 'seed'"):
                await other.encode(image(), seed=[1])  # type: ignore[call-overload]
        assert server.calls.total() == 0


async def test_both_clients_give_the_same() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 8, 3), dtype=np.uint8)
    with FakeServer() as server, Client(server.target) as client:
        async with AsyncClient(server.target) as other:
            assert client.is_healthy()
            assert await other.is_healthy()
            assert client.info() == await other.info()
            here, there = client.encode(pixels, kind="moments"), await other.encode(pixels, kind="moments")
            assert repr(here) == repr(there)
            np.testing.assert_array_equal(here.values, there.values)
            np.testing.assert_array_equal(client.decode_array(here), await other.decode_array(here))
            assert client.decode_files(here) == await other.decode_files(here)
            one = here.split()[1]
            assert client.decode(one).tobytes() == (await other.decode(one)).tobytes()
            with pytest.raises(ValueError, match="latents of 2 images"):
                client.decode(here)
            with pytest.raises(ValueError, match="latents of 2 images"):
                await other.decode(here)


async def test_asking_for_the_health_of_nobody_is_unavailable() -> None:
    with FakeServer() as gone:
        target = gone.target
    with Client(target) as client, pytest.raises(Unavailable, match=target):
        client.is_healthy()
    async with AsyncClient(target) as other:
        with pytest.raises(Unavailable, match=target):
            await other.is_healthy()


def test_the_channels_of_loops_that_are_gone_are_dropped() -> None:
    with FakeServer() as server:
        client = AsyncClient(server.target)
        for _ in range(3):
            asyncio.run(client.info())
            assert len(client._connections.by_loop) == 1


def test_a_client_survives_pickling_and_close() -> None:
    with FakeServer() as server:
        client = Client(server.target, token="t", retry=FAST)
        client.info()
        twin: Client = pickle.loads(pickle.dumps(client))
        client.close()
        client.close()
        assert client.info() == twin.info()
        client.close()
        twin.close()
        assert pickle.loads(pickle.dumps(AsyncClient(server.target))).target == server.target


# --- streams ----------------------------------------------------------------------------------------------------------


async def test_a_stream_gives_what_is_done_and_puts_it_in_order_if_asked() -> None:
    images = [image(n) for n in range(1, 13)]
    with Backwards() as server:
        limits = Limits(in_flight=6)
        with Client(server.target, limits=limits) as client:
            done = [item.index for item in client.encode_stream(images)]
            assert done[:3] == [2, 1, 0]
            assert sorted(done) == list(range(12))
            ordered = list(client.encode_stream(images).ordered())
            assert [(item.index, item.get().values.shape[2]) for item in ordered] == [(n, n + 1) for n in range(12)]
            assert [latents.values.shape[2] for latents in client.encode(images)] == list(range(1, 13))
        async with AsyncClient(server.target, limits=limits) as other:
            done = [item.index async for item in other.encode_stream(images)]
            assert done[:3] == [2, 1, 0]
            assert sorted(done) == list(range(12))
            assert [item.index async for item in other.encode_stream(images).ordered()] == list(range(12))
            assert [latents.values.shape[2] for latents in await other.encode(images)] == list(range(1, 13))


async def test_a_stream_of_nothing_gives_nothing() -> None:
    with FakeServer() as server, Client(server.target) as client:
        assert client.encode([]) == []
        assert client.decode(()) == []
        assert list(client.encode_stream(iter(())).ordered()) == []
        async with AsyncClient(server.target) as other:
            assert await other.encode([]) == []
            assert [item async for item in other.decode_stream([])] == []


@pytest.mark.parametrize("kind", [Vanishing, Leaving])
async def test_what_had_no_answer_is_sent_again_and_the_rest_is_not(kind: type[Moody]) -> None:
    images = [image(n) for n in range(1, 21)]
    with kind() as server:
        with Client(server.target, retry=FAST) as client:
            items = list(client.encode_stream(images))
        assert sorted(item.index for item in items) == list(range(20))
        assert all(item.get().values.shape[2] == item.index + 1 for item in items)
        assert server.calls["EncodeStream"] == 2
        server.moods = 1
        async with AsyncClient(server.target, retry=FAST) as other:
            assert sorted([item.index async for item in other.encode_stream(images)]) == list(range(20))
        assert server.calls["EncodeStream"] == 4


async def test_a_status_that_grpc_hides_is_taken_for_the_end_of_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hidden:
        """A call whose end met a write: see HIDDEN_STATUS."""

        async def read(self) -> None:
            nothing = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, "Internal error from Core", "")

        def cancel(self) -> None:
            pass

    calls = iter([Hidden(), Hidden()])
    current = AsyncConnections.current

    def hiding(self: AsyncConnections) -> Any:
        connection = current(self)
        opened = connection.codec.EncodeStream
        codec = SimpleNamespace(EncodeStream=lambda *sent, **options: next(calls, None) or opened(*sent, **options))
        return SimpleNamespace(
            settings=connection.settings, codec=codec, mapped_errors=connection.mapped_errors, pause=connection.pause
        )

    monkeypatch.setattr(AsyncConnections, "current", hiding)
    with FakeServer() as server:
        async with AsyncClient(server.target, retry=FAST) as client:
            assert len(await client.encode([image()] * 3)) == 3
        calls = iter([Hidden()])
        async with AsyncClient(server.target, retry=Retry(attempts=1)) as client:
            with pytest.raises(Unavailable, match=server.target):
                await client.encode([image()] * 3)


async def test_an_answer_that_nobody_waits_for_is_a_fault_and_the_client_stays_usable() -> None:
    with Confused() as server:
        with Client(server.target) as client:
            with pytest.raises(ServerFault, match="item 99"):
                list(client.encode_stream([image()]))
            assert len(client.encode([image()])) == 1
        server.moods = 1
        async with AsyncClient(server.target) as other:
            with pytest.raises(ServerFault, match="item 99"):
                await other.encode([image()])
            assert len(await other.encode([image()])) == 1


def test_an_answer_with_nothing_in_it_fails_its_item() -> None:
    with Mute() as server, Client(server.target) as client:
        items = list(client.encode_stream([image()] * 3))
        assert [type(item.error) for item in items] == [ValueError] * 3


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("how", ["close", "break", "break out of order", "drop", "error"])
def test_a_stream_that_is_left_early_leaves_nothing_behind(how: str) -> None:
    with Watched() as server, Client(server.target) as client:
        client.info()
        before = client_threads()
        if how == "close":
            stream = client.encode_stream(endless())
            next(stream)
            stream.close()
            stream.close()
            assert list(stream) == []
        elif how == "break":
            for item in client.encode_stream(endless()):
                assert item.error is None
                break
        elif how == "break out of order":
            for _ in client.encode_stream(endless()).ordered():
                break
        elif how == "drop":
            dropped = client.encode_stream(endless())
            next(dropped)
            del dropped
        else:
            with pytest.raises(InvalidRequest):
                client.encode([image(), b"broken", *[image()] * 50])
        assert server.ended.wait(PATIENCE_S)
        assert_ended(before)
        client.info()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("how", ["close", "break", "break out of order", "drop", "cancel", "error"])
async def test_an_async_stream_that_is_left_early_leaves_nothing_behind(how: str) -> None:
    with Watched() as server:
        async with AsyncClient(server.target) as client:
            if how == "close":
                stream = client.encode_stream(endless())
                await anext(stream)
                await stream.close()
                await stream.close()
                assert [item async for item in stream] == []
            elif how == "break":
                async for item in client.encode_stream(endless()):
                    assert item.error is None
                    break
            elif how == "break out of order":
                async for _ in client.encode_stream(endless()).ordered():
                    break
            elif how == "drop":
                dropped = client.encode_stream(endless())
                await anext(dropped)
                del dropped
            elif how == "cancel":
                task = asyncio.create_task(consume(client))
                await until_async(lambda: server.calls)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                with pytest.raises(InvalidRequest):
                    await client.encode([image(), b"broken", *[image()] * 50])
            assert await asyncio.to_thread(server.ended.wait, PATIENCE_S)
            await assert_no_tasks()
            await client.info()


async def consume(client: AsyncClient) -> None:
    async for item in client.encode_stream(endless()):
        item.get()


def test_a_stream_that_was_never_asked_never_calls() -> None:
    with FakeServer() as server, Client(server.target) as client:
        stream = client.encode_stream(endless())
        stream.close()
        client.decode_stream([])
        assert server.calls.total() == 0


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("the source broke"),
        ValueError("the source broke"),
        # What another stream of this library may raise while it feeds this one: not to be tried again here, for the
        # broken generator would then look exhausted and the rest be missing without a word.
        Unavailable(grpc.StatusCode.UNAVAILABLE, "the source broke"),
        grpc.RpcError("the source broke"),
        KeyboardInterrupt("the source broke"),
    ],
)
@pytest.mark.parametrize("good", [0, 3, 20])
def test_a_source_that_raises_surfaces_as_it_is(error: BaseException, good: int) -> None:
    def source() -> Iterator[npt.NDArray[np.uint8]]:
        for _ in range(good):
            yield image()
        raise error

    with Watched() as server, Client(server.target, retry=FAST) as client:
        client.info()
        before = client_threads()
        with pytest.raises(type(error), match="the source broke") as caught:
            list(client.encode_stream(source()))
        assert caught.value is error
        assert server.calls["EncodeStream"] <= 1  # cancelled, perhaps, before it got there
        assert_ended(before)
        assert len(client.encode([image()] * 2)) == 2


@pytest.mark.parametrize(
    "error", [RuntimeError("the source broke"), Unavailable(grpc.StatusCode.UNAVAILABLE, "the source broke")]
)
async def test_a_source_that_raises_surfaces_as_it_is_from_an_async_stream(error: Exception) -> None:
    def source() -> Iterator[npt.NDArray[np.uint8]]:
        yield image()
        yield image()
        raise error

    with Watched() as server:
        async with AsyncClient(server.target, retry=FAST) as client:
            with pytest.raises(type(error), match="the source broke") as caught:
                async for _ in client.encode_stream(source()):
                    pass
            assert caught.value is error
            assert server.calls["EncodeStream"] <= 1
            await assert_no_tasks()
            assert len(await client.encode([image()] * 2)) == 2


SMALL, LARGE = (24, 16, 3), (1400, 1200, 3)  # gRPC takes 4 MiB where nothing else is said


@pytest.mark.parametrize(
    ("limits", "decodes"),
    [
        pytest.param(Limits(in_flight=3), False, id="the server's limit"),
        pytest.param(Limits(2**20, in_flight=3), False, id="the client's, asking"),
        pytest.param(Limits(2**20, in_flight=3), True, id="the client's, answered"),
    ],
)
async def test_a_message_over_a_limit_fails_its_item_alone(limits: Limits, decodes: bool) -> None:
    images = [np.zeros(LARGE if number in {2, 5} else SMALL, np.uint8) for number in range(8)]
    latents = [Latents(np.zeros((1, 3, len(each) // 8, each.shape[1] // 8), np.float32)) for each in images]
    with FakeServer() as server:
        with Client(server.target, limits=limits, retry=FAST) as client:
            stream = client.decode_stream(latents) if decodes else client.encode_stream(images)
            ended: dict[int, Exception | None] = {item.index: item.error for item in stream}
        assert ended.keys() == set(range(8))
        assert {index for index, error in ended.items() if error is not None} == {2, 5}
        assert isinstance(ended[2], TooLarge)
        async with AsyncClient(server.target, limits=limits, retry=FAST) as other:
            items = other.decode_stream(latents) if decodes else other.encode_stream(images)
            again: dict[int, Exception | None] = {item.index: item.error async for item in items}
        assert {index: type(error) for index, error in again.items()} == {
            index: type(error) for index, error in ended.items()
        }


async def test_a_stream_that_broke_off_is_not_taken_for_one_that_is_at_its_end() -> None:
    with FakeServer() as server:
        with Client(server.target, retry=Retry(1, reconnect_s=0)) as client:
            stream = client.encode_stream([image()] * 3)
            server.fail_next(grpc.StatusCode.UNAVAILABLE)
            with pytest.raises(Unavailable):
                next(stream)
            for _ in range(2):
                with pytest.raises(RuntimeError, match="broke off after 0 answers"):
                    next(stream)
            stream.close()
            assert list(stream) == []
        async with AsyncClient(server.target, retry=Retry(1, reconnect_s=0)) as other:
            items = other.encode_stream([image()] * 3)
            server.fail_next(grpc.StatusCode.UNAVAILABLE)
            with pytest.raises(Unavailable):
                await anext(items)
            with pytest.raises(RuntimeError, match="broke off after 0 answers"):
                await anext(items)
            await items.close()
            assert [item async for item in items] == []


def test_a_file_that_is_missing_is_no_answer_of_a_server_that_was_never_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float | None] = []
    real = Waiting.pause_s

    def noted(self: Waiting, error: LatentwireError, answers: int) -> float | None:
        pauses.append(real(self, error, answers))
        return pauses[-1]

    monkeypatch.setattr(Waiting, "pause_s", noted)
    with FakeServer() as server, Client(server.target, retry=Retry(2, 0.01, 0.02, reconnect_s=5)) as client:
        server.fail_next(grpc.StatusCode.UNAVAILABLE, times=10_000)
        stream = client.encode_stream([tmp_path / "missing.png", image()])
        assert isinstance(next(stream).error, FileNotFoundError)
        with pytest.raises(Unavailable):
            next(stream)
    assert [pause_s is None for pause_s in pauses] == [False, True]


async def test_two_streams_run_at_once_on_one_client() -> None:
    with FakeServer() as server:
        with Client(server.target, limits=Limits(in_flight=2)) as client:
            one = client.encode_stream([image(n) for n in range(1, 11)])
            other = client.encode_stream([image(n) for n in range(11, 21)])
            pairs = [(a.get().values.shape[2], b.get().values.shape[2]) for a, b in zip(one, other, strict=True)]
            assert pairs == [(n, n + 10) for n in range(1, 11)]
            chained = client.decode_stream(
                item.get() for item in client.encode_stream([image(n) for n in range(1, 11)])
            )
            assert [item.get().height for item in chained] == [8 * n for n in range(1, 11)]
        async with AsyncClient(server.target) as both:
            lists = await asyncio.gather(*(both.encode([image(n)] * 5) for n in range(1, 5)))
            assert [[latents.values.shape[2] for latents in each] for each in lists] == [[n] * 5 for n in range(1, 5)]


def test_a_chain_of_streams_whose_first_fails_is_not_cut_short_in_silence() -> None:
    with (
        FakeServer() as here,
        FakeServer() as there,
        Client(here.target, retry=Retry(attempts=1)) as encoder,
        Client(there.target, retry=FAST) as decoder,
    ):
        here.fail_next(grpc.StatusCode.UNAVAILABLE)
        latents = (item.get() for item in encoder.encode_stream([image()] * 3))
        with pytest.raises(Unavailable, match=here.target):
            list(decoder.decode_stream(latents))


def test_threads_share_one_client_and_one_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[grpc.Channel] = []
    together = threading.Barrier(4, timeout=PATIENCE_S)
    real = Settings.open

    def open_together(self: Settings, api: Any) -> Any:
        together.wait()
        made.append(real(self, api))
        return made[-1]

    results: dict[int, list[int]] = {}

    def work(number: int) -> None:
        client.info()
        results[number] = [latents.values.shape[2] for latents in client.encode([image(number)] * 10)]
        results[number].append(client.encode(image(number)).values.shape[2])

    monkeypatch.setattr(Settings, "open", open_together)
    with FakeServer() as server, Client(server.target) as client:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert results == {number: [number] * 11 for number in range(1, 5)}
        (kept,) = client._connections.by_process.values()
        assert len(made) == 4
        for channel in made:
            if channel is not kept.channel:
                with pytest.raises(ValueError, match="closed"):
                    cast(Any, channel.unary_unary("/any/Method"))(b"")


# --- closing under way ------------------------------------------------------------------------------------------------


def test_a_call_whose_channel_is_closed_before_it_begins_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer() as server:
        client = Client(server.target)
        client.info()

        def close_first(self: Address) -> tuple[tuple[str, str], ...]:
            client.close()
            return ()

        monkeypatch.setattr(Address, "metadata", property(close_first))
        for call in (client.info, lambda: client.encode(image(1)), lambda: client.encode([image(1), image(2)])):
            with pytest.raises(Cancelled, match=f"the channel to {server.target} was closed during the call"):
                call()
        monkeypatch.undo()
        assert client.info().models


def test_closing_while_other_threads_call_ends_their_calls_and_nothing_else() -> None:
    ended: list[Exception | None] = []

    def work() -> None:
        for _ in range(50):
            try:
                client.info()
                client.is_healthy()
                ended.append(None)
            except Exception as error:
                ended.append(error)

    with FakeServer() as server, Client(server.target) as client:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            client.close()
            time.sleep(0.001)
        assert len(ended) == 150
        assert {type(error) for error in ended} <= {type(None), Cancelled}


def test_closing_the_client_cancels_its_stream() -> None:
    with FakeServer() as server:
        client = Client(server.target)
        stream = client.encode_stream(endless())
        next(stream)
        client.close()
        with pytest.raises(Cancelled, match=f"the channel to {server.target} was closed during the call"):
            list(stream)
        client.close()


async def test_closing_the_async_client_cancels_the_call_and_not_the_task_that_waits() -> None:
    with Stuck() as server:
        try:
            client = AsyncClient(server.target)
            task = asyncio.create_task(client.encode(image()))
            await asyncio.to_thread(server.entered.wait, PATIENCE_S)
            await client.close()
            with pytest.raises(Cancelled, match=server.target):
                await task
            stream = client.encode_stream(endless())
            await anext(stream)
            await client.close()
            with pytest.raises(Cancelled, match=server.target):
                async for _ in stream:
                    pass
        finally:
            server.release.set()
            await client.close()


async def test_cancelling_a_task_is_not_taken_for_a_failed_call() -> None:
    with Stuck() as server:
        try:
            async with AsyncClient(server.target) as client:
                task = asyncio.create_task(client.encode(image()))
                await asyncio.to_thread(server.entered.wait, PATIENCE_S)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        finally:
            server.release.set()


async def test_a_slow_source_does_not_stop_the_loop() -> None:
    released = threading.Event()

    def source() -> Iterator[npt.NDArray[np.uint8]]:
        assert released.wait(PATIENCE_S)
        yield image()

    async def ticking() -> AsyncIterator[int]:
        for n in range(3):
            await asyncio.sleep(0)
            yield n

    with FakeServer() as server:
        async with AsyncClient(server.target) as client:
            task = asyncio.create_task(anext(client.encode_stream(source())))
            assert [n async for n in ticking()] == [0, 1, 2]
            assert not task.done()
            released.set()
            assert (await task).index == 0


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("NOTHING ABOUT TLS IS TESTED: there is no openssl command to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = [
        openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


async def test_a_server_with_tls_is_reached_by_those_who_trust_its_certificate(
    certificate: tuple[Path, Path], tiny_kl: Path
) -> None:
    cert, key = certificate
    models = (ModelSource("tiny", str(tiny_kl)),)
    with background(ServerConfig(models=models, port=0, token="t", tls_cert=cert, tls_key=key)) as server:
        target = f"localhost:{server.port}"
        with Client(target, tls=cert, token="t") as client:
            assert client.is_healthy()
            assert client.decode(client.encode(Image.new("RGB", (12, 9)))).size == (12, 9)
            assert len(client.encode([image()] * 3)) == 3
        async with AsyncClient(target, tls=str(cert), token="t") as other:
            assert (await other.info()).models[0].name == "tiny"
        for stranger in (Client(target, retry=FAST), Client(target, tls=True, retry=FAST)):
            with stranger, pytest.raises(LatentwireError) as caught:
                stranger.info()
            assert isinstance(caught.value, Unavailable)
            assert target in str(caught.value)


def test_a_file_without_a_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    with (
        Client("localhost:1", tls=tmp_path / "bad.pem") as client,
        pytest.raises(ValueError, match="holds no certificate in PEM form"),
    ):
        client.info()


def test_a_certificate_that_is_missing_is_an_os_error(tmp_path: Path) -> None:
    with Client("localhost:1", tls=tmp_path / "missing.pem") as client, pytest.raises(FileNotFoundError):
        client.info()
