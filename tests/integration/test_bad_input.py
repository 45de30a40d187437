# SPDX-License-Identifier: Apache-2.0
"""Bad input: each kind has its own status and a message with value, limit and remedy, and the server goes on."""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from PIL import Image

from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub
from latentwire_server.app import background
from latentwire_server.config import ModelSource, ServerConfig

LATENTS = np.zeros((1, 4, 8, 8), np.float32)


@pytest.fixture(scope="module")
def channel(tiny_kl: Path) -> Iterator[grpc.Channel]:
    """A server with small limits, called without the client's own checks."""
    models = (ModelSource("f8c4", "f8c4"), ModelSource("tiny", str(tiny_kl)))
    config = ServerConfig(models=models, port=0, max_message_mib=1, max_side=1024, max_batch=4)
    with background(config) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> LatentCodecServiceStub:
    return LatentCodecServiceStub(channel)


def png(width: int = 64, height: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, "PNG")
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def tensor(array: np.ndarray, dtype: "pb.DType | str" = "DTYPE_FLOAT32", cut: int = 0) -> pb.Tensor:
    data = array.tobytes()
    return pb.Tensor(dtype=dtype, shape=array.shape, data=data[: len(data) - cut])


def image(array: np.ndarray, layout: "pb.ImageLayout | str", dtype: str, cut: int = 0) -> pb.EncodeRequest:
    return pb.EncodeRequest(image_tensor=pb.ImageTensor(tensor=tensor(array, dtype, cut), layout=layout))


def latents(array: np.ndarray = LATENTS, cut: int = 0, dtype: str = "DTYPE_FLOAT32", **fields: object) -> pb.Latents:
    return pb.Latents(values=tensor(array, dtype, cut), **fields)  # type: ignore[arg-type]


def pixels(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.uint8)


def floats(*shape: int, fill: float = 0.0) -> np.ndarray:
    return np.full(shape, fill, np.float32)


UINT8, FLOAT = "IMAGE_LAYOUT_UINT8_NHWC", "IMAGE_LAYOUT_FLOAT_NCHW"
SAMPLE = pb.LatentOutput(kind=pb.LATENT_KIND_SAMPLE, seeds=[1, 2])
INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED

