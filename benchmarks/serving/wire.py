# SPDX-License-Identifier: Apache-2.0
"""A form and its input -> the bytes of its messages, both ways."""

from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from benchmarks.serving.forms import IMAGE, LATENTS, RAW, Form
from latentwire_client import Latents, _convert
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub


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
            path = folder / f"{IMAGE}.{form.carrier}"
            image = np.load(path.with_suffix(".npy")) if form.carrier == RAW else path.read_bytes()
            request = _convert.with_image(_convert.to_encode_request({}, ""), image)
            return Messages(request.ByteSize(), stub.Encode(request).ByteSize())
        raw = form.carrier == RAW
        output = _convert.to_tensor_output("uint8") if raw else _convert.to_file_output(form.carrier, None)
        wanted = _convert.to_decode_request(Latents.load(folder / LATENTS), output, "")
        return Messages(wanted.ByteSize(), stub.Decode(wanted).ByteSize())
