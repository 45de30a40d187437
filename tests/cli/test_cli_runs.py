# SPDX-License-Identifier: Apache-2.0
"""Runs over several files whose server goes away half-way: what the report says, and what is waited for."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from PIL import Image

from latentwire_client import Client
from latentwire_client.testing import PAYLOAD_MARK, FakeServer
from latentwire_codec.lat.payload import Provenance, compress_latents
from latentwire_proto.v1 import latent_codec_pb2 as pb
from tests.conftest import Run, files

SIDE, FATAL_SIDE = 8, 16
GONE = "the token is no longer the right one"


class Leaving(FakeServer):
    """A server that is of no use any more once it is given an image of 16x16, or the latents of one."""

    def Encode(self, request: pb.EncodeRequest, context: Any) -> pb.EncodeResponse:
        leave_after(request.image_file, context)
        response = super().Encode(request, context)
        if request.WhichOneof("output") == "lat":
            payload = compress_latents(np.zeros((3, 1, 1), np.float32), provenance=Provenance(image_size=(SIDE, SIDE)))
            response.lat.payloads[:] = [payload]
        return response

    def EncodeStream(self, request_iterator: Any, context: Any) -> Iterator[pb.EncodeStreamResponse]:
        for item in request_iterator:
            leave_after(item.request.image_file, context)
            yield from super().EncodeStream(iter([item]), context)

    def Decode(self, request: pb.DecodeRequest, context: Any) -> pb.DecodeResponse:
        if request.lat.payloads and not request.lat.payloads[0].startswith(PAYLOAD_MARK):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no payload")
        size = request.latents.image_size
        if request.lat.payloads:
            size = pb.Latents.FromString(request.lat.payloads[0].removeprefix(PAYLOAD_MARK)).image_size
        if size.width == FATAL_SIDE:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, GONE)
        return super().Decode(request, context)


def leave_after(image: bytes, context: Any) -> None:
    try:
        width = Image.open(io.BytesIO(image)).width
    except OSError:
        return
    if width == FATAL_SIDE:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, GONE)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A server, and in folders named by the commands four files each: good, broken, what ends the server, good."""
    monkeypatch.chdir(tmp_path)
    with Leaving() as server:
        monkeypatch.setenv("LATENTWIRE_SERVER", server.target)
        yield


def inputs(command: str, names: str = "abcd") -> list[str]:
    """Write some of a (good), b (broken), c (what ends the server) and d (good), for the command; return the paths."""
    kind = {"decode": "safetensors", "decompress": "lat"}.get(command, "png")
    with FakeServer() as server, Client(server.target) as client:
        for name in names:
            path = Path(f"{name}.{kind}")
            side = FATAL_SIDE if name == "c" else SIDE
            image = io.BytesIO()
            Image.new("RGB", (side, side)).save(image, "PNG")
            if name == "b":
                path.write_bytes(b"junk")
            elif kind == "png":
                path.write_bytes(image.getvalue())
            elif kind == "lat":
                path.write_bytes(client.compress(image.getvalue()))
            else:
                client.encode(image.getvalue()).save(path)
    return [f"{name}.{kind}" for name in names]


COMMANDS = pytest.mark.parametrize("command", ["encode", "compress", "decode", "decompress", "roundtrip"])


@COMMANDS
def test_a_run_that_is_broken_off_tells_what_was_done_what_failed_and_how_many_are_left(run: Run, command: str) -> None:
    status, out, err = run(command, *inputs(command), "-o", "out", "--json")
    assert status == 1
    document = json.loads(out)
    assert len(document["results"]) == len(files("out")) == 1
    assert [failure["path"].split(".")[0] for failure in document["failures"]] == ["b", "the other 2"]
    assert document["failures"][1]["error"] == GONE
    assert [line.split(".")[0] for line in err.splitlines()] == ["error: b", f"error: the other 2: {GONE}"]


@COMMANDS
def test_a_run_that_is_broken_off_before_anything_is_done_could_not_begin_and_tells_what_failed(
    run: Run, command: str
) -> None:
    status, out, err = run(command, *inputs(command, "bcd"), "-o", "out")
    assert (status, out, files("out")) == (2, "", set())
    first, last = err.splitlines()
    assert first.startswith("error: b.")
    assert last == f"error: {GONE}"


class Restarting(FakeServer):
    """A server that is gone for a while after its first answer."""

    def Encode(self, request: pb.EncodeRequest, context: Any) -> pb.EncodeResponse:
        response = super().Encode(request, context)
        if self.calls["Encode"] == 1:
            self.fail_next(grpc.StatusCode.UNAVAILABLE, times=6)  # gRPC itself makes four attempts
        return response


def test_a_restart_does_not_end_a_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    images = inputs("roundtrip", "ad")
    with Restarting() as server:
        monkeypatch.setenv("LATENTWIRE_SERVER", server.target)
        status, _, err = run("roundtrip", *images, "-o", "out")
    assert (status, err) == (0, "")
    assert files("out") == {"a.roundtrip.png", "d.roundtrip.png"}


class Busy(FakeServer):
    """A server whose queue is full for the first calls."""

    refusals = 3

    def Encode(self, request: pb.EncodeRequest, context: Any) -> pb.EncodeResponse:
        if self.refusals > 0:
            self.refusals -= 1
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.RetryInfo())
            refused = status_pb2.Status(code=8, message="the queue is full", details=[detail])
            context.abort_with_status(rpc_status.to_status(refused))
        return super().Encode(request, context)


def test_a_full_queue_is_waited_for_from_the_first_call_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    images = inputs("roundtrip", "a")
    with Busy() as server:
        monkeypatch.setenv("LATENTWIRE_SERVER", server.target)
        status, _, err = run("roundtrip", *images, "-o", "out")
        assert server.refusals == 0
    assert (status, err) == (0, "")
