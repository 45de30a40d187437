# SPDX-License-Identifier: Apache-2.0
"""A server for tests of code that uses the client: in this process, without torch, exact and instant.

    with FakeServer() as server, Client(server.target) as client:
        latents = client.encode(image)  # the mean colour of each 8x8 block

It speaks the protocol over a real socket, so that timeouts, retries and errors are those of a real server.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Self, TypeVar

import grpc
import numpy as np
import numpy.typing as npt
from google.rpc import code_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from PIL import Image, ImageOps

from latentwire_client import _convert
from latentwire_client._settings import SERVICE
from latentwire_core.kinds import LatentKind
from latentwire_core.latents import Latents
from latentwire_proto import __version__
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_proto.v1.latent_codec_pb2_grpc import (
    LatentCodecServiceServicer,
    add_LatentCodecServiceServicer_to_server,
)

Q = TypeVar("Q")
R = TypeVar("R")

FACTOR = 8
PAYLOAD_MARK = b"latentwire-fake:"
MODEL = pb.ModelInfo(
    name="fake", class_name="Fake", latent_space="latentwire-fake@1", weights_digest="0" * 64, latent_channels=3,
    downsample_factor=FACTOR, scale=[1.0], shift=[0.0], has_logvar=True, dtype=pb.DTYPE_FLOAT32, device="cpu",
    config_json="{}", loaded=True,
)  # fmt: skip
LIMITS = pb.Limits(
    max_message_bytes=64 * 2**20, max_image_side=8192, max_image_pixels=2**24, max_batch_images=64,
    max_queue_images=256, stream_window=16, max_refinement=100,
)  # fmt: skip


class FakeServer(LatentCodecServiceServicer):
    """A gRPC server on a free port of the loopback; its one model, `fake`, has f = 8 and C = 3.

    Latents are the means of 8x8 blocks in [-1,1] with a log-variance of -30; samples equal the mode; decoding repeats
    each mean over its block. Payloads hold the same latents, whatever their quality: they are not `.lat` files, and
    only a fake server decodes them.

    Attributes:
        calls: name of an RPC -> the number of its calls, failures included.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._failures: list[tuple[grpc.StatusCode, str]] = []
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="latentwire-fake")
        self._server = grpc.server(self._threads)
        add_LatentCodecServiceServicer_to_server(self, self._server)
        health_servicer = health.HealthServicer()
        health_servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, self._server)
        self._port = self._server.add_insecure_port("127.0.0.1:0")

    @property
    def target(self) -> str:
        """The address to give to a client."""
        return f"127.0.0.1:{self._port}"

    def fail_next(self, code: grpc.StatusCode, message: str = "told to fail", times: int = 1) -> None:
        """Let the next calls fail with a status; health checks go on."""
        with self._lock:
            self._failures += [(code, message)] * times

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        self._threads.shutdown()

    def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Any) -> pb.GetServerInfoResponse:
        """Answer with the version, the limits and the one model."""
        self._count("GetServerInfo", context)
        return pb.GetServerInfoResponse(version=__version__, limits=LIMITS, models=[MODEL])

    def Encode(self, request: pb.EncodeRequest, context: Any) -> pb.EncodeResponse:
        """Map images to the means of their blocks."""
        self._count("Encode", context)
        return _answer(_encode, request, context)

    def Decode(self, request: pb.DecodeRequest, context: Any) -> pb.DecodeResponse:
        """Map means to blocks."""
        self._count("Decode", context)
        return _answer(_decode, request, context)

    def EncodeStream(self, request_iterator: Iterator[Any], context: Any) -> Iterator[pb.EncodeStreamResponse]:
        """Map many images."""
        self._count("EncodeStream", context)
        for item in request_iterator:
            yield pb.EncodeStreamResponse(id=item.id, **_outcome(_encode, item.request))

    def DecodeStream(self, request_iterator: Iterator[Any], context: Any) -> Iterator[pb.DecodeStreamResponse]:
        """Map many latents."""
        self._count("DecodeStream", context)
        for item in request_iterator:
            yield pb.DecodeStreamResponse(id=item.id, **_outcome(_decode, item.request))

    def _count(self, method: str, context: Any) -> None:
        with self._lock:
            self.calls[method] += 1
            failure = self._failures.pop(0) if self._failures else None
        if failure is not None:
            context.abort(*failure)


def _answer(work: Callable[[Q], R], request: Q, context: Any) -> R:
    try:
        return work(request)
    except (OSError, ValueError) as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        raise