# A fault -> the request, its status, and the words that the message must have.
ENCODE = {
    "no image": (pb.EncodeRequest(), INVALID, ["image_file", "image_tensor"]),
    "empty file": (pb.EncodeRequest(image_file=b""), INVALID, ["0 bytes"]),
    "truncated file": (pb.EncodeRequest(image_file=png()[:-60]), INVALID, ["93 bytes", "truncated"]),
    "not an image": (pb.EncodeRequest(image_file=b"hello world"), INVALID, ["11 bytes", "PNG", "JPEG"]),
    "0x0": (pb.EncodeRequest(image_file=png_header(0, 0)), INVALID, ["0x0"]),
    "30000x30000 header": (
        pb.EncodeRequest(image_file=png_header(30000, 30000)), EXHAUSTED, ["30000x30000", "1024", "--max-side"],
    ),
    "too many pixels": (
        pb.EncodeRequest(image_file=png(1000, 1000)), EXHAUSTED, ["1000000", "349525", "--max-message-mib"],
    ),
    "target size over the limit": (
        pb.EncodeRequest(image_file=png(), target_size=pb.ImageSize(width=2000, height=8)),
        EXHAUSTED, ["2000x8", "1024", "--max-side"],
    ),
    "target size of zero": (
        pb.EncodeRequest(image_file=png(), target_size=pb.ImageSize(width=8)), INVALID, ["8x0"],
    ),
    "tensor too short": (image(pixels(1, 64, 64, 3), UINT8, "DTYPE_UINT8", cut=1), INVALID, ["12287", "12288"]),
    "tensor without a layout": (image(pixels(1, 8, 8, 3), "IMAGE_LAYOUT_UNSPECIFIED", "DTYPE_UINT8"), INVALID,
                                ["UINT8_NHWC", "FLOAT_NCHW"]),
    "tensor of the wrong dtype": (image(floats(1, 8, 8, 3), UINT8, "DTYPE_FLOAT32"), INVALID, ["float32", "uint8"]),
    "tensor of the wrong axes": (image(floats(1, 8, 8, 3), FLOAT, "DTYPE_FLOAT32"), INVALID, ["(1, 8, 8, 3)"]),
    "tensor without a dtype": (
        image(pixels(1, 8, 8, 3), UINT8, "DTYPE_UNSPECIFIED"), INVALID, ["DTYPE_UNSPECIFIED", "DTYPE_UINT8"],
    ),
    "tensor of an odd size": (image(pixels(1, 12, 8, 3), UINT8, "DTYPE_UINT8"), INVALID, ["8x12", "multiple of 8"]),
    "tensor over the side limit": (
        image(pixels(1, 8, 2048, 3), UINT8, "DTYPE_UINT8"), EXHAUSTED, ["2048x8", "1024", "--max-side"],
    ),
    "tensor with NaN": (image(floats(1, 3, 8, 8, fill=np.nan), FLOAT, "DTYPE_FLOAT32"), INVALID, ["192", "NaN"]),
    "batch over the limit": (
        image(pixels(5, 8, 8, 3), UINT8, "DTYPE_UINT8"), EXHAUSTED, ["5 images", "4", "--max-batch"],
    ),
    "seeds for another number of images": (
        pb.EncodeRequest(image_file=png(), latents=SAMPLE), INVALID, ["2 seeds", "1 images"],
    ),
    "scaled moments": (
        pb.EncodeRequest(image_file=png(), latents=pb.LatentOutput(kind="LATENT_KIND_MOMENTS",
                                                                   scale="LATENT_SCALE_SCALED")),
        INVALID, ["moments", "raw"],
    ),
    "unknown kind": (
        pb.EncodeRequest(image_file=png(), latents=pb.LatentOutput(kind=77)),  # type: ignore[arg-type]
        INVALID, ["77", "LATENT_KIND_MODE"],
    ),
    "unknown model": (
        pb.EncodeRequest(model="sdxl", image_file=png()), grpc.StatusCode.NOT_FOUND, ["sdxl", "f8c4", "tiny"],
    ),
    "path for a model": (
        pb.EncodeRequest(model="/etc/passwd", image_file=png()), grpc.StatusCode.NOT_FOUND, ["/etc/passwd"],
    ),
    "message over the limit": (
        pb.EncodeRequest(image_file=bytes(2**20)), EXHAUSTED, ["1048576"],
    ),
}  # fmt: skip

DECODE = {
    "no latents": (pb.DecodeRequest(), INVALID, ["latents"]),
    "latents too short": (pb.DecodeRequest(latents=latents(cut=4)), INVALID, ["1020", "1024"]),
    "latents of uint8": (pb.DecodeRequest(latents=latents(pixels(1, 4, 8, 8), dtype="DTYPE_UINT8")), INVALID,
                         ["uint8", "float"]),
    "latents of other channels": (pb.DecodeRequest(latents=latents(floats(1, 16, 8, 8))), INVALID,
                                  ["(1, 16, 8, 8)", "(B, 4, h, w)"]),
    "latents with NaN": (pb.DecodeRequest(latents=latents(floats(1, 4, 8, 8, fill=np.nan))), INVALID,
                         ["256", "NaN"]),
    "latents that overflow": (pb.DecodeRequest(latents=latents(floats(1, 4, 8, 8, fill=3e38))), INVALID,
                              ["3e+38", "not finite"]),
    "latents of another space": (
        pb.DecodeRequest(latents=latents(latent_space="sd1")), grpc.StatusCode.FAILED_PRECONDITION,
        ["sd1", "latentwire-f8c4@3"],
    ),
    "latents of too large an image": (
        pb.DecodeRequest(latents=latents(floats(1, 4, 1, 200))), EXHAUSTED, ["1600x8", "1024", "--max-side"],
    ),
    "answer over the limit": (
        pb.DecodeRequest(latents=latents(floats(1, 4, 64, 64)),
                         image_tensor=pb.ImageTensorOutput(layout="IMAGE_LAYOUT_FLOAT_NCHW")),
        EXHAUSTED, ["3145728", "1048576", "--max-message-mib", "uint8"],
    ),
    "image size that the latents cannot hold": (
        pb.DecodeRequest(latents=latents(image_size=pb.ImageSize(height=64, width=65))), INVALID, ["65", "57", "64"],
    ),
    "quality of a PNG": (
        pb.DecodeRequest(latents=latents(), image_files=pb.ImageFileOutput(quality=50)), INVALID, ["PNG"],
    ),
    "quality of 101": (
        pb.DecodeRequest(latents=latents(), image_files=pb.ImageFileOutput(format="IMAGE_FORMAT_JPEG", quality=101)),
        INVALID, ["101", "1..100"],
    ),
    "unknown model": (
        pb.DecodeRequest(model="sdxl", latents=latents()), grpc.StatusCode.NOT_FOUND, ["sdxl", "f8c4"],
    ),
}  # fmt: skip


