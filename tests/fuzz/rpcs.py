# SPDX-License-Identifier: Apache-2.0
"""Damaged gRPC requests -> statuses of a live server: mutation fuzzing of all its services.

    python -m tests.fuzz.rpcs [--minutes 10] [--seed 0] [--replay FILE]

An input is a script of some calls at once, or the bytes of one HTTP/2 connection. Messages of every method are sent as
they are, with other fields, or with other bytes; with metadata, deadlines, cancels and streams that stay open. No call
may end as UNKNOWN or INTERNAL, or without a status. After each script the server must be alive, must have logged no
fault, must not hold much more memory, and must answer a good request as it did at first.
"""

import base64
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any, Self

import grpc
import numpy as np
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_server.doors.oip import messages as oip
from tests.fuzz import http2
from tests.fuzz.image_files import corpus
from tests.fuzz.live import LIMITS, LiveServer
from tests.fuzz.messages import changed
from tests.fuzz.runner import Attempt, Failure, run

CODEC, OIP = "/latentwire.v1.LatentCodecService/", "/inference.GRPCInferenceService/"
HEALTH, REFLECTION = "/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
ANSWER_S = 60
"""Time in which a call must have a status."""
SHORT_S = (0.0001, 0.003, 0.02, 0.3)
LASTING_S = 0.03
RAW_SHARE = 0.05
UNANSWERED = "Deadline Exceeded"
"""gRPC's text where a client's deadline passes; a message with a timeout of its own has the server's text."""
FAULTS = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
METADATA: tuple[list[tuple[str, str]], ...] = (
    [],
    [],
    [("authorization", "Bearer nobody"), ("x-request-id", "a" * 300)],
    [("x-request-id", "an id with spaces"), ("traceparent", "00-zz-1-01")],
    [("x-long", "v" * 7000)],
    [("x-longer", "v" * 40_000)],
    [(f"x-{index}", "v") for index in range(150)],
    [("grpc-accept-encoding", "gzip"), ("user-agent", "x")],
    [("x-bin", "AAECAwT/")],
)


def requests(payload: bytes) -> dict[str, list[bytes]]:
    """Map the path of each method to good messages; `payload` is a `.lat` of the server's model."""
    images = [corpus()[name][0] for name in ("JPEG", "PNG", "GIF", "WEBP")]
    pixels = np.arange(2 * 16 * 16 * 3, dtype=np.uint8).reshape(2, 16, 16, 3)
    floats = np.linspace(-1, 1, 3 * 16 * 16, dtype=np.float32).reshape(1, 3, 16, 16)
    latents = np.linspace(-3, 3, 16, dtype=np.float32).reshape(1, 4, 2, 2)
    encodes = [
        *(pb.EncodeRequest(image_file=file) for file in images),
        pb.EncodeRequest(image_file=images[1], target_size=pb.ImageSize(height=24, width=40)),
        pb.EncodeRequest(
            image_tensor=pb.ImageTensor(tensor=_tensor(pixels, pb.DTYPE_UINT8), layout=pb.IMAGE_LAYOUT_UINT8_NHWC),
            latents=pb.LatentOutput(kind=pb.LATENT_KIND_SAMPLE, seeds=[1, 2], scale=pb.LATENT_SCALE_SCALED),
        ),
        pb.EncodeRequest(
            model="f8c4",
            image_tensor=pb.ImageTensor(tensor=_tensor(floats, pb.DTYPE_FLOAT32), layout=pb.IMAGE_LAYOUT_FLOAT_NCHW),
            latents=pb.LatentOutput(kind=pb.LATENT_KIND_MOMENTS, dtype=pb.DTYPE_BFLOAT16),
        ),
        pb.EncodeRequest(image_file=images[0], lat=pb.LatOutput(quality=pb.LAT_QUALITY_LOW)),
        pb.EncodeRequest(image_file=images[0], lat=pb.LatOutput(step=0.5, refinement=1)),
    ]
    sent = pb.Latents(values=_tensor(latents, pb.DTYPE_FLOAT32), image_size=pb.ImageSize(height=15, width=13))
    half = pb.Latents(values=_tensor(latents.astype(np.float16), pb.DTYPE_FLOAT16), scale=pb.LATENT_SCALE_SCALED)
    decodes = [
        pb.DecodeRequest(latents=sent),
        pb.DecodeRequest(
            latents=half, image_tensor=pb.ImageTensorOutput(layout=pb.IMAGE_LAYOUT_FLOAT_NCHW, dtype=pb.DTYPE_FLOAT16)
        ),
        pb.DecodeRequest(latents=sent, image_files=pb.ImageFileOutput(format=pb.IMAGE_FORMAT_WEBP, quality=50)),
        pb.DecodeRequest(lat=pb.LatPayloads(payloads=[payload, payload])),
        pb.DecodeRequest(lat=pb.LatPayloads(payloads=[payload]), image_files=pb.ImageFileOutput()),
    ]
    found: dict[str, Sequence[Any]] = {
        f"{CODEC}GetServerInfo": [pb.GetServerInfoRequest()],
        f"{CODEC}Encode": encodes,
        f"{CODEC}Decode": decodes,
        f"{CODEC}EncodeStream": [
            pb.EncodeStreamRequest(id=id_, request=each, timeout_ns=id_ % 3 * 10**9) for id_, each in enumerate(encodes)
        ],
        f"{CODEC}DecodeStream": [pb.DecodeStreamRequest(id=id_, request=each) for id_, each in enumerate(decodes)],
        f"{HEALTH}Check": [
            health_pb2.HealthCheckRequest(),
            health_pb2.HealthCheckRequest(service="latentwire.v1.LatentCodecService"),
        ],
        f"{HEALTH}Watch": [health_pb2.HealthCheckRequest()],
        REFLECTION: [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="latentwire.v1.LatentCodecService"),
            reflection_pb2.ServerReflectionRequest(
                file_containing_extension=reflection_pb2.ExtensionRequest(containing_type="x", extension_number=1)
            ),
        ],
        **{OIP + name: each for name, each in _inferences(images[1], pixels, latents).items()},
        "/no.such.Service/Method": [pb.EncodeRequest()],
    }
    return {path: [each.SerializeToString() for each in messages] for path, messages in found.items()}


