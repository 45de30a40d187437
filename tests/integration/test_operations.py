# SPDX-License-Identifier: Apache-2.0
"""Health, reflection, metrics, logs and request ids of a server."""

import asyncio
import io
import json
import logging
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from latentwire_client import Client, InvalidRequest, Retry, Unavailable
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub
from latentwire_server.app import Server, background
from latentwire_server.config import ModelSource, ServerConfig
from latentwire_server.errors import ServerError
from latentwire_server.telemetry.metrics import configure_logging
from tests.integration.warming import warming
from tests.waiting import until_async

SERVICE = "latentwire.v1.LatentCodecService"


@pytest.fixture
def config(tiny_kl: Path) -> ServerConfig:
    return ServerConfig(models=(ModelSource("tiny", str(tiny_kl)),), port=0, metrics_port=0)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """The log of the server on standard error, as JSON."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configure_logging("json")
    return stream


async def health(stub: Any, service: str = SERVICE) -> str:
    response = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)


async def test_health_is_not_serving_until_the_models_are_warm_and_requests_are_unavailable(
    config: ServerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        warming(config, monkeypatch) as (server, finish),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        probe: Any = health_pb2_grpc.HealthStub(channel)
        stub = LatentCodecServiceStub(channel)
        assert [await health(probe, service) for service in ("", SERVICE)] == ["NOT_SERVING"] * 2
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetServerInfo(pb.GetServerInfoRequest())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "loading" in (caught.value.details() or "")
        await finish()
        assert [await health(probe, service) for service in ("", SERVICE)] == ["SERVING"] * 2
        assert (await stub.GetServerInfo(pb.GetServerInfoRequest())).models[0].name == "tiny"


async def test_when_the_server_stops_health_flips_first_and_what_is_in_goes_on(config: ServerConfig) -> None:
    server = Server(config)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        probe: Any = health_pb2_grpc.HealthStub(channel)
        stub = LatentCodecServiceStub(channel)
        watch = probe.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        pixels = np.zeros((1, 512, 512, 3), np.uint8)
        tensor = pb.Tensor(dtype=pb.DTYPE_UINT8, shape=pixels.shape, data=pixels.tobytes())
        image = pb.ImageTensor(tensor=tensor, layout=pb.IMAGE_LAYOUT_UINT8_NHWC)
        accepted = stub.Encode(pb.EncodeRequest(image_tensor=image))
        await until_async(lambda: server._engine.places.held)
        stopping = asyncio.create_task(server.stop())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetServerInfo(pb.GetServerInfoRequest())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (await accepted).latents.values.shape == [1, 4, 128, 128]
        await stopping


async def test_who_watches_the_health_or_asks_for_more_of_reflection_is_let_go_when_the_server_stops(
    config: ServerConfig,
) -> None:
    server = Server(config)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        probe: Any = health_pb2_grpc.HealthStub(channel)
        reflected: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        watch = probe.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        questions = reflected.ServerReflectionInfo()
        await questions.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await questions.read()
        assert await server.stop()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        for call in (watch, questions):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "the server is shutting down" in (caught.value.details() or "")


def test_reflection_lists_the_services(target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [reflection_pb2.ServerReflectionRequest(list_services="")]
        (response,) = stub.ServerReflectionInfo(iter(requests))
    names = {service.name for service in response.list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


def test_metrics_count_requests_items_images_and_their_seconds(config: ServerConfig) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    with background(config) as server, Client(f"127.0.0.1:{server.port}") as client:
        client.decode(client.encode(image))
        with pytest.raises(InvalidRequest):
            client.encode(b"broken")
        assert len(list(client.encode_stream([image, b"broken", image]))) == 3
        with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics") as page:
            lines = page.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    for name, value in {
        'latentwire_requests_total{code="OK",method="Encode"}': 1,
        'latentwire_requests_total{code="OK",method="Decode"}': 1,
        'latentwire_requests_total{code="INVALID_ARGUMENT",method="Encode"}': 1,
        'latentwire_requests_total{code="OK",method="EncodeStream/item"}': 2,
        'latentwire_requests_total{code="INVALID_ARGUMENT",method="EncodeStream/item"}': 1,
        "latentwire_queue_images": 0,
        'latentwire_batch_images_sum{operation="encode"}': 3,
        'latentwire_compute_seconds_count{operation="decode"}': 1,
        'latentwire_queue_seconds_count{operation="encode"}': 3,
        'latentwire_coding_seconds_count{operation="encode"}': 3,
    }.items():
        assert float(values[name]) == value, name


@pytest.mark.parametrize(
    "path", [f"{SERVICE}/Decode", f"{SERVICE}/DecodeStream", "inference.GRPCInferenceService/ModelInfer"]
)
def test_bytes_that_are_no_request_are_refused_with_the_request_id_and_counted(config: ServerConfig, path: str) -> None:
    method = path.rpartition("/")[2]
    with background(config) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call: Any = channel.stream_unary(f"/{path}")  # the form of every kind of method, on the wire
        with pytest.raises(grpc.RpcError) as caught:
            call(iter([b"\xff no protobuf"]), metadata=(("x-request-id", "my-id/1"),))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "13 bytes that were sent are no request" in error.details()
    assert dict(error.trailing_metadata())["x-request-id"] == "my-id/1"
    labels = {"method": method, "code": "INVALID_ARGUMENT"}
    assert server.metrics.registry.get_sample_value("latentwire_requests_total", labels) == 1


def test_a_request_id_goes_from_the_caller_through_the_log_back_to_the_caller(
    config: ServerConfig, log: io.StringIO
) -> None:
    with background(config) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = LatentCodecServiceStub(channel)
        for sent in ("my-id/1", 'forged" line', None):
            metadata = (("x-request-id", sent),) if sent else ()
            _, call = stub.GetServerInfo.with_call(pb.GetServerInfoRequest(), metadata=metadata)
            received = dict(call.trailing_metadata())["x-request-id"]
            assert (received == sent) == (sent == "my-id/1")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    calls = [line for line in lines if line["message"].startswith("GetServerInfo OK")]
    assert len({line["request_id"] for line in calls}) == 3
    assert calls[0]["request_id"] == "my-id/1"


@pytest.mark.parametrize("worker", [None, 3])
def test_a_line_of_a_workers_log_carries_its_number(worker: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", worker)
    logging.getLogger("latentwire").info("words")
    assert json.loads(capsys.readouterr().err).get("worker") == worker
    configure_logging("text", worker)
    logging.getLogger("latentwire").info("words")
    assert capsys.readouterr().err.endswith("INFO words [-]\n" if worker is None else "INFO worker 3: words [-]\n")


def test_a_fault_of_the_server_is_told_by_its_request_id_alone_and_logged_with_its_traceback(
    config: ServerConfig, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    with background(config) as server, Client(f"127.0.0.1:{server.port}") as client:
        monkeypatch.setattr("latentwire_server.engine.engine.compute", lambda *_: 1 / 0)
        with pytest.raises(Exception, match="internal error") as caught:
            client.encode(np.zeros((8, 8, 3), np.uint8))
    error: Any = caught.value
    assert "division" not in str(error)
    (line,) = [json.loads(line) for line in log.getvalue().splitlines() if "ZeroDivisionError" in line]
    assert line["request_id"] == error.request_id


@pytest.mark.parametrize("which", ["port", "metrics_port"])
def test_a_port_that_is_taken_is_a_clear_error_and_the_first_server_goes_on(config: ServerConfig, which: str) -> None:
    with background(config) as first:
        ports = {"port": 0, "metrics_port": 0, which: getattr(first, which)}
        second = ServerConfig(models=config.models, **ports)
        with pytest.raises(ServerError, match=f"--{which.replace('_', '-')}"), background(second):
            pass
        with Client(f"127.0.0.1:{first.port}") as client:
            assert client.is_healthy()


def test_listening_beyond_the_loopback_without_tls_or_token_warns(config: ServerConfig, log: io.StringIO) -> None:
    with background(ServerConfig(models=config.models, host="0.0.0.0", port=0)):
        pass
    warnings = [json.loads(line)["message"] for line in log.getvalue().splitlines() if '"WARNING"' in line]
    assert any("without TLS" in warning for warning in warnings)
    assert any("without a token" in warning for warning in warnings)


def test_a_stopped_server_is_unavailable(config: ServerConfig) -> None:
    with background(config) as server:
        target = f"127.0.0.1:{server.port}"
    with Client(target, retry=Retry(attempts=1)) as client, pytest.raises(Unavailable, match=target):
        client.info()