def _outcome(work: Callable[[Any], Any], request: Any) -> dict[str, Any]:
    try:
        return {"result": work(request)}
    except (OSError, ValueError) as error:
        return {"error": status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=str(error))}


def _encode(request: pb.EncodeRequest) -> pb.EncodeResponse:
    if request.WhichOneof("input") == "image_tensor":
        pixels = _convert.from_image_tensor(request.image_tensor)
        pixels = pixels if pixels.dtype == np.uint8 else _to_uint8(pixels)
        if pixels.shape[1] % FACTOR or pixels.shape[2] % FACTOR:
            raise ValueError(f"raw images are {pixels.shape[1:3]}; their sides must be multiples of {FACTOR}")
    else:
        with Image.open(io.BytesIO(request.image_file)) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        if request.HasField("target_size"):
            wanted = request.target_size
            upright = ImageOps.fit(upright, (wanted.width, wanted.height), Image.Resampling.LANCZOS)
        pixels = np.asarray(upright)[np.newaxis]
    height, width = pixels.shape[1:3]
    padded = np.pad(pixels, ((0, 0), (0, -height % FACTOR), (0, -width % FACTOR), (0, 0)), mode="edge")
    batch, rows, columns = len(padded), padded.shape[1] // FACTOR, padded.shape[2] // FACTOR
    blocks = padded.reshape(batch, rows, FACTOR, columns, FACTOR, 3).astype(np.float32)
    means = np.ascontiguousarray((blocks.mean(axis=(2, 4)) / 127.5 - 1).transpose(0, 3, 1, 2))
    asked = request.latents
    kind = _convert.FROM_KIND.get(asked.kind, LatentKind.MODE)
    # bfloat16 would arrive as float32, too; here the means keep their full precision.
    exact = asked.dtype in (pb.DTYPE_FLOAT32, pb.DTYPE_BFLOAT16) or request.WhichOneof("output") == "lat"
    dtype = np.float32 if exact else np.float16
    latents = Latents(
        values=means.astype(dtype),
        logvar=np.full(means.shape, -30, dtype) if kind is LatentKind.MOMENTS else None,
        kind=kind,
        scaled=asked.scale == pb.LATENT_SCALE_SCALED,
        image_size=(height, width),
        model=MODEL.name,
        latent_space=MODEL.latent_space,
        weights_digest=MODEL.weights_digest,
    )
    if request.WhichOneof("output") == "lat":
        payloads = [PAYLOAD_MARK + _convert.to_latents(one).SerializeToString() for one in latents.split()]
        return pb.EncodeResponse(lat=pb.LatPayloads(payloads=payloads), execution=_execution())
    return pb.EncodeResponse(latents=_convert.to_latents(latents), execution=_execution())


def _decode(request: pb.DecodeRequest) -> pb.DecodeResponse:
    message = request.latents
    if request.WhichOneof("input") == "lat":
        (payload,) = request.lat.payloads
        if not payload.startswith(PAYLOAD_MARK):
            raise ValueError("the payload is not from a fake server, and a fake server decodes no others")
        message = pb.Latents.FromString(payload.removeprefix(PAYLOAD_MARK))
    latents = _convert.from_latents(message)
    means = latents.values.astype(np.float32).repeat(FACTOR, axis=2).repeat(FACTOR, axis=3)
    height, width = latents.image_size or means.shape[2:]
    means = np.ascontiguousarray(means[:, :, :height, :width])
    if request.WhichOneof("output") == "image_files":
        files = []
        asked = request.image_files
        image_format = pb.ImageFormat.Name(asked.format or pb.IMAGE_FORMAT_PNG).removeprefix("IMAGE_FORMAT_")
        for pixels in _to_uint8(means):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, image_format, **({"quality": asked.quality} if asked.quality else {}))
            files.append(buffer.getvalue())
        return pb.DecodeResponse(image_files=pb.ImageFiles(files=files), execution=_execution())
    if request.image_tensor.layout != pb.IMAGE_LAYOUT_FLOAT_NCHW:
        images: npt.NDArray[Any] = _to_uint8(means)
    else:
        images = means.astype(np.float16) if request.image_tensor.dtype == pb.DTYPE_FLOAT16 else means
    return pb.DecodeResponse(image_tensor=_convert.to_image_tensor(images), execution=_execution())


def _to_uint8(images: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    levels = np.rint((images.astype(np.float32) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1))


def _execution() -> pb.Execution:
    return pb.Execution(batch_size=1, model=MODEL.name, weights_digest=MODEL.weights_digest)