def _inferences(file: bytes, pixels: np.ndarray, latents: np.ndarray) -> dict[str, list[Any]]:
    infer = oip.ModelInferRequest
    encode = infer(model_name="f8c4.encode", id="1", raw_input_contents=[pixels.tobytes()])
    encode.inputs.add(name="IMAGE", datatype="UINT8", shape=pixels.shape)
    encode.parameters["timeout"].int64_param = 10_000_000
    decode = infer(model_name="f8c4.decode", raw_input_contents=[latents.tobytes()])
    decode.inputs.add(name="LATENTS", datatype="FP32", shape=latents.shape)
    written = infer(model_name="f8c4.decode")
    tensor = written.inputs.add(name="LATENTS", datatype="FP32", shape=latents.shape)
    tensor.contents.fp32_contents.extend(latents.ravel().tolist())
    files = infer(model_name="f8c4.encode")
    tensor = files.inputs.add(name="IMAGE_FILE", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(file)
    named = {"ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"}
    messages: dict[str, list[Any]] = {"ModelInfer": [encode, decode, written, files]}
    for method in oip.SERVICE.methods:
        if method.name != "ModelInfer":
            kind = oip.message_class(method.input_type.name)
            messages[method.name] = [kind(name="f8c4.encode") if method.name in named else kind()]
    return messages


def _tensor(array: np.ndarray, dtype: "pb.DType") -> pb.Tensor:
    return pb.Tensor(dtype=dtype, shape=array.shape, data=array.tobytes())


class Rpcs:
    """A live server and scripts of damaged calls.

    Args:
        seed: of the damage.
    """

    name = "rpcs"

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def __enter__(self) -> Self:
        self._server = LiveServer("--model", "f8c4", *LIMITS)
        self._channel = self._server.channel()
        self._pool = ThreadPoolExecutor(32)
        self._good = requests(b"")[f"{CODEC}Encode"][5]
        self._first = self._ask()
        lat = pb.EncodeRequest(image_file=corpus()["PNG"][0], lat=pb.LatOutput())
        answer = self._channel.unary_unary(f"{CODEC}Encode")(lat.SerializeToString())
        self._corpus = requests(pb.EncodeResponse.FromString(answer).lat.payloads[0])
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._channel.close()
        self._server.close()

    def payload(self) -> bytes:
        """Return the next script, as JSON."""
        random = self.random
        if random.random() < RAW_SHARE:
            path = random.choice(list(self._corpus))
            data = http2.connection(random, path, self._messages(path)[:3])
            script: Any = {"raw": _text(data), "closes": random.random() < 0.5}
        else:
            script = [self._call() for _ in range(random.choice((1, 32, 32, 32)))]
        return json.dumps(script).encode()

    def _call(self) -> dict[str, Any]:
        random = self.random
        path = random.choice(list(self._corpus))
        messages = self._messages(path)
        lasts = path in {f"{HEALTH}Watch", REFLECTION} or len(messages) == 0
        stays_open = random.random() < 0.05
        timeout = random.choice(SHORT_S) if random.random() < 0.1 else None
        return {
            "path": path,
            "messages": [_text(message) for message in messages],
            "metadata": random.choice(METADATA) if random.random() < 0.3 else [],
            "timeout": LASTING_S if timeout is None and (lasts or stays_open) else timeout,
            "stays_open": stays_open,
            "cancel_after": random.choice((0, 0, 1, 2)) if random.random() < 0.1 else None,
        }

    def _messages(self, path: str) -> list[bytes]:
        """Return messages for a method, most of them changed."""
        random, good = self.random, self._corpus[path]
        count = random.choice((1, 1, 3, 20)) if path.endswith(("Stream", "Info")) else 1
        if random.random() < 0.02:
            count = random.choice((0, 2, 30))
        messages = []
        for message in random.choices(good, k=count):
            for _ in range(random.choice((0, 1, 1, 1, 2))):
                message = changed(random, message)  # noqa: PLW2901 - one change upon the other
            messages.append(message[: 2 << 20])
        return messages

    def attempt(self, payload: bytes) -> Attempt:
        """Play a script; raise Failure where a status or the state of the server is not allowed."""
        script = json.loads(payload)
        before = self._server.held()
        if isinstance(script, dict):
            host, _, port = self._server.target.rpartition(":")
            outcomes = [http2.talk((host, int(port)), base64.b64decode(script["raw"]), closes=script["closes"])]
        else:
            outcomes = list(self._pool.map(self._play, script))
        held = self._server.check()
        try:
            if self._ask() != self._first:
                raise Failure("the good request has another answer than at first")
        except grpc.RpcError as error:
            raise Failure(f"the good request failed: {error}") from error
        return Attempt(tuple(outcomes), held.cpu_s - before.cpu_s, held.mib - self._server.ready.mib)

    def _ask(self) -> bytes:
        answer = self._channel.unary_unary(f"{CODEC}Encode")(self._good, timeout=ANSWER_S)
        return pb.EncodeResponse.FromString(answer).latents.SerializeToString()

    def _play(self, call: dict[str, Any]) -> str:
        """Make one call and return the name of its status."""
        ended = threading.Event()

        def messages() -> Iterator[bytes]:
            yield from map(base64.b64decode, call["messages"])
            if call["stays_open"]:
                ended.wait(ANSWER_S)

        metadata = [(name, base64.b64decode(value) if name == "x-bin" else value) for name, value in call["metadata"]]
        method = self._channel.stream_stream(call["path"])
        answers = method(messages(), timeout=call["timeout"] or ANSWER_S, metadata=metadata)
        try:
            if call["cancel_after"] == 0:
                answers.cancel()
            for number, answer in enumerate(answers, 1):
                _check(call["path"], answer)
                if call["cancel_after"] == number:
                    answers.cancel()
        except grpc.RpcError:
            pass
        finally:
            ended.set()
        code: grpc.StatusCode = answers.code()
        if code in FAULTS or (answers.details() == UNANSWERED and call["timeout"] is None):
            raise Failure(f"{call['path']} ended as {code.name}: {answers.details()}")
        return code.name


# Answers of streams -> the class with the error of an item.
_ANSWERS: dict[str, Callable[[bytes], Any]] = {
    f"{CODEC}EncodeStream": pb.EncodeStreamResponse.FromString,
    f"{CODEC}DecodeStream": pb.DecodeStreamResponse.FromString,
}


def _check(path: str, answer: bytes) -> None:
    """Raise Failure where an item of a stream has the error UNKNOWN or INTERNAL."""
    if path in _ANSWERS:
        error = _ANSWERS[path](answer).error
        if error.code in {code.value[0] for code in FAULTS}:
            raise Failure(f"an item of {path} has the error {error.code}: {error.message}")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


if __name__ == "__main__":
    run(Rpcs, __doc__)
