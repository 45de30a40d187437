# SPDX-License-Identifier: Apache-2.0
"""The door within its process: beside other users of the protocol, at the server's start and stop, switched off."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from latentwire_server.app import Server
from latentwire_server.config import ModelSource, ServerConfig
from latentwire_server.doors.oip import messages as pb
from tests.integration.warming import warming
from tests.waiting import until_async

SERVICE = "inference.GRPCInferenceService"
SAME_PROCESS = """
import sys, time
{imports}
import numpy as np
from latentwire_server.app import background
from latentwire_server.config import ModelSource, ServerConfig

config = ServerConfig(models=(ModelSource("tiny", sys.argv[1]),), port=0, device="cpu")
with background(config) as server, triton.InferenceServerClient(f"127.0.0.1:{{server.port}}") as client:
    tensor = triton.InferInput("IMAGE", (1, 8, 8, 3), "UINT8")
    tensor.set_data_from_numpy(np.zeros((1, 8, 8, 3), np.uint8))
    print(client.infer("tiny.encode", [tensor]).as_numpy("LATENTS").shape)
"""
OURS, THEIRS = "import latentwire_server.app", "import tritonclient.grpc as triton"


@pytest.fixture
def config(tiny_kl: Path) -> ServerConfig:
    return ServerConfig(models=(ModelSource("tiny", str(tiny_kl)),), port=0, device="cpu")


def method(channel: Any, name: str) -> Any:
    """Return a function that calls an RPC with our own messages."""
    (found,) = [method for method in pb.SERVICE.methods if method.name == name]
    request, response = (pb.message_class(kind.name) for kind in (found.input_type, found.output_type))
    call = channel.unary_unary(f"/{SERVICE}/{name}", request.SerializeToString, response.FromString)
    return lambda **fields: call(request(**fields))


def pixels(*shape: int) -> dict[str, Any]:
    """The fields of a request to encode black images."""
    array = np.zeros(shape, np.uint8)
    tensor = {"name": "IMAGE", "datatype": "UINT8", "shape": array.shape}
    return {"model_name": "tiny.encode", "inputs": [tensor], "raw_input_contents": [array.tobytes()]}


@pytest.mark.parametrize("imports", [f"{OURS}\n{THEIRS}", f"{THEIRS}\n{OURS}"], ids=["ours first", "theirs first"])
def test_the_server_and_tritonclient_live_in_one_process(tiny_kl: Path, imports: str) -> None:
    script = SAME_PROCESS.format(imports=imports)
    result = subprocess.run([sys.executable, "-c", script, str(tiny_kl)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.strip() == "(1, 4, 2, 2)"


def test_reflection_describes_our_service_and_says_that_it_knows_no_other(target: str) -> None:
    asked = ("latentwire.v1.LatentCodecService", SERVICE)
    requests = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in asked]
    with grpc.insecure_channel(target) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        described, unknown = stub.ServerReflectionInfo(iter(requests))
    assert described.file_descriptor_response.file_descriptor_proto
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_until_the_models_are_warm_the_server_is_live_but_not_ready(
    config: ServerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        warming(config, monkeypatch) as (server, finish),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        assert (await method(channel, "ServerLive")()).live
        assert not (await method(channel, "ServerReady")()).ready
        assert not (await method(channel, "ModelReady")(name="tiny.encode")).ready
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(channel, "ModelInfer")(**pixels(1, 8, 8, 3))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await finish()
        assert (await method(channel, "ServerReady")()).ready
        assert (await method(channel, "ModelReady")(name="tiny.encode")).ready


async def test_a_request_that_its_client_gave_up_leaves_the_queue_and_counts_as_failed(config: ServerConfig) -> None:
    server = Server(config)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = method(channel, "ModelInfer")(**pixels(40, 64, 64, 3))
        await until_async(lambda: server._engine.places.held)
        call.cancel()
        await until_async(lambda: not server._engine.places.held)
        work = server.metrics.statistics.of("tiny", "encode")
        assert (work.success.count, work.fail.count) == (0, 1)
        answer = await method(channel, "ModelInfer")(**pixels(1, 8, 8, 3))
        assert answer.outputs[0].shape == [1, 4, 2, 2]
        assert (work.success.count, work.fail.count) == (1, 1)
    await server.stop()


async def test_more_images_than_a_client_may_queue_are_refused_by_the_shared_admission(tiny_kl: Path) -> None:
    server = Server(ServerConfig(models=(ModelSource("tiny", str(tiny_kl)),), port=0, device="cpu", max_queue=4))
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="--max-queue") as caught:
            await method(channel, "ModelInfer")(**pixels(4, 8, 8, 3))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await server.stop()


async def test_switched_off_the_service_is_not_there(tiny_kl: Path) -> None:
    server = Server(ServerConfig(models=(ModelSource("tiny", str(tiny_kl)),), port=0, device="cpu", oip=False))
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(channel, "ServerLive")()
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.stop()