def check(error: Any, code: grpc.StatusCode, words: list[str]) -> None:
    assert error.code() is code, error.details()
    message = error.details()
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize("what", ENCODE)
def test_a_bad_encode_request_is_refused_and_the_server_goes_on(stub: LatentCodecServiceStub, what: str) -> None:
    request, code, words = ENCODE[what]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Encode(request)
    check(caught.value, code, words)
    assert stub.Encode(pb.EncodeRequest(image_file=png())).latents.values.shape == [1, 4, 8, 8]


@pytest.mark.parametrize("what", DECODE)
def test_a_bad_decode_request_is_refused_and_the_server_goes_on(stub: LatentCodecServiceStub, what: str) -> None:
    request, code, words = DECODE[what]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Decode(request)
    check(caught.value, code, words)
    assert stub.Decode(pb.DecodeRequest(latents=latents())).image_tensor.tensor.shape == [1, 64, 64, 3]


def test_an_invalid_argument_names_its_field(stub: LatentCodecServiceStub) -> None:
    request, _, _ = ENCODE["seeds for another number of images"]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Encode(request)
    error: Any = caught.value
    metadata = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert [violation.field for violation in bad.field_violations] == ["latents.seeds"]


def test_bad_items_of_a_stream_fail_alone_with_the_statuses_of_calls(stub: LatentCodecServiceStub) -> None:
    bad = {name: row for name, row in ENCODE.items() if name != "message over the limit"}  # that one ends the call
    requests = [pb.EncodeStreamRequest(id=7, request=pb.EncodeRequest(image_file=png()))]
    requests += [pb.EncodeStreamRequest(id=100 + i, request=row[0]) for i, row in enumerate(bad.values())]
    answers = {answer.id: answer for answer in stub.EncodeStream(iter(requests))}
    assert len(answers) == len(requests)
    assert answers[7].WhichOneof("outcome") == "result"
    for index, (name, (_, code, words)) in enumerate(bad.items()):
        error = answers[100 + index].error
        assert error.code == code.value[0], name
        assert [word for word in words if word not in error.message] == [], name


@pytest.mark.parametrize(("method", "code"), [("Encode", INVALID), ("Nonsense", grpc.StatusCode.UNIMPLEMENTED)])
def test_an_unknown_method_and_a_broken_message_do_not_hurt_the_server(
    channel: grpc.Channel, stub: LatentCodecServiceStub, method: str, code: grpc.StatusCode
) -> None:
    call: Any = channel.unary_unary(f"/latentwire.v1.LatentCodecService/{method}")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff not protobuf")
    error: Any = caught.value
    assert error.code() is code
    assert len(stub.GetServerInfo(pb.GetServerInfoRequest()).models) == 2
