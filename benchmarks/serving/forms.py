# SPDX-License-Identifier: Apache-2.0
"""The name of a form -> a call and the bytes of its messages: image files or raw tensors, encoded or decoded.

A client's process reads its inputs from files, so that it needs no model to make them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt

from latentwire_client import Client, Latents, _convert
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub

IMAGE, LATENTS = "image", "latents.safetensors"
RAW = "raw"
CARRIERS = (RAW, "jpeg", "png")
OPERATIONS = ("encode", "decode")


@dataclass(frozen=True)
class Form:
    """The operation, `encode` or `decode`, and how images travel: RAW, uint8 (H,W,3), or the format of a file."""

    operation: str
    carrier: str

    @property
    def name(self) -> str:
        """Return its name in tables and options."""
        return f"{self.operation}-{self.carrier}"

    @classmethod
    def of(cls, name: str) -> "Form":
        """Map a name back to its form."""
        return cls(*name.split("-"))

    def call(self, client: Client, folder: Path) -> Callable[[], object]:
        """Read the input as `InProcess.write` wrote it; return a callable that sends it and waits for the answer."""
        if self.operation == "encode":
            image = self.image(folder)
            return lambda: client.encode(image)
        latents = Latents.load(folder / LATENTS)
        if self.carrier == RAW:
            return lambda: client.decode_array(latents)
        return lambda: client.decode_files(latents, image_format=self.carrier)

    def image(self, folder: Path) -> npt.NDArray[np.uint8] | bytes:
        """Read the image that is encoded."""
        path = folder / f"{IMAGE}.{self.carrier}"
        return np.load(path.with_suffix(".npy")) if self.carrier == RAW else path.read_bytes()


FORMS = tuple(Form(operation, carrier).name for operation in OPERATIONS for carrier in CARRIERS)
# JPEG is what folders mostly hold; PNG is the default format of decoded files.
DEFAULT_FORMS = ("encode-raw", "encode-jpeg", "decode-raw", "decode-png")


@dataclass(frozen=True)
class Messages:
    """Bytes of the messages of one call as protobuf writes them, without HTTP/2."""

    request_bytes: int
    response_bytes: int


def messages(target: str, form: Form, folder: Path, max_message_bytes: int) -> Messages:
    """Make one call of a form on the stub, because the client hides its messages."""
    limits = [(f"grpc.max_{way}_message_length", max_message_bytes) for way in ("send", "receive")]
    with grpc.insecure_channel(target, limits) as channel:
        stub = LatentCodecServiceStub(channel)
        if form.operation == "encode":
            request = _convert.with_image(_convert.to_encode_request({}, ""), form.image(folder))
            return Messages(request.ByteSize(), stub.Encode(request).ByteSize())
        raw = form.carrier == RAW
        output = _convert.to_tensor_output("uint8") if raw else _convert.to_file_output(form.carrier, None)
        wanted = _convert.to_decode_request(Latents.load(folder / LATENTS), output, "")
        return Messages(wanted.ByteSize(), stub.Decode(wanted).ByteSize())
